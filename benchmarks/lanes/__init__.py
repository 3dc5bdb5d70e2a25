"""A training step in lanes against plain PyTorch: `python -m benchmarks.lanes`."""
