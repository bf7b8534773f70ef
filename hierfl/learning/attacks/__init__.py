"""Attacks of sites, to rehearse. One file each, each with its paper."""
