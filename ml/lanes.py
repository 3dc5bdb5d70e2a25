"""From layers to torch: one plain module for a list of layers, and the optimizer of its trial."""

from dataclasses import asdict
from pydoc import locate
from typing import Any

import torch
from torch import nn

from ml.layers import Layer
from ml.params import Params


def module_of(layers: list[Layer], init_seed: int) -> nn.Sequential:
    """The torch module of `layers`, its initial weights drawn as torch draws them by default, from `init_seed`.

    Weights are named by the layer's position: "1.weight". Leaves torch's own random state untouched.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(init_seed)
        return nn.Sequential(*(_torch_layer(layer) for layer in layers))


def _torch_layer(layer: Layer) -> nn.Module:
    kind = getattr(nn, type(layer).__name__)
    module: nn.Module = kind(**asdict(layer))  # type: ignore[call-overload]
    return module


def optimizer_of(module: nn.Module, params: Params) -> torch.optim.Optimizer:
    """The optimizer that `params` name, over the weights of `module`."""
    chosen = params.of_optimizer()
    kind: Any = locate(chosen.torch_class)
    optimizer: torch.optim.Optimizer = kind(module.parameters(), **chosen.arguments())
    return optimizer
