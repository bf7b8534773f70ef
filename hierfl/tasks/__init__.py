"""Tasks that come with hierfl, one file each."""
