"""What `POST /predict` is made of: from a body of many kinds to images, and from the network's outputs to an answer."""
