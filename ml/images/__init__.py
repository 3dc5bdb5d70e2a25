"""Images as arrays: samples of a data set, resized images, drawn glyphs and images that are not digits."""
