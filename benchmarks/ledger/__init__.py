"""Claims per second, and the time to the first step of a job: `python -m benchmarks.ledger`."""
