"""The contents of requests: images, archives and options, read within limits."""
