"""Lets `python -m hierfl` do what `hierfl` does."""

from hierfl.cli import main

if __name__ == "__main__":
    main()
