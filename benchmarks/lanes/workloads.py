"""The nine workloads: networks with a batch size, their goals, and the least time that their arithmetic takes."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from ml.layers import Layer, flop_count, parameter_count
from ml.networks import networks
from ml.optimizers import Adam, Optimizer, Sgd

ADAM = Adam()
IMAGE = (1, 28, 28)
CLASSES = 10


@dataclass(frozen=True)
class Goal:
    """The goal of a workload."""

    figure: Literal["ratio_core", "roofline"]
    least: float
    aim: float

    def __str__(self) -> str:
        if self.figure == "roofline":
            return f"{self.least:.0%} / {self.aim:.0%} of roofline"
        return f"{self.least:g} / {self.aim:g} × B"


@dataclass(frozen=True)
class Workload:
    """One network at one batch size."""

    work: str
    network: str
    params: dict[str, Any]
    batch_size: int
    goal: Goal
    optimizer: Optimizer = ADAM

    @cached_property
    def layers(self) -> list[Layer]:
        """The layers of the network."""
        network = networks[self.network]
        return network.layers(IMAGE, CLASSES, network.params.model_validate(self.params))

    @property
    def flops(self) -> int:
        """Floating-point operations of one step, if no pixel is black.

        The forward pass, the gradients of weights and the gradients of inputs take the same number each. The gradients
        of the images are not needed.
        """
        first = next(layer for layer in self.layers if layer.weights())
        entering = (first.in_features,) if hasattr(first, "in_features") else IMAGE
        return self.batch_size * (3 * flop_count(self.layers, IMAGE) - first.flops(entering))

    @property
    def traffic(self) -> int:
        """Bytes that the optimizer reads and writes in one step: each weight and, for Adam, its two moments."""
        return parameter_count(self.layers) * (24 if isinstance(self.optimizer, Adam) else 8)

    @property
    def state(self) -> int:
        """Bytes of the weights, gradients and moments of a lane."""
        return 16 * parameter_count(self.layers)

    def limit(self, gemm: float, copy: float) -> float:
        """Return the least seconds of a step, from operations and bytes per second."""
        return max(self.flops / gemm, self.traffic / copy)


WORKLOADS = [
    Workload("perceptron, batch 3", "perceptron", {}, 3, Goal("ratio_core", 15, 40)),
    Workload("perceptron, batch 100", "perceptron", {}, 100, Goal("roofline", 0.6, 0.8)),
    Workload("shallow 128, batch 3", "shallow", {"hidden_size": 128}, 3, Goal("ratio_core", 8, 15)),
    Workload("shallow 128, batch 32", "shallow", {"hidden_size": 128}, 32, Goal("ratio_core", 4, 8)),
    Workload("shallow 512, SGD, batch 10", "shallow", {"hidden_size": 512}, 10, Goal("ratio_core", 3, 5), Sgd()),
    Workload("shallow 1685, batch 10", "shallow", {"hidden_size": 1685}, 10, Goal("roofline", 0.6, 0.8)),
    Workload("CNN, batch 3", "cnn", {}, 3, Goal("ratio_core", 5, 10)),
    Workload("CNN, batch 32", "cnn", {}, 32, Goal("ratio_core", 3, 5)),
    Workload("CNN, batch 100", "cnn", {}, 100, Goal("ratio_core", 2, 3)),
]
