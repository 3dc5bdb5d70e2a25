"""Intervals, paired tests and the run-off between the best trials."""
