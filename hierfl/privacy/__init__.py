"""Mechanisms of differential privacy. One file each, each with its paper."""
