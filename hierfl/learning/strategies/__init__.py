"""Strategies: what a site optimises, how a hub reduces and steps. One file each, each with its paper."""
