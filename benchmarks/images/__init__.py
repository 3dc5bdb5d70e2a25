"""Images that benchmarks make: distorted digits, drawn fonts, and images that are no digits."""
