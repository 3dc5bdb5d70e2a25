"""What answers show of jobs, trials and versions."""
