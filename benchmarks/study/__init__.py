"""The time of a search against Optuna around a plain loop: `python -m benchmarks.study`."""
