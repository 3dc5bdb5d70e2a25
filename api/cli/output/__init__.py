"""Output of the command: tables, live charts and plain text."""
