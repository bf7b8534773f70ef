"""What hierfl costs, beside a raw PyTorch loop and a bare Ray actor pool: `python -m benchmarks --help`."""
