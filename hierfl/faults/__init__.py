"""The kinds of faults; a kind is one file."""
