"""Hyper-parameters: their ranges and defaults, the search-space grammar and early stopping."""
