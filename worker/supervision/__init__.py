"""The work of a worker process besides training: claim packs, lend trainers, wake other workers and clean up."""
