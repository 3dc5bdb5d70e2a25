"""Run the benchmark: `python -m benchmarks.lanes`."""

from benchmarks.lanes.lanes import main

main()
