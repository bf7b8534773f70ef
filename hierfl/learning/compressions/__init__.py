"""Compressions: how a member's change becomes small before it is sent. One file each, each with its paper."""
