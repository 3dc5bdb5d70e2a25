"""Run the benchmark: `python -m benchmarks.serving`."""

from benchmarks.serving.serving import main

main()
