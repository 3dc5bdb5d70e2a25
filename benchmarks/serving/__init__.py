"""Predictions over HTTP, compared with other servers: `python -m benchmarks.serving`."""
