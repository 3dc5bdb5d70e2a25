"""HTTP, and the command that talks to it."""
