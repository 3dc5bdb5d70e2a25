"""Routes of jobs and of their results."""
