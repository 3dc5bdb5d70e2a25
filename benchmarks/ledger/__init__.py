"""Claims a second, and the time to a job's first step: `python -m benchmarks.ledger`."""
