"""The accuracy that each network reaches: `python -m benchmarks.records NETWORK`."""
