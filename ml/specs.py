"""TrainSpec and TuneSpec: the specification of a job, from the HTTP body to the training loop.

Both are checked completely when they are made: a specification that exists can be trained. A value of the wrong type
or range raises pydantic's ValidationError. A value that does not fit the network, the data set or the sampler raises
SpecError.
"""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PrivateAttr,
    SerializeAsAny,
    Tag,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from ml.datasets import DatasetInfo, FindInfo, SplitName, datasets, limited, split_sizes
from ml.errors import Problem, SpecError, UnknownName
from ml.layers import Layer, Shape, ShapeError, parameter_count, trains_alone
from ml.networks import Network, networks
from ml.parameters.early_stopping import EarlyStopping
from ml.parameters.params import Params
from ml.parameters.space import MAX_GRID, Dimension, Fixed, Grid, Scalar, SearchSpace, grid_size, space_size
from ml.registry import Registry
from ml.samplers import Hyperband, Pruner, Random, Sampler, Tpe, pruners, samplers

# How a search draws, packs and decides. A job keeps the rules that it began with; 1 are those of release 0.2.
RULES = 2
MAX_TRIALS = 100_000
MAX_LANES = 1024
MAX_WEIGHTS = 50_000_000  # 200 MB of float32; three times that with Adam's state


def _any_of(registry: Registry[Any]) -> Any:
    """Return the union type of a registry's entries, chosen by `name`; new entries join by themselves."""
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


def _dataset_named(value: Any, text: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    """Return the data set of a name; an unknown name stays text, which `Spec` refuses."""
    if isinstance(value, DatasetInfo):
        return value
    name, find = text(value), info.context or datasets.__getitem__
    try:
        return find(name)
    except UnknownName:
        return name


if TYPE_CHECKING:
    AnySampler = Sampler
    AnyPruner = Pruner
    NamedDataset = DatasetInfo
else:
    AnySampler = _any_of(samplers)
    AnyPruner = _any_of(pruners)
    NamedDataset = Annotated[
        str, Field(max_length=100), WrapValidator(_dataset_named), PlainSerializer(str, return_type=str)
    ]

Objective = Literal["val_accuracy", "val_loss"]
Loss = Literal["cross_entropy", "mse"]


class Budget(BaseModel):
    """The limits of a tuning job; it ends at the first that is reached."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    trials: int | None = Field(
        None, ge=1, le=MAX_TRIALS, description="number of trials, including pruned and failed ones"
    )
    seconds: float | None = Field(None, gt=0, le=1e8, description="seconds during which at least one trial runs")
    epochs: int = Field(10, ge=1, le=1000, description="maximum epochs per trial")


class RunOffSpec(BaseModel):
    """The run-off between the best trials of a search: each is trained again with new seeds and new data splits.

    The run-off compares accuracy, even if the objective is the loss.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    top: int = Field(3, ge=2, le=20, description="number of best trials that take part")
    seeds: int = Field(
        5,
        ge=2,
        le=50,
        description="trainings per trial, each with a new seed and a new split into training and validation",
    )


class TrainBudget(BaseModel):
    """The limits of a training job; it ends at the first that is reached."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    seconds: float | None = Field(None, gt=0, le=1e8, description="seconds during which the trial runs")
    epochs: int = Field(10, ge=1, le=1000, description="maximum epochs")


class InitFrom(BaseModel):
    """A published version whose weights trials start from."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str = Field(max_length=100, description="network of the version; it may differ from the job's")
    version: int = Field(ge=1, le=2**31 - 1, description="version number of that network")
    freeze: Annotated[int, Field(ge=0)] | list[Annotated[str, Field(max_length=10)]] = Field(
        0,
        description="layers whose weights stay fixed: how many of the first layers with weights, or a list of places "
        'among all layers, such as "1"',
    )
    checkpoint_sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="SHA-256 of the version's weights; filled in when the job is posted"
    )

    def frozen(self, layers: list[Layer]) -> frozenset[int]:
        """Return the places of the layers that keep their weights.

        Raises:
            ValueError: if a name is not a layer with weights, or no layer would be left to train.
        """
        weighted = [place for place, layer in enumerate(layers) if layer.weights()]
        if isinstance(self.freeze, int):
            chosen = weighted[: self.freeze]
        else:
            chosen = [place for place in weighted if str(place) in self.freeze]
            if unknown := set(self.freeze) - {str(place) for place in chosen}:
                raise ValueError(f"{len(unknown)} of the names are not layers with weights; choose from: {weighted}")
        if len(chosen) == len(weighted):
            raise ValueError(f"all {len(weighted)} layers with weights are frozen; leave at least one to train")
        return frozenset(chosen)


class Spec(BaseModel):
    """The common part of training and tuning jobs."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    model: str = Field(max_length=100, description="network, by its name in the catalog")
    dataset: NamedDataset = Field("mnist", validate_default=True, description="data set, by its name in the catalog")
    split: SplitName = Field("random", description="random: 72 / 18 / 10 %; official: the publishers' test set")
    images: int | None = Field(
        None,
        ge=10,
        le=10_000_000,
        description="limit on training and validation images together; test images are not limited",
    )
    loss: Loss = Field("cross_entropy", description="mse uses one-hot targets")
    early_stopping: EarlyStopping | None = Field(None, description="rule that ends a trial before its last epoch")
    objective: Objective = Field("val_accuracy", description="measure that decides the best epoch and the best trial")
    seed: int = Field(
        0, ge=0, lt=2**32, description="decides initial weights, order of images, draws and the validation images"
    )
    init_from: InitFrom | None = Field(
        None, description="version to start from: layers with the same place and shape take over its weights"
    )

    @classmethod
    def of(cls, body: Any, find: FindInfo = datasets.__getitem__) -> Self:
        """Return the specification in `body`; `find` looks up the data set that it names.

        The name of an uploaded data set, "letters", becomes that of its newest version, "letters@2": another version
        may be uploaded before the job has run.
        """
        return cls.model_validate(body, from_attributes=True, context=find)

    _rules: int = PrivateAttr(RULES)

    @property
    def rules(self) -> int:
        """The rules that the job keeps; a new one has those of this release."""
        return self._rules

    def under(self, rules: int) -> Self:
        """Return this specification with the rules of a job that was accepted earlier."""
        found = self.model_copy()
        found._rules = rules
        return found

    @property
    def network(self) -> Network:
        """The network that `model` names."""
        return networks[self.model]

    @property
    def maximize(self) -> bool:
        """True if a higher objective is better."""
        return self.objective == "val_accuracy"

    @property
    def image(self) -> Shape:
        """The shape of an image: channels, height, width."""
        return self.dataset.shape

    @property
    def training_images(self) -> int:
        """The number of training images."""
        train, validation, _ = split_sizes(self.dataset.size, self.dataset.official_test, self.split)
        return limited(train, validation, self.images)[0]

    def layers(self, params: Params) -> list[Layer]:
        """Return the layers that `params` describe, for this data set."""
        return self.network.layers(self.dataset.shape, len(self.dataset.classes), params)

    def frozen(self, layers: list[Layer]) -> frozenset[int]:
        """Return the places of the layers that keep their initial weights.

        Raises:
            ValueError: as `InitFrom.frozen` does.
        """
        return self.init_from.frozen(layers) if self.init_from else frozenset()

    @model_validator(mode="after")
    def _names_known(self) -> "Spec":
        problems = []
        if self.model not in networks:
            problems.append(Problem(("model",), str(UnknownName(networks.noun, networks))))
        if not isinstance(self.dataset, DatasetInfo):
            problems.append(Problem(("dataset",), str(UnknownName(datasets.noun, datasets))))
        if problems:
            raise SpecError(problems)
        if self.split == "official" and self.dataset.official_test is None:
            raise SpecError([Problem(("split",), f"{self.dataset} has no official test images; use random")])
        return self


class TuneSpec(Spec):
    """A tuning job: many trials of one network that search `search_space`."""

    search_space: SearchSpace = Field(
        default_factory=dict,
        description="hyper-parameters that each trial draws; others keep their defaults; if empty, the default space "
        "of the network",
    )
    sampler: SerializeAsAny[AnySampler] = Tpe()
    pruner: SerializeAsAny[AnyPruner] = Hyperband()
    lanes: int | None = Field(
        None,
        ge=1,
        le=MAX_LANES,
        description="trials that one trainer trains together; by default the fastest number measured on its machine",
    )
    budget: Budget = Budget(trials=20)
    run_off: RunOffSpec | None = Field(
        None,
        description="train the best trials again with new seeds to choose the winner; these trainings are not trials",
    )

    @model_validator(mode="before")
    @classmethod
    def _default_space(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, dict) or data.get("search_space") not in (None, {}):
            return data
        try:
            body = {name: value for name, value in data.items() if name in Spec.model_fields}
            common = Spec.model_validate(body, context=info.context)
        except (ValidationError, SpecError):
            return data  # the validation of the whole reports the problems
        return {**data, "search_space": common.network.space_for(common.training_images)}

    @model_validator(mode="after")
    def _can_run(self) -> "TuneSpec":
        problems = [*self._sampler_problems(), *self._space_problems()]
        if not problems and (self.lanes or 1) > 1 and trains_alone(self.layers(self.network.params())):
            problems = [Problem(("lanes",), f"{self.model} trains each trial alone, so it has no lanes; leave it out")]
        if problems:
            raise SpecError(problems)
        return self

    def as_tune(self) -> "TuneSpec":
        """Return this specification, as `TrainSpec.as_tune` does for a training job."""
        return self

    @property
    def trial_limit(self) -> int:
        """The number of trials after which no more start."""
        limit = self.budget.trials or MAX_TRIALS
        if self.sampler.exhaustive:
            return min(limit, grid_size(self.search_space))
        return limit if self.points is None else min(limit, self.points)

    @property
    def points(self) -> int | None:
        """The number of points of a space that ends once each was tried; None if it does not end."""
        return None if self.rules == 1 else space_size(self.search_space)

    def params(self, drawn: dict[str, Any]) -> Params:
        """Return all hyper-parameters of a trial, given those that were drawn."""
        return self.network.params.model_validate(drawn)

    def fixed_values(self, params: dict[str, Any]) -> dict[str, Scalar]:
        """Return `params` as the values that Optuna would have drawn for them, by its flat names.

        Raises:
            SpecError: if the search could not have drawn `params`.
        """
        if self.sampler.exhaustive:
            raise SpecError(
                [Problem(("params",), "the grid sampler tries every point by itself; post a new job to try others")]
            )
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
            raise ValueError(f"not searched by this job; choose from: {', '.join(self.search_space)}")
        return self.search_space[name]

    def epochs(self, params: Params) -> int:
        """Return the maximum epochs of a trial."""
        return min(params.epochs or self.budget.epochs, self.budget.epochs)

    def rungs(self, params: Params) -> tuple[int, ...]:
        """Return the steps, in tenths of an epoch, at which a trial is measured: ascending, the last is its end."""
        return self.pruner.rungs(self.epochs(params))

    def _sampler_problems(self) -> list[Problem]:
        problems = []
        for name, dimension in self.search_space.items():
            path = ("search_space", name)
            if self.sampler.exhaustive and dimension.choices_as_text() is None and not isinstance(dimension, Fixed):
                problems.append(
                    Problem(
                        path, 'the grid sampler cannot use a range; list the values: {"type": "grid", "values": […]}'
                    )
                )
            if not self.sampler.exhaustive and isinstance(dimension, Grid):
                problems.append(
                    Problem(path, 'type grid needs "sampler": {"name": "grid"}; set it, or use type categorical')
                )
        if self.sampler.exhaustive and not problems and grid_size(self.search_space) > MAX_GRID:
            problems.append(
                Problem(("search_space",), f"the grid has more than {MAX_GRID:,} points; list fewer values")
            )
        if self.budget.trials is None and self.budget.seconds is None and not self.sampler.exhaustive:
            problems.append(Problem(("budget",), "no limit on trials or seconds; give at least one of them"))
        return problems

    def _batch_drawn(self) -> dict[str, int]:
        """Return a batch size that fits and may be drawn, as the default one may not fit; {} if none is drawn."""
        corners = self.search_space["batch_size"].corners() if "batch_size" in self.search_space else []
        fitting = [corner for corner in corners if _value_problem(self, {"batch_size": corner}, "batch_size") is None]
        return {"batch_size": fitting[0]} if fitting else {}

    def _space_problems(self) -> list[Problem]:
        known, batch = self.network.params.model_fields, self._batch_drawn()
        problems = []
        for name, dimension in self.search_space.items():
            if name not in known:
                detail = f"{self.model} has no parameter of this name; it has: {', '.join(known)}"
                problems.append(Problem(("search_space", name), detail))
                continue
            found = (_value_problem(self, {**batch, name: corner}, name) for corner in dimension.corners())
            problems += [Problem(("search_space", name), detail) for detail in found if detail][:1]
        return problems


class TrainSpec(Spec):
    """A training job: one trial with fixed hyper-parameters."""

    params: dict[str, Any] = Field(default_factory=dict, description="hyper-parameters; others keep their defaults")
    budget: TrainBudget = TrainBudget()

    @field_validator("params")
    @classmethod
    def _bounded(cls, params: dict[str, Any]) -> dict[str, Any]:
        if len(params) > 100:
            raise ValueError("too many parameters; give at most 100")
        return params

    @model_validator(mode="after")
    def _can_run(self) -> "TrainSpec":
        try:
            self.network.params.model_validate(self.params)
        except ValidationError as error:
            raise SpecError(Problem(("params", *path), detail) for path, detail in _problems_in(error)) from None
        problem = _fit_problem(self, self.params)
        if problem:
            raise SpecError([Problem(("params",), problem)])
        return self

    def as_tune(self) -> TuneSpec:
        """Return the same work as a tuning job of one trial."""
        common = {name: getattr(self, name) for name in Spec.model_fields}
        given = {name: value for name, value in self.params.items() if value is not None}
        space = given or {"batch_size": self.network.params().batch_size}
        budget = Budget(trials=1, seconds=self.budget.seconds, epochs=self.budget.epochs)
        return TuneSpec(
            **common, search_space=space, sampler=Random(), pruner=pruners["none"](name="none"), budget=budget
        ).under(self.rules)


def _problems_in(error: ValidationError) -> list[tuple[tuple[int | str, ...], str]]:
    """Return the path and the message of each problem that pydantic found."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    return [(e["loc"], str(e["msg"]).removeprefix("Value error, ")) for e in found]


def _value_problem(spec: Spec, params: dict[str, Any], name: str) -> str | None:
    """Return why the value of `name` in `params` is not possible; None if it is."""
    try:
        spec.network.params.model_validate({name: params[name]})
    except ValidationError as error:
        return _problems_in(error)[0][1]
    return _fit_problem(spec, params)


def _fit_problem(spec: Spec, params: dict[str, Any]) -> str | None:
    """Return why the network of these parameters cannot be trained on the data set; None if it can."""
    try:
        built = spec.network.params.model_validate(params)
        layers = spec.layers(built)
    except ShapeError as error:
        return f"{spec.model} cannot take the images of {spec.dataset}: {error}"
    if built.batch_size > spec.training_images:
        images = f"{spec.training_images} training images of {spec.dataset}"
        return f"a batch of {built.batch_size} is larger than the {images}; lower batch_size"
    if parameter_count(layers) > MAX_WEIGHTS:
        return f"the network would have {parameter_count(layers):,} weights; choose layers with at most {MAX_WEIGHTS:,}"
    return None
