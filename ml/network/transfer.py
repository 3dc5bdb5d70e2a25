"""Transfer: which weights of another network a network can begin with."""

from collections.abc import Mapping

from ml.layers import Layer, Shape


def weight_shapes(layers: list[Layer]) -> dict[str, Shape]:
    """The shapes of all weights by torch's names, "1.weight"."""
    return {f"{place}.{name}": shape for place, layer in enumerate(layers) for name, shape in layer.weights().items()}


def fresh(layers: list[Layer], given: Mapping[str, Shape]) -> list[str]:
    """The weights that cannot be those given, as layers have other shapes or places there: whole layers of them.

    A bias without its weight would be part of neither network.
    """
    shapes = weight_shapes(layers)
    places = {place_of(name) for name, shape in shapes.items() if given.get(name) != shape}
    return [name for name in shapes if place_of(name) in places]


def place_of(name: str) -> int:
    """The place of the layer that weights of this name belong to."""
    return int(name.partition(".")[0])
