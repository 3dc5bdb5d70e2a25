"""Run the benchmark: `python -m benchmarks.records`."""

from benchmarks.records.records import main

main()
