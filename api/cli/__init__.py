"""The command `chiffre`, one file per group of commands."""
