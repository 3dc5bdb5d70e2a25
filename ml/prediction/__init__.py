"""Predictions of a published version: probabilities, calibration and novelty."""
