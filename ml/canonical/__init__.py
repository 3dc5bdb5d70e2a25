"""The input canonicaliser: a drawn or photographed digit, brought to the form that networks train on."""
