"""Views: the public form of jobs, trials, events and versions."""
