"""Routes of networks, their versions and their champions."""
