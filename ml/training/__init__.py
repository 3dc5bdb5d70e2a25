"""The training of a pack: its lanes, its images, its checkpoints and its replay."""
