"""A job's winner becomes a version: its rows and its work."""
