"""The time of a search, compared with Optuna around a plain loop: `python -m benchmarks.study`."""
