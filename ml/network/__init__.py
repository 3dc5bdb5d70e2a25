"""A network outside its training: as a torch module, as an ONNX graph, and its weights in another network."""
