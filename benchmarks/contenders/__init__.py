"""What is measured: each contender is a process of its own that does the same work and says what it took."""
