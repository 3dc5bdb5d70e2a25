"""Each sampler and pruner as a pydantic class: its parameters, and the import path of the Optuna class it stands for.

Every argument is stated: Optuna's defaults change between versions, recorded jobs must not.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from ml.registry import Registry
from ml.space import SearchSpace, grid_values

STEPS_PER_EPOCH = 10  # a pruner's resource is the measurement's step: tenths of an epoch


class Sampler(BaseModel, ABC):
    """How hyper-parameters are drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    optuna_class: ClassVar[str]

    name: str

    @abstractmethod
    def arguments(self, space: SearchSpace, seed: int) -> dict[str, Any]:
        """What the Optuna class is called with; `seed` is the trial's own."""


samplers: Registry[type[Sampler]] = Registry("sampler")


@samplers.register("tpe")
class Tpe(Sampler):
    """Tree-structured Parzen estimator (Bergstra et al., 2011), multivariate (Falkner et al., 2018)."""

    optuna_class = "optuna.samplers.TPESampler"

    name: Literal["tpe"] = "tpe"
    n_startup_trials: int = Field(10, ge=1, le=10_000, description="trials drawn at random first")
    n_ei_candidates: int = Field(24, ge=1, le=10_000, description="candidates compared for each draw")

    def arguments(self, space: SearchSpace, seed: int) -> dict[str, Any]:
        # group: lists of different lengths are modelled jointly; constant_liar: trials still running count.
        flags = {"multivariate": True, "group": True, "constant_liar": True}
        return {
            "seed": seed,
            "n_startup_trials": self.n_startup_trials,
            "n_ei_candidates": self.n_ei_candidates,
            **flags,
        }


@samplers.register("random")
class Random(Sampler):
    """Every value drawn independently."""

    optuna_class = "optuna.samplers.RandomSampler"

    name: Literal["random"] = "random"

    def arguments(self, space: SearchSpace, seed: int) -> dict[str, Any]:
        return {"seed": seed}


@samplers.register("grid")
class Grid(Sampler):
    """Every combination of the listed values once, in a shuffled order."""

    optuna_class = "optuna.samplers.GridSampler"

    name: Literal["grid"] = "grid"

    def arguments(self, space: SearchSpace, seed: int) -> dict[str, Any]:
        # One seed for all trials: the trial's number is its place in the shuffled grid.
        return {"search_space": grid_values(space), "seed": 0}


class Pruner(BaseModel, ABC):
    """How unpromising trials are ended."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    optuna_class: ClassVar[str]

    name: str

    @abstractmethod
    def arguments(self, epochs: int) -> dict[str, Any]:
        """What the Optuna class is called with, where a trial lasts at most `epochs`."""


pruners: Registry[type[Pruner]] = Registry("pruner")


@pruners.register("none")
class Never(Pruner):
    """No pruning."""

    optuna_class = "optuna.pruners.NopPruner"

    name: Literal["none"] = "none"

    def arguments(self, epochs: int) -> dict[str, Any]:
        return {}


@pruners.register("median")
class Median(Pruner):
    """End a trial that is worse than the median of the others at the same epoch."""

    optuna_class = "optuna.pruners.MedianPruner"

    name: Literal["median"] = "median"
    n_startup_trials: int = Field(5, ge=0, le=10_000, description="trials that must end before any is pruned")
    n_warmup_epochs: int = Field(0, ge=0, le=1000, description="epochs of a trial before it may be pruned")

    def arguments(self, epochs: int) -> dict[str, Any]:
        return {
            "n_startup_trials": self.n_startup_trials,
            "n_warmup_steps": self.n_warmup_epochs * STEPS_PER_EPOCH,
            "interval_steps": STEPS_PER_EPOCH,
            "n_min_trials": 1,
        }


@pruners.register("successive_halving")
class SuccessiveHalving(Pruner):
    """Asynchronous successive halving (Li et al., 2018): at each rung only the best 1/reduction_factor go on."""

    optuna_class = "optuna.pruners.SuccessiveHalvingPruner"

    name: Literal["successive_halving"] = "successive_halving"
    min_epochs: int = Field(1, ge=1, le=1000, description="epochs to the first rung")
    reduction_factor: int = Field(3, ge=2, le=100)
    min_early_stopping_rate: int = Field(0, ge=0, le=20, description="rungs left out at the start")

    def arguments(self, epochs: int) -> dict[str, Any]:
        return {
            "min_resource": self.min_epochs * STEPS_PER_EPOCH,
            "reduction_factor": self.reduction_factor,
            "min_early_stopping_rate": self.min_early_stopping_rate,
            "bootstrap_count": 0,
        }


@pruners.register("hyperband")
class Hyperband(Pruner):
    """Hyperband (Li et al., 2017): successive halving from several first rungs at once."""

    optuna_class = "optuna.pruners.HyperbandPruner"

    name: Literal["hyperband"] = "hyperband"
    min_epochs: int = Field(1, ge=1, le=1000, description="epochs to the first rung")
    reduction_factor: int = Field(3, ge=2, le=100)

    def arguments(self, epochs: int) -> dict[str, Any]:
        smallest = min(self.min_epochs, epochs)
        return {
            "min_resource": smallest * STEPS_PER_EPOCH,
            "max_resource": epochs * STEPS_PER_EPOCH,
            "reduction_factor": self.reduction_factor,
            "bootstrap_count": 0,
        }
