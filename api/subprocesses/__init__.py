"""Work for requests that runs in separate processes."""
