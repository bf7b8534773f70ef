"""What `hierfl plan` knows: a tree as the simulator's workload, what sites take, devices, levers, logs."""
