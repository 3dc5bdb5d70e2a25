"""Predict and evaluate jobs: their rows and their work."""
