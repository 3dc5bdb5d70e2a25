"""The best accuracy of each network: `python -m benchmarks.records NETWORK`."""
