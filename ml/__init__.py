"""The science: networks, data sets, training, search and prediction, usable alone (`python -m ml`)."""
