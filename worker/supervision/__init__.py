"""What a worker process does beside training: claim packs, lend trainers, ring and tidy up."""
