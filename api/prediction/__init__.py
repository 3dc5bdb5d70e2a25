"""The parts of `POST /predict`: from the options of a request, over the batched predictions, to an answer."""
