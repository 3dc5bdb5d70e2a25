"""The coefficients of the lanes' optimizers: a few numbers for each lane, which the kernels use at every step."""

from collections.abc import Sequence

import numpy as np
import torch

from ml.kernels.schedules import NUMBERS, coefficients
from ml.optimizers import Adam, Optimizer, Sgd
from ml.parameters.recipes import PLAIN, LaneRecipe


def order_of(optimizers: Sequence[Optimizer]) -> list[int]:
    """Return the order of lanes side by side: Adam, SGD with momentum, plain SGD, so that each kind is one loop."""
    return sorted(range(len(optimizers)), key=lambda k: _rank(optimizers[k]))


def _rank(optimizer: Optimizer) -> int:
    if isinstance(optimizer, Adam):
        return 0
    return 1 if optimizer.arguments().get("momentum") else 2


class Hyper:
    """The coefficients of lanes in the order of `order_of`.

    Attributes:
        bounds: int64 [2]. Lanes before the first bound use Adam, lanes before the second SGD with momentum, and the
            others plain SGD.
        rate: [lanes], the step size; for Adam divided by 1 - β1ᵗ.
        root: [lanes], 1 / √(1 - β2ᵗ).
        decay: [lanes], the weight decay.
        momentum: [lanes].
        fresh: [lanes], the share of the newest weights in the moving average; 1 at first, and without an average.
        tensors: [5, lanes], these five on the device.
        smoothing: [lanes], of the labels, on the device; None if no lane smooths.
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        steps: Sequence[int],
        dtype: torch.dtype,
        recipes: Sequence[LaneRecipe] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        ranks = [_rank(optimizer) for optimizer in optimizers]
        kind = torch.empty(0, dtype=dtype).numpy().dtype
        self.bounds = np.array([ranks.count(0), len(ranks) - ranks.count(2)])
        self.steps = np.array(steps, np.int64)
        self.numbers = np.empty((5, len(ranks)), kind)
        self.rate, self.root, self.decay, self.momentum, self.fresh = self.numbers
        self.decay[:] = [o.weight_decay for o in optimizers]
        self.momentum[:] = [o.momentum if isinstance(o, Sgd) else 0.0 for o in optimizers]
        self.still = not self.decay.any()
        self._rates = np.array([o.learning_rate for o in optimizers])
        self._adam = np.array(ranks) == 0
        recipes = recipes or [PLAIN] * len(optimizers)
        self._schedules = np.array([NUMBERS[recipe.schedule] for recipe in recipes])
        self._lengths = np.array([recipe.steps for recipe in recipes])
        self._fresh = np.array([1 - (recipe.ema_decay or 0.0) for recipe in recipes], kind)
        smoothing = torch.tensor([recipe.label_smoothing for recipe in recipes], dtype=dtype, device=device)
        self.smoothing = smoothing if smoothing.any() else None
        self.tensors = torch.from_numpy(self.numbers).to(device)  # on a CPU they share memory

    def advance(self) -> None:
        """Set the coefficients for the next step."""
        settings = (self._rates, self._adam, self._schedules, self._lengths)
        coefficients(self.steps, *settings, self.rate, self.root)
        self.fresh[:] = np.where(self.steps > 1, self._fresh, 1)
        if self.tensors.device.type != "cpu":
            self.tensors.copy_(torch.from_numpy(self.numbers), non_blocking=True)

    def rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return rate, root, decay and momentum."""
        return self.rate, self.root, self.decay, self.momentum
