"""The training of a claimed pack: its images, its work and its records."""
