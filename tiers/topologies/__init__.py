"""Topologies: how the members of a hub exchange. One file each."""
