"""The ledger: jobs, trials and packs as rows, and every change of their states."""
