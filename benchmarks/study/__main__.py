"""Run the benchmark: `python -m benchmarks.study`."""

from benchmarks.study.study import main

main()
