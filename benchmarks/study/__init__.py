"""The time until what a search would publish is good, compared with Optuna around a plain loop."""
