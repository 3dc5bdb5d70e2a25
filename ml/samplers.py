"""Each sampler and pruner as a pydantic class: its parameters and the import path of its Optuna class.

Optuna's defaults change between versions, and recorded jobs must not. So every argument is given, except those that
Optuna has marked for removal (TPE's gamma, weights and prior): these are as in the Optuna version that a release is
tested with.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ml.parameters.space import SearchSpace
from ml.records import STEPS_PER_EPOCH, epochs_of, step_of
from ml.registry import Registry

STARTUP_KEYS = 5  # keys that are drawn at random; a job has at least 16 packs


class Sampler(BaseModel, ABC):
    """A way to draw hyper-parameters.

    A pack's first trial fixes the key, which the pack's later trials share. Its values are set on Optuna's trial
    before the sampler is asked. A sampler whose `sample_relative` reads `trial.params` draws the other values from its
    joint density given the key. Any other sampler draws them as if nothing were fixed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    optuna_class: ClassVar[str]
    exhaustive: ClassVar[bool] = False  # tries every point of a grid once, in the order of trial numbers
    learns: ClassVar[bool] = True  # draws by earlier results, so that its draws are not independent observations

    name: str

    @abstractmethod
    def arguments(self, space: SearchSpace, seed: int) -> dict[str, Any]:
        """Return the keyword arguments for the Optuna class; each trial has a different `seed`."""

    def of_keys(self) -> "Sampler":
        """Return the sampler that draws the keys of packs; there are fewer packs than trials."""
        return self


samplers: Registry[type[Sampler]] = Registry("sampler")


@samplers.register("tpe")
class Tpe(Sampler):
    """Tree-structured Parzen estimator (Bergstra et al., 2011), multivariate (Falkner et al., 2018)."""

    optuna_class = "ml.tuning.conditional_tpe.ConditionalTPESampler"

    name: Literal["tpe"] = "tpe"
    n_startup_trials: int = Field(
        10, ge=1, le=10_000, description="trials drawn at random before the sampler starts to learn"
    )
    n_ei_candidates: int = Field(24, ge=1, le=10_000, description="candidates compared in each draw")

    def arguments(self, space: SearchSpace, seed: int) -> dict[str, Any]:
        # group: lists of different lengths are modelled jointly; constant_liar: running trials count too.
        flags = {"multivariate": True, "group": True, "constant_liar": True}
        return {
            "seed": seed,
            "n_startup_trials": self.n_startup_trials,
            "n_ei_candidates": self.n_ei_candidates,
            **flags,
        }

    def of_keys(self) -> Sampler:
        return self.model_copy(update={"n_startup_trials": min(self.n_startup_trials, STARTUP_KEYS)})


@samplers.register("random")
class Random(Sampler):
    """Random search: every value is drawn independently."""

    optuna_class = "optuna.samplers.RandomSampler"
    learns = False

    name: Literal["random"] = "random"

    def arguments(self, space: SearchSpace, seed: int) -> dict[str, Any]:
        return {"seed": seed}


@samplers.register("grid")
class GridSampler(Sampler):
    """Grid search: every combination of the listed values once, shuffled, one key after another."""

    optuna_class = "optuna.samplers.RandomSampler"  # never asked; a trial's number fixes all its values
    exhaustive = True
    learns = False

    name: Literal["grid"] = "grid"

    def arguments(self, space: SearchSpace, seed: int) -> dict[str, Any]:
        return {"seed": seed}


def _tenths(epochs: float) -> float:
    """Return `epochs` rounded to tenths; raise ValueError if rounding changes it."""
    nearest = epochs_of(step_of(epochs))
    if abs(epochs - nearest) > 1e-9:
        raise ValueError("give a multiple of 0.1; trials are measured at tenths of an epoch")
    return nearest


Tenths = Annotated[float, Field(ge=0.1, le=1000), AfterValidator(_tenths)]


class Pruner(BaseModel, ABC):
    """A rule that ends unpromising trials."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    optuna_class: ClassVar[str]

    name: str

    @abstractmethod
    def arguments(self, epochs: int) -> dict[str, Any]:
        """Return the keyword arguments for the Optuna class if a trial lasts at most `epochs`."""

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """Return the steps at which a trial of at most `epochs` is measured: the early rungs and each whole epoch."""
        whole = range(STEPS_PER_EPOCH, epochs * STEPS_PER_EPOCH + 1, STEPS_PER_EPOCH)
        return (*self.early_rungs(), *whole)

    def early_rungs(self) -> list[int]:
        """Return the steps before the first whole epoch at which the pruner judges."""
        return []


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
    """Median pruning: end a trial whose best value is worse than the median of completed trials at its epoch."""

    optuna_class = "optuna.pruners.MedianPruner"

    name: Literal["median"] = "median"
    n_startup_trials: int = Field(
        5, ge=0, le=10_000, description="trials that must complete before any trial is pruned"
    )
    n_warmup_epochs: int = Field(0, ge=0, le=1000, description="epochs that a trial trains before it may be pruned")

    def arguments(self, epochs: int) -> dict[str, Any]:
        return {
            "n_startup_trials": self.n_startup_trials,
            "n_warmup_steps": self.n_warmup_epochs * STEPS_PER_EPOCH,
            "interval_steps": STEPS_PER_EPOCH,
            "n_min_trials": 1,
        }


def _early_rungs(first: int, reduction_factor: int) -> list[int]:
    """Return the rungs first · reduction_factor^k below one epoch; later rungs are judged at whole epochs."""
    rungs = []
    while first < STEPS_PER_EPOCH:
        rungs.append(first)
        first *= reduction_factor
    return rungs


@pruners.register("successive_halving")
class SuccessiveHalving(Pruner):
    """Asynchronous successive halving (Li et al., 2018): at each rung the best 1/reduction_factor continue.

    Trials that reach a rung together are judged as if there were one more: of n trials the best
    (n + 1) / reduction_factor continue, rounded down, but at least one.
    """

    optuna_class = "optuna.pruners.SuccessiveHalvingPruner"

    name: Literal["successive_halving"] = "successive_halving"
    min_epochs: Tenths = Field(1, description="epochs to the first rung, a multiple of 0.1")
    reduction_factor: int = Field(3, ge=2, le=100, description="one of this many trials continues at a rung")
    min_early_stopping_rate: int = Field(0, ge=0, le=20, description="rungs skipped at the start")

    def arguments(self, epochs: int) -> dict[str, Any]:
        return {
            "min_resource": step_of(self.min_epochs),
            "reduction_factor": self.reduction_factor,
            "min_early_stopping_rate": self.min_early_stopping_rate,
            "bootstrap_count": 0,
        }

    def early_rungs(self) -> list[int]:
        first = step_of(self.min_epochs) * self.reduction_factor**self.min_early_stopping_rate
        return _early_rungs(first, self.reduction_factor)


@pruners.register("hyperband")
class Hyperband(Pruner):
    """Hyperband (Li et al., 2017): successive halving with several first rungs at once."""

    optuna_class = "optuna.pruners.HyperbandPruner"

    name: Literal["hyperband"] = "hyperband"
    min_epochs: Tenths = Field(1, description="epochs to the first rung, a multiple of 0.1")
    reduction_factor: int = Field(3, ge=2, le=100, description="one of this many trials continues at a rung")

    def arguments(self, epochs: int) -> dict[str, Any]:
        smallest = min(self.min_epochs, epochs)
        return {
            "min_resource": step_of(smallest),
            "max_resource": epochs * STEPS_PER_EPOCH,
            "reduction_factor": self.reduction_factor,
            "bootstrap_count": 0,
        }

    def early_rungs(self) -> list[int]:
        # Bracket b has the rungs min_epochs · reduction_factor^(b + k), so the first bracket has the rungs of all.
        return _early_rungs(step_of(self.min_epochs), self.reduction_factor)
