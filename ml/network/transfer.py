"""Transfer: the weights of another network that a network can begin with."""

from collections.abc import Mapping

from ml.layers import Layer, Shape


def weight_shapes(layers: list[Layer]) -> dict[str, Shape]:
    """Return the shapes of all weights by torch's names, "1.weight"."""
    return {f"{place}.{name}": shape for place, layer in enumerate(layers) for name, shape in layer.weights().items()}


def fresh(layers: list[Layer], given: Mapping[str, Shape]) -> list[str]:
    """Return the names of the weights that cannot be taken from `given`, because shapes or places differ.

    These are always all weights of a layer: a bias without its weight would belong to neither network.
    """
    shapes = weight_shapes(layers)
    places = {place_of(name) for name, shape in shapes.items() if given.get(name) != shape}
    return [name for name in shapes if place_of(name) in places]


def place_of(name: str) -> int:
    """Return the place of the layer that weights of this name belong to."""
    return int(name.partition(".")[0])
