"""Participation policies: who takes part in a round, and until when. One file each."""
