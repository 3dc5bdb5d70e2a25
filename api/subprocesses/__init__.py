"""Work for a request that needs a process of its own."""
