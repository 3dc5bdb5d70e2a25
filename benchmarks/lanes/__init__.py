"""A training step in lanes, compared with plain PyTorch: `python -m benchmarks.lanes`."""
