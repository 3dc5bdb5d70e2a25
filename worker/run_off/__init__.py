"""The run-off between a search's best trials: its rows and its work."""
