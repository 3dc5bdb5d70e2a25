"""Run the benchmark: `python -m benchmarks.ledger`."""

from benchmarks.ledger.ledger import main

main()
