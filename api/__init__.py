"""The HTTP API, and the command that is its client."""
