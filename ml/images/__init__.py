"""Pictures as arrays: samples of a data set, other sizes, drawn glyphs and images that are no digits."""
