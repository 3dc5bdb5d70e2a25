"""Images for benchmarks: distorted digits, digits of fonts, and images that show no digit."""
