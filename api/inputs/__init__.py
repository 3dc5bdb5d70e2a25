"""What requests bring: images, archives and options, read within limits."""
