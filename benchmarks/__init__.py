"""Programs that measure Chiffre, each against a baseline. README.md describes them."""
