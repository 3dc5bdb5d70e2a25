"""The command `chiffre`: a client of the API, one file per group of commands."""
