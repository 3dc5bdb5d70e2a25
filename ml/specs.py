"""TrainSpec and TuneSpec: the one shape of a job, from the HTTP body to the training loop.

Both are checked whole when they are made: what this module accepts can be trained. A problem is raised as a pydantic
ValidationError where a value has the wrong type or range, or as a SpecError where it does not fit the network, the data
set or the sampler it is meant for.
"""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SerializeAsAny,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from ml.datasets import SplitName, datasets, limited, split_sizes
from ml.errors import Problem, SpecError, UnknownName
from ml.layers import Layer, Shape, ShapeError, parameter_count, trains_alone
from ml.networks import Network, networks
from ml.parameters.early_stopping import EarlyStopping
from ml.parameters.params import Params
from ml.parameters.space import MAX_GRID, Dimension, Fixed, Grid, Scalar, SearchSpace, grid_size
from ml.registry import Registry
from ml.samplers import Hyperband, Pruner, Random, Sampler, Tpe, pruners, samplers

MAX_TRIALS = 100_000
MAX_LANES = 1024
MAX_WEIGHTS = 50_000_000  # 200 MB of float32, and three times that with Adam's state


def _any_of(registry: Registry[Any]) -> Any:
    """The type of whichever entry of a registry a value names in `name`; a newcomer need not be written here."""
    names = list(registry)

    def tag(value: Any) -> str | None:
        name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
        return name if isinstance(name, str) and name in names else None

    return Annotated[
        reduce(or_, (Annotated[kind, Tag(name)] for name, kind in registry.items())),
        Discriminator(
            tag,
            custom_error_type="unknown_name",
            custom_error_message=f"give an object whose name is one of: {', '.join(map(repr, names))}",
        ),
    ]


if TYPE_CHECKING:
    AnySampler = Sampler
    AnyPruner = Pruner
else:
    AnySampler = _any_of(samplers)
    AnyPruner = _any_of(pruners)

Objective = Literal["val_accuracy", "val_loss"]
Loss = Literal["cross_entropy", "mse"]


class Budget(BaseModel):
    """When a tuning job ends: at whichever limit is reached first."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    trials: int | None = Field(None, ge=1, le=MAX_TRIALS, description="trials in all, pruned and failed ones included")
    seconds: float | None = Field(None, gt=0, le=1e8, description="time with at least one trial running")
    epochs: int = Field(10, ge=1, le=1000, description="epochs a trial, at most")


class RunOffSpec(BaseModel):
    """What decides between the best trials of a search: each is trained again, on fresh seeds and cuts.

    They are compared by accuracy, whatever the objective.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    top: int = Field(3, ge=2, le=20, description="how many of the best trials")
    seeds: int = Field(5, ge=2, le=50, description="how often each: as many seeds, and cuts into train and validation")


class TrainBudget(BaseModel):
    """When a training job ends: at whichever limit is reached first."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    seconds: float | None = Field(None, gt=0, le=1e8, description="time with the trial running")
    epochs: int = Field(10, ge=1, le=1000, description="epochs, at most")


class InitFrom(BaseModel):
    """A published version whose weights trials begin with."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str = Field(max_length=100, description="a network, the job's own or another")
    version: int = Field(ge=1, le=2**31 - 1, description="of that network")
    freeze: Annotated[int, Field(ge=0)] | list[Annotated[str, Field(max_length=10)]] = Field(
        0,
        description="layers that keep their weights: the first so many that have any, or their places among all "
        'layers, such as "1"',
    )
    checkpoint_sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="of the version's weights; filled in when the job is posted"
    )

    def frozen(self, layers: list[Layer]) -> frozenset[int]:
        """The places of layers that keep their weights; ValueError where there are no such."""
        weighted = [place for place, layer in enumerate(layers) if layer.weights()]
        if isinstance(self.freeze, int):
            chosen = weighted[: self.freeze]
        else:
            chosen = [place for place in weighted if str(place) in self.freeze]
            if unknown := set(self.freeze) - {str(place) for place in chosen}:
                raise ValueError(f"{len(unknown)} of the names are no layer's with weights; those are: {weighted}")
        if len(chosen) == len(weighted):
            raise ValueError(f"at least one of the {len(weighted)} layers with weights must be left to train")
        return frozenset(chosen)


class Spec(BaseModel):
    """What a training and a tuning job have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    model: str = Field(max_length=100, description="a network of the catalog")
    dataset: str = Field("mnist", max_length=100, description="a data set of the catalog")
    split: SplitName = Field("random", description="random: 72 / 18 / 10 %; official: the publishers' test images")
    images: int | None = Field(
        None, ge=10, le=10_000_000, description="images that train and validate, at most; all test images stay"
    )
    loss: Loss = Field("cross_entropy", description="mse compares with one-hot targets")
    early_stopping: EarlyStopping | None = Field(None, description="when to end a trial before its epochs are spent")
    objective: Objective = Field("val_accuracy", description="what the best epoch and the best trial are best at")
    seed: int = Field(0, ge=0, lt=2**32, description="decides initial weights, order, draws and the validation cut")
    init_from: InitFrom | None = Field(
        None, description="a version to begin with: what has the same place and shape keeps its weights"
    )

    @field_validator("dataset")
    @classmethod
    def _pinned(cls, dataset: str) -> str:
        """Of an uploaded data set the version of now: another may be uploaded before the job has run."""
        return datasets.pinned(dataset)

    @property
    def network(self) -> Network:
        """The network that is named."""
        return networks[self.model]

    @property
    def maximize(self) -> bool:
        """Whether a higher objective is better."""
        return self.objective == "val_accuracy"

    @property
    def image(self) -> Shape:
        """The shape of an image: channels, height, width."""
        return datasets[self.dataset].shape

    @property
    def training_images(self) -> int:
        """How many images there are to train on."""
        dataset = datasets[self.dataset]
        train, validation, _ = split_sizes(dataset.size, dataset.official_test, self.split)
        return limited(train, validation, self.images)[0]

    def layers(self, params: Params) -> list[Layer]:
        """The layers that `params` describe, for this data set."""
        dataset = datasets[self.dataset]
        return self.network.layers(dataset.shape, len(dataset.classes), params)

    def frozen(self, layers: list[Layer]) -> frozenset[int]:
        """The places of layers that keep the weights that they begin with; ValueError where there are no such."""
        return self.init_from.frozen(layers) if self.init_from else frozenset()

    @model_validator(mode="after")
    def _names_known(self) -> "Spec":
        problems = []
        for field, registry in (("model", networks), ("dataset", datasets)):
            try:
                registry[getattr(self, field)]
            except UnknownName as error:
                problems.append(Problem((field,), str(error)))
        if problems:
            raise SpecError(problems)
        if self.split == "official" and datasets[self.dataset].official_test is None:
            raise SpecError([Problem(("split",), f"{self.dataset} has no official test images; use random")])
        return self


class TuneSpec(Spec):
    """A tuning job: many trials of one network, searching `search_space`."""

    search_space: SearchSpace = Field(
        default_factory=dict,
        description="what each trial draws; a parameter that is not named keeps its default, and without any the "
        "network's own space is searched",
    )
    sampler: SerializeAsAny[AnySampler] = Tpe()
    pruner: SerializeAsAny[AnyPruner] = Hyperband()
    lanes: int | None = Field(
        None,
        ge=1,
        le=MAX_LANES,
        description="trials that one trainer trains together; by default what measured fastest on its machine",
    )
    budget: Budget = Budget(trials=20)
    run_off: RunOffSpec | None = Field(
        None, description="train the best trials again on fresh seeds and let that decide; none of it is a trial"
    )

    @model_validator(mode="before")
    @classmethod
    def _default_space(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("search_space") not in (None, {}):
            return data
        try:
            common = Spec.model_validate({name: value for name, value in data.items() if name in Spec.model_fields})
        except (ValidationError, SpecError):
            return data  # what is wrong with it is said of the whole
        return {**data, "search_space": common.network.space_for(common.training_images)}

    @model_validator(mode="after")
    def _can_run(self) -> "TuneSpec":
        problems = [*self._sampler_problems(), *self._space_problems()]
        if not problems and (self.lanes or 1) > 1 and trains_alone(self.layers(self.network.params())):
            problems = [Problem(("lanes",), f"trials of {self.model} train alone, not as lanes; leave it out")]
        if problems:
            raise SpecError(problems)
        return self

    @property
    def trial_limit(self) -> int:
        """The number of trials after which no more are begun."""
        limit = self.budget.trials or MAX_TRIALS
        return min(limit, grid_size(self.search_space)) if self.sampler.exhaustive else limit

    def params(self, drawn: dict[str, Any]) -> Params:
        """All hyper-parameters of a trial, from those that were drawn."""
        return self.network.params.model_validate(drawn)

    def fixed_values(self, params: dict[str, Any]) -> dict[str, Scalar]:
        """What is settled of a trial, by the names that Optuna draws, where it is to have these hyper-parameters.

        SpecError where the search could not have drawn them.
        """
        if self.sampler.exhaustive:
            raise SpecError([Problem(("params",), "a grid tries every point by itself; post a job of its own")])
        found: dict[str, Scalar] = {}
        problems = []
        for name, value in params.items():
            try:
                found |= self._dimension(name).fixed_values(value, name)
            except ValueError as error:
                problems.append(Problem(("params", name), str(error)))
        if not problems and (problem := _fit_problem(self, {**self._batch_drawn(), **params})):
            problems = [Problem(("params",), problem)]
        if problems:
            raise SpecError(problems)
        return found

    def _dimension(self, name: str) -> Dimension:
        if name not in self.search_space:
            raise ValueError(f"the job does not search it; it searches: {', '.join(self.search_space)}")
        return self.search_space[name]

    def epochs(self, params: Params) -> int:
        """The epochs of a trial, at most."""
        return min(params.epochs or self.budget.epochs, self.budget.epochs)

    def rungs(self, params: Params) -> tuple[int, ...]:
        """The steps, in tenths of an epoch, at which a trial is measured: ascending, the last its end."""
        return self.pruner.rungs(self.epochs(params))

    def _sampler_problems(self) -> list[Problem]:
        problems = []
        for name, dimension in self.search_space.items():
            path = ("search_space", name)
            if self.sampler.exhaustive and dimension.choices_as_text() is None and not isinstance(dimension, Fixed):
                problems.append(Problem(path, 'the grid sampler takes no range; list the values: {"type": "grid", …}'))
            if not self.sampler.exhaustive and isinstance(dimension, Grid):
                problems.append(Problem(path, 'type grid needs "sampler": {"name": "grid"}; or use categorical'))
        if self.sampler.exhaustive and not problems and grid_size(self.search_space) > MAX_GRID:
            problems.append(Problem(("search_space",), f"the grid has more than {MAX_GRID} points; list fewer values"))
        if self.budget.trials is None and self.budget.seconds is None and not self.sampler.exhaustive:
            problems.append(Problem(("budget",), "give trials, seconds or both"))
        return problems

    def _batch_drawn(self) -> dict[str, int]:
        """A batch size that may be drawn, where it is: what else is drawn need not go with the default one."""
        corners = self.search_space["batch_size"].corners() if "batch_size" in self.search_space else []
        fitting = [corner for corner in corners if _problem_of(self, {"batch_size": corner}, "batch_size") is None]
        return {"batch_size": fitting[0]} if fitting else {}

    def _space_problems(self) -> list[Problem]:
        known, batch = self.network.params.model_fields, self._batch_drawn()
        problems = []
        for name, dimension in self.search_space.items():
            if name not in known:
                detail = f"{self.model} has no parameter of this name; it has: {', '.join(known)}"
                problems.append(Problem(("search_space", name), detail))
                continue
            found = (_problem_of(self, {**batch, name: corner}, name) for corner in dimension.corners())
            problems += [Problem(("search_space", name), detail) for detail in found if detail][:1]
        return problems


class TrainSpec(Spec):
    """A training job: one trial with fixed hyper-parameters."""

    params: dict[str, Any] = Field(default_factory=dict, description="hyper-parameters; the others keep their defaults")
    budget: TrainBudget = TrainBudget()

    @field_validator("params")
    @classmethod
    def _bounded(cls, params: dict[str, Any]) -> dict[str, Any]:
        if len(params) > 100:
            raise ValueError("at most 100 parameters")
        return params

    @model_validator(mode="after")
    def _can_run(self) -> "TrainSpec":
        try:
            self.network.params.model_validate(self.params)
        except ValidationError as error:
            raise SpecError(Problem(("params", *where), words) for where, words in _words(error)) from None
        problem = _fit_problem(self, self.params)
        if problem:
            raise SpecError([Problem(("params",), problem)])
        return self

    def as_tune(self) -> TuneSpec:
        """The same work as a tuning job of one trial."""
        common = {name: getattr(self, name) for name in Spec.model_fields}
        given = {name: value for name, value in self.params.items() if value is not None}
        space = given or {"batch_size": self.network.params().batch_size}
        budget = Budget(trials=1, seconds=self.budget.seconds, epochs=self.budget.epochs)
        return TuneSpec(
            **common, search_space=space, sampler=Random(), pruner=pruners["none"](name="none"), budget=budget
        )


def _words(error: ValidationError) -> list[tuple[tuple[int | str, ...], str]]:
    """Where and what, of each problem that pydantic found."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    return [(e["loc"], str(e["msg"]).removeprefix("Value error, ")) for e in found]


def _problem_of(spec: Spec, params: dict[str, Any], name: str) -> str | None:
    """Why these cannot be, of which the parameter `name` is asked for; None where they can."""
    try:
        spec.network.params.model_validate({name: params[name]})
    except ValidationError as error:
        return _words(error)[0][1]
    return _fit_problem(spec, params)


def _fit_problem(spec: Spec, params: dict[str, Any]) -> str | None:
    """Why the network of these parameters cannot be built for the data set; None where it can."""
    try:
        built = spec.network.params.model_validate(params)
        layers = spec.layers(built)
    except ShapeError as error:
        return f"{spec.model} cannot take the images of {spec.dataset}: {error}"
    if built.batch_size > spec.training_images:
        return (
            f"a batch of {built.batch_size} is more than the {spec.training_images} training images of {spec.dataset}"
        )
    if parameter_count(layers) > MAX_WEIGHTS:
        return f"the network would have {parameter_count(layers):,} weights; at most {MAX_WEIGHTS:,} are allowed"
    return None
