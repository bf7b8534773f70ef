"""Monitors: what a person sees of a run, and what is left of it on disk."""
