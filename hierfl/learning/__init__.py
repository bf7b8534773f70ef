"""Learning: tasks, model state, exact sums, local training, strategies, metrics."""
