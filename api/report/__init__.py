"""A report: one job as one HTML file that needs nothing else, the same bytes for the same rows and files."""
