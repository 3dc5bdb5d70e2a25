"""Routes of networks, published versions and champions."""
