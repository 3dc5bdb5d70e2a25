"""Predictions over HTTP against other servers: `python -m benchmarks.serving`."""
