"""Networks as plain torch modules."""

from dataclasses import asdict
from pydoc import locate

import torch
from torch import nn

from ml.errors import LanesError
from ml.layers import Layer, Wrapped


def module_of(layers: list[Layer], init_seed: int) -> nn.Sequential:
    """Return the torch module of `layers`.

    Its initial weights are drawn as torch draws them by default, from `init_seed`; torch's global random state stays as
    it is. Weights are named by the layer's position: "1.weight".
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(init_seed)
        return nn.Sequential(*(torch_layer(layer) for layer in layers))


def torch_layer(layer: Layer) -> nn.Module:
    """Return the torch module of one layer.

    Raises:
        LanesError: if the layer wraps no torch module, or one whose weights differ from those that the layer names.
    """
    kind = type(layer)
    path = (layer.module if isinstance(layer, Wrapped) else "") or f"torch.nn.{kind.__name__}"
    found = locate(path)
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        raise LanesError(f"{kind.__name__} wraps {path}, which is no torch module; correct its `module`")
    module: nn.Module = found(**asdict(layer))  # type: ignore[call-overload]
    weights = {name: tuple(weight.shape) for name, weight in module.named_parameters()}
    if weights != layer.weights():
        raise LanesError(f"{kind.__name__}.weights() is {layer.weights()}, but {path} has {weights}; correct it")
    return module
