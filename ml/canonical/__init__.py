"""The input canonicaliser: it brings a drawn or photographed digit to the form that networks train on."""
