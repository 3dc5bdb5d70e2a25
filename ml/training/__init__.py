"""The training of a pack: its lanes, images, checkpoints and replay."""
