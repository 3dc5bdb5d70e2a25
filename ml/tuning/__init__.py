"""The search: which trials a job draws, how wide its packs are, and the loop that runs them."""
