"""Programs that measure, each against a baseline. README.md describes them."""
