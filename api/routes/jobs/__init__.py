"""Routes of jobs, and of what a job has found."""
