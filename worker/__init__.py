"""The jobs: what persists, who works on it, and the processes that do."""
