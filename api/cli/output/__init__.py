"""What the command prints: tables, live charts and plain text."""
