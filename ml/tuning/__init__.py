"""The search: the trials that a job draws, the width of its packs, and the loop that runs them."""
