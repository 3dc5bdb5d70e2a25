"""Lanes: several trials that train as one module, on the same minibatches.

At small batch sizes the time of a training step is the overhead of its operations, not arithmetic. Lanes share each
operation. A lane ends with the weights that it would have alone: no sum, product or mean mixes two lanes. Each lane has
its own learning rate, weight decay, momentum, kind of optimizer and recipe.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ml.errors import LanesError
from ml.lanes.coefficients import Hyper, order_of
from ml.lanes.cuda_graph import EAGER, Recorder
from ml.lanes.layer import Slot
from ml.lanes.layers import lane_layers
from ml.lanes.minibatch import Minibatch
from ml.lanes.numba_ops import KernelOps
from ml.lanes.ops import Ops
from ml.lanes.torch_ops import TorchOps, targets
from ml.layers import Layer, Shape, trains_alone
from ml.network.evaluate import Images
from ml.network.modules import module_of
from ml.network.transfer import fresh, place_of
from ml.optimizers import Optimizer
from ml.parameters.recipes import PLAIN, LaneRecipe
from ml.specs import Loss

T = TypeVar("T")

EVALUATION_BATCH = 250  # images that all lanes evaluate at once
SLOTS: tuple[Slot, ...] = ("value", "exp_avg", "exp_avg_sq")
AVERAGED: tuple[Slot, ...] = (*SLOTS, "average")


@dataclass
class LaneState:
    """The state of one lane's training in plain tensors, which can be saved and joined to other lanes."""

    layers: list[Layer]
    optimizer: Optimizer
    weights: dict[str, Tensor]  # by torch's names, "1.weight", in torch's layout
    exp_avg: dict[str, Tensor]  # Adam's mean or SGD's velocity, named as the weights
    exp_avg_sq: dict[str, Tensor]  # Adam's mean square
    steps: int = 0  # of the optimizer
    recipe: LaneRecipe = PLAIN
    average: dict[str, Tensor] = field(default_factory=dict)  # of the weights over the steps, if the recipe has one

    @classmethod
    def initial(
        cls,
        layers: list[Layer],
        optimizer: Optimizer,
        init_seed: int,
        recipe: LaneRecipe = PLAIN,
        given: Mapping[str, Tensor] | None = None,
    ) -> "LaneState":
        """Return a lane that has not trained.

        Its weights are those of `module_of`, or those of `given` for layers whose names and shapes agree.
        """
        module = module_of(layers, init_seed)
        own, taken = module.state_dict(), carried_over(layers, given or {})
        module.load_state_dict({name: taken.get(name, tensor) for name, tensor in own.items()})
        exp_avg, exp_avg_sq = ({name: torch.zeros_like(w) for name, w in module.named_parameters()} for _ in range(2))
        return cls(layers, optimizer, dict(module.state_dict()), exp_avg, exp_avg_sq, recipe=recipe)

    @property
    def kinds(self) -> list[str]:
        """The kinds of layers."""
        return [layer.kind for layer in self.layers]

    @property
    def judged(self) -> dict[str, Tensor]:
        """The weights that are evaluated and kept: the moving average if there is one."""
        return self.average or self.weights

    def module(self) -> nn.Sequential:
        """Return a plain torch module with the weights that are judged."""
        module = module_of(self.layers, init_seed=0)
        module.load_state_dict(self.judged)
        return module.eval()


class Lanes:
    """Lanes that train as one module."""

    def __init__(
        self,
        states: Sequence[LaneState],
        image: Shape,
        loss: Loss = "cross_entropy",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        ops: Ops | None = None,
        frozen: frozenset[int] = frozenset(),
    ) -> None:
        """Put lanes together.

        Args:
            states: the state of each lane.
            image: the shape of an image, (channels, height, width).
            loss: the loss to train with.
            device: the device to train on.
            dtype: the type of weights and arithmetic.
            ops: the arithmetic; by default it is chosen by the device.
            frozen: the places of layers that keep their weights, as in torch without `requires_grad`.

        Raises:
            LanesError: if `states` is empty, their layer kinds differ, or their network trains alone.
        """
        check(states, image)
        self.device, self.dtype = torch.device(device), dtype
        self.image = image
        self.order = order_of([state.optimizer for state in states])
        self._states = [states[k] for k in self.order]
        chosen = ops or (KernelOps() if self.device.type == "cpu" else TorchOps())
        self._loss = squared_error if loss == "mse" else chosen.cross_entropy
        self._layers = lane_layers([state.layers for state in self._states], image, chosen)
        recipes = [state.recipe for state in self._states]
        optimizers, steps = [s.optimizer for s in self._states], [s.steps for s in self._states]
        self.hyper = Hyper(optimizers, steps, dtype, recipes, self.device)
        self._averaging = any(recipe.ema_decay is not None for recipe in recipes)
        self._load()
        self._frozen = frozen
        self._losses = torch.zeros(len(states), dtype=dtype, device=self.device)
        self._steps = 0
        # A wrapped module may draw random numbers; a recording would draw them once for all steps.
        recorded = self.device.type == "cuda" and not trains_alone(states[0].layers)
        self._recorder = Recorder() if recorded else None

    def __len__(self) -> int:
        return len(self._states)

    def step(self, data: Images, indices: np.ndarray) -> None:
        """Take an optimizer step of every lane on the images of `data` at `indices`, int64 [batch]."""
        for _, layer in self._layers:
            layer.draw(len(indices))
        with self._noise(indices):
            self.hyper.advance()
            batch = Minibatch(data.images, data.labels, indices, self.dtype)
            if self._recorder is None:
                self._learn(batch)
            else:
                self._recorder.step(batch, self._learn)
        self._steps += 1

    @property
    def warm_steps(self) -> int:
        """The number of first steps that take longer than later ones: they load kernels and fill caches."""
        return EAGER + 1 if self.device.type == "cuda" else 3

    def wait(self) -> None:
        """Wait until all steps are done: a GPU runs them asynchronously."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def losses(self) -> list[float]:
        """Return each lane's mean training loss since the last call; infinite or NaN if the lane diverged."""
        means = self._in_order((self._losses / max(1, self._steps)).tolist())
        self._losses.zero_()
        self._steps = 0
        return means

    def loss_sums(self) -> list[float]:
        """Return the sum of each lane's training losses since the last call of `losses`."""
        return self._in_order(self._losses.tolist())

    def take_up(self, loss_sums: Sequence[float], steps: int) -> None:
        """Take over the `loss_sums` of other lanes, added up over `steps` steps since their last call of `losses`."""
        self._losses.copy_(torch.tensor([loss_sums[k] for k in self.order], dtype=self.dtype))
        self._steps = steps

    def finite(self) -> list[bool]:
        """Return for each lane whether its training loss has been finite since the last call of `losses`."""
        return self._in_order(self._losses.isfinite().tolist())

    def evaluate(self, data: Images) -> list[tuple[float, float]]:
        """Return each lane's mean loss and accuracy (0..1) over `data`; a loss may be infinite or NaN.

        Labels are not smoothed.
        """
        total = torch.zeros(len(self), dtype=torch.float64, device=self.device)
        right = torch.zeros(len(self), dtype=torch.int64, device=self.device)
        for first in range(0, len(data), EVALUATION_BATCH):
            indices = np.arange(first, min(first + EVALUATION_BATCH, len(data)))
            outputs = self._judged(Minibatch(data.images, data.labels, indices, self.dtype))
            labels = data.labels[first : first + len(indices)]
            losses, _ = self._loss(outputs, labels, None)
            total += losses.double() * len(indices)
            right += (outputs.argmax(2) == labels).sum(1)
        pairs = zip(total.tolist(), right.tolist(), strict=True)
        return self._in_order([(loss / len(data), count / len(data)) for loss, count in pairs])

    def outputs(self, data: Images, indices: np.ndarray) -> Tensor:
        """Return each lane's outputs, [lanes, batch, classes]."""
        found = self._judged(Minibatch(data.images, data.labels, indices, self.dtype))
        return found[torch.tensor(self._in_order(list(range(len(self)))))]

    def state(self, lane: int) -> LaneState:
        """Return the state of one lane, in copied tensors."""
        place = self.order.index(lane)
        given = self._states[place]
        value, exp_avg, exp_avg_sq = (self._taken(place, slot) for slot in SLOTS)
        average = self._taken(place, "average") if given.recipe.ema_decay is not None else {}
        steps = int(self.hyper.steps[place])
        return LaneState(given.layers, given.optimizer, value, exp_avg, exp_avg_sq, steps, given.recipe, average)

    def states(self) -> list[LaneState]:
        """Return the state of every lane."""
        return [self.state(lane) for lane in range(len(self))]

    def split(self) -> list[nn.Sequential]:
        """Return each lane as a plain torch module."""
        return [state.module() for state in self.states()]

    def _learn(self, batch: Minibatch) -> None:
        """Do a step, once its coefficients are set: forward, backward, update."""
        losses, delta = self._loss(self._forward(batch, training=True), batch.of(batch.labels), self.hyper.smoothing)
        self._losses += losses
        first = self._first_trained
        for i, (place, layer) in reversed(list(enumerate(self._layers))[first:]):
            delta = layer.backward(delta, wanted=i > first)
            if place not in self._frozen:
                layer.step(self.hyper)
                if self._averaging:
                    layer.average_in(self.hyper)

    @cached_property
    def _first_trained(self) -> int:
        """The index of the first layer that is trained, at which the backward pass ends."""
        if not self._frozen:
            return 0
        trained = [i for i, (place, layer) in enumerate(self._layers) if layer.parameters and place not in self._frozen]
        return trained[0]

    def _forward(self, batch: Minibatch, *, training: bool = False) -> Tensor:
        """Return outputs [lanes, batch, classes], with the lanes in the order of `order_of`."""
        x: Any = batch
        for _, layer in self._layers:
            layer.training = training
            x = layer.forward(x)
        outputs: Tensor = x
        return outputs

    def _judged(self, batch: Minibatch) -> Tensor:
        """Return outputs with the weights that are judged."""
        with ExitStack() as stack:
            if self._averaging:
                for _, layer in self._layers:
                    for parameter in layer.parameters:
                        stack.enter_context(parameter.averaged())
            return self._forward(batch)

    @contextmanager
    def _noise(self, indices: np.ndarray) -> Iterator[None]:
        """Seed torch's random numbers by the step and its batch; only a wrapped module may draw any."""
        if not trains_alone(self._states[0].layers):
            yield
            return
        seed = np.random.SeedSequence([int(self.hyper.steps[0]), *indices.tolist()])
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(int(seed.generate_state(1)[0]))
            yield

    def _taken(self, place: int, slot: Slot) -> dict[str, Tensor]:
        return {
            f"{position}.{name}": _own(tensor)
            for position, layer in self._layers
            for name, tensor in layer.take(place, slot).items()
        }

    def _load(self) -> None:
        seeds = np.array([state.recipe.seed for state in self._states], np.uint32)
        for place, layer in self._layers:
            layer.move(self.device, self.dtype, averaging=self._averaging)
            layer.draw_from(place, seeds, self.hyper.steps)
        slots = AVERAGED if self._averaging else SLOTS
        for lane, state in enumerate(self._states):
            for slot, tensors in zip(
                slots, (state.weights, state.exp_avg, state.exp_avg_sq, state.judged), strict=False
            ):
                for place, layer in self._layers:
                    layer.put(lane, slot, _of_layer(tensors, f"{place}."))

    def _in_order(self, standing: list[T]) -> list[T]:
        """Return a list over lanes in the order in which the lanes were given."""
        found = dict(zip(self.order, standing, strict=True))
        return [found[k] for k in range(len(standing))]


def carried_over(layers: list[Layer], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the `given` weights, by torch's names, that `layers` have at the same place and in the same shape."""
    new = {place_of(name) for name in fresh(layers, {name: tuple(tensor.shape) for name, tensor in given.items()})}
    places = set(range(len(layers))) - new
    return {name: tensor for name, tensor in given.items() if place_of(name) in places}


def _of_layer(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def squared_error(outputs: Tensor, labels: Tensor, smoothing: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return each lane's mean squared error, and its derivative with respect to the outputs [lanes, batch, classes]."""
    error = outputs - targets(outputs, labels, smoothing)
    return error.square().mean((1, 2)), error.mul_(2 / error[0].numel())


def check(states: Sequence[LaneState], image: Shape) -> None:
    """Check that lanes can be put together.

    Raises:
        LanesError: if they cannot.
    """
    if not states:
        raise LanesError("a pack needs at least one lane")
    if len(states) > 1 and trains_alone(states[0].layers):
        raise LanesError(f"{len(states)} lanes of a network whose trials train alone; see the catalog")
    for state in states:
        if state.kinds != states[0].kinds:
            raise LanesError(
                f"lanes must have the same kinds of layers: {'-'.join(states[0].kinds)} and {'-'.join(state.kinds)}; "
                "train them in separate packs"
            )
