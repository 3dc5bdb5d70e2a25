"""The search-space grammar: what a trial draws for each hyper-parameter.

A dimension is one of
    {"type": "int", "low": 3, "high": 100, "step": 1, "log": false}
    {"type": "float", "low": 1e-5, "high": 1e-1, "step": null, "log": true}
    {"type": "categorical", "choices": ["adam", "sgd"]}
    {"type": "list", "length": {"type": "int", …}, "items": {"type": "int", …}}
    {"type": "grid", "values": [3, 5, 10]}
or a plain value, which stays fixed. Every dimension can
- `suggest` a value from an Optuna trial,
- list its `corners`: if all of them are allowed, every value of the dimension is allowed,
- list its `contrasts`, which show what each drawn name changes.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from math import isfinite, prod
from typing import Annotated, Any, Literal, NamedTuple, Protocol

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    RootModel,
    Tag,
    field_validator,
    model_validator,
)

Scalar = bool | int | float | str
Value = Scalar | list[Scalar]

MAX_CHOICES = 1000
MAX_GRID = 100_000
MAX_STEPS = 1_000_000_000


class Suggester(Protocol):
    """The part of `optuna.Trial` that a dimension needs."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...
    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...
    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


class Contrast(NamedTuple):
    """Values of a dimension that differ only in the draws of some flat names."""

    names: list[str]  # flat, as Optuna knows them
    values: list[Any]


class _Dimension(BaseModel, ABC):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @abstractmethod
    def corners(self) -> list[Any]:
        """Return values such that all values are allowed if these are."""

    def contrasts(self, name: str) -> list[Contrast]:
        """Return the corners, grouped by the drawn names that change them; empty if nothing is drawn."""
        return [Contrast([name], self.corners())]

    @abstractmethod
    def size(self) -> int | None:
        """Return the number of values; None if there is no such number."""

    @abstractmethod
    def points(self, name: str) -> list[dict[str, Scalar]]:
        """Return the draws, by flat names, that give each value; only for a dimension with a size."""

    @abstractmethod
    def suggest(self, trial: Suggester, name: str) -> Any:
        """Draw a value."""

    @abstractmethod
    def fixed_values(self, value: Any, name: str) -> dict[str, Scalar]:
        """Return the draws, by flat names, that give `value`.

        Raises:
            ValueError: if no draw gives `value`.
        """

    def choices_as_text(self) -> list[Scalar] | None:
        """Return the choices as Optuna records them; None for a range or a fixed value."""
        return None


class _Range(_Dimension):
    low: float
    high: float
    log: bool = Field(False, description="draw on a log scale")

    @model_validator(mode="after")
    def _ordered(self) -> "_Range":
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) is above high ({self.high}); swap them")
        if self.log and self.low <= 0:
            raise ValueError("a range on a log scale needs a low above 0; raise low, or leave log out")
        return self

    def corners(self) -> list[Any]:
        return [self.low, self.high]

    def fixed_values(self, value: Any, name: str) -> dict[str, Scalar]:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError("not a number; give one")  # noqa: TRY004 - a wrong input, not a wrong call
        if not self.low <= value <= self.high:
            raise ValueError(f"out of range; give a value from {self.low} to {self.high}")
        step = getattr(self, "step", None) or 0
        if step and abs((value - self.low) / step - round((value - self.low) / step)) > 1e-8:
            raise ValueError(f"between two steps; give {self.low} plus a multiple of {step}")
        return {name: value}


class Int(_Range):
    """Whole numbers from low to high, both included."""

    type: Literal["int"] = "int"
    low: int = Field(ge=-(2**53), le=2**53)
    high: int = Field(ge=-(2**53), le=2**53)
    step: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _step_or_log(self) -> "Int":
        if self.log and self.step != 1:
            raise ValueError("a range takes a step or log, not both")
        return self

    def fixed_values(self, value: Any, name: str) -> dict[str, Scalar]:
        if not isinstance(value, int):
            raise ValueError("not a whole number; give one")  # noqa: TRY004 - a wrong input, not a wrong call
        return super().fixed_values(value, name)

    def size(self) -> int:
        return (self.high - self.low) // self.step + 1

    def points(self, name: str) -> list[dict[str, Scalar]]:
        return [{name: value} for value in range(self.low, self.high + 1, self.step)]

    def suggest(self, trial: Suggester, name: str) -> int:
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)


class Float(_Range):
    """Numbers from low to high, both included."""

    type: Literal["float"] = "float"
    low: float
    high: float
    step: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _step_or_log(self) -> "Float":
        if self.step is None:
            return self
        if self.log:
            raise ValueError("a range takes a step or log, not both")
        if (self.high - self.low) / self.step > MAX_STEPS:
            raise ValueError(f"the range has more than {MAX_STEPS:,} steps; leave step out")
        return self

    def size(self) -> int | None:
        if self.step is None:
            return 1 if self.low == self.high else None
        return int((self.high - self.low) / self.step + 1e-8) + 1

    def points(self, name: str) -> list[dict[str, Scalar]]:
        return [{name: self.low + i * (self.step or 0.0)} for i in range(self.size() or 0)]

    def suggest(self, trial: Suggester, name: str) -> float:
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)


def _plain_value(value: Any) -> Any:
    """Return a scalar or a list of scalars unchanged.

    Raises:
        ValueError: if `value` is anything else; one sentence instead of one for each type.
    """
    scalars = value if isinstance(value, list) else [value]
    if not all(isinstance(scalar, bool | int | float | str) for scalar in scalars):
        raise ValueError("not a plain value; give a number, a text, true or false, or a list of these")
    if any(isinstance(scalar, float) and not isfinite(scalar) for scalar in scalars):
        raise ValueError("not a finite number; give a finite one")
    return value


def _identity(value: Value) -> Any:
    """Return a key by which choices are equal: 1 and 1.0 are one choice, 1 and true are two."""
    return tuple(map(_identity, value)) if isinstance(value, list) else (isinstance(value, bool), value)


Choices = Annotated[list[Annotated[Value, PlainValidator(_plain_value)]], Field(min_length=1, max_length=MAX_CHOICES)]


class _Finite(_Dimension):
    @abstractmethod
    def _values(self) -> list[Value]:
        """Return the choices."""

    @model_validator(mode="after")
    def _no_repeats(self) -> "_Finite":
        if len(set(map(_identity, self._values()))) < len(self._values()):
            raise ValueError("a value is repeated; list each value once")
        return self

    def corners(self) -> list[Any]:
        return list(self._values())

    def choices_as_text(self) -> list[Scalar]:
        # Optuna stores only scalars as categorical choices, so a list becomes JSON text.
        return [json.dumps(v) if isinstance(v, list) else v for v in self._values()]

    def fixed_values(self, value: Any, name: str) -> dict[str, Scalar]:
        known = list(map(_identity, self._values()))
        if _identity(value) not in known:
            raise ValueError(f"not among the choices; give one of: {json.dumps(self._values())[:500]}")
        return {name: self.choices_as_text()[known.index(_identity(value))]}

    def size(self) -> int:
        return len(self._values())

    def points(self, name: str) -> list[dict[str, Scalar]]:
        return [{name: text} for text in self.choices_as_text()]

    def suggest(self, trial: Suggester, name: str) -> Any:
        texts = self.choices_as_text()
        return self._values()[texts.index(trial.suggest_categorical(name, texts))]


class Categorical(_Finite):
    """One of several values without an order."""

    type: Literal["categorical"] = "categorical"
    choices: Choices

    def _values(self) -> list[Value]:
        return self.choices


class Grid(_Finite):
    """Each of several values, for the grid sampler."""

    type: Literal["grid"] = "grid"
    values: Choices

    def _values(self) -> list[Value]:
        return self.values


class List(_Dimension):
    """A list whose length and items are drawn: `name.length`, `name.0`, `name.1`, …"""

    type: Literal["list"] = "list"
    length: Int
    items: Annotated[
        Annotated[Int, Tag("int")] | Annotated[Float, Tag("float")] | Annotated[Categorical, Tag("categorical")],
        Discriminator(
            lambda items: _kind(items) if _kind(items) in ("int", "float", "categorical") else None,
            custom_error_type="items_type",
            custom_error_message="type must be one of 'int', 'float', 'categorical'",
        ),
    ]

    @model_validator(mode="after")
    def _bounded(self) -> "List":
        if not 1 <= self.length.low <= self.length.high <= 64:
            raise ValueError("the length is out of range; give low and high from 1 to 64")
        return self

    def corners(self) -> list[Any]:
        return [[item] * n for n in self.length.corners() for item in self.items.corners()]

    def contrasts(self, name: str) -> list[Contrast]:
        lengths, items = self.length.corners(), self.items.corners()
        each = [f"{name}.{i}" for i in range(self.length.high)]
        return [
            *(Contrast([f"{name}.length"], [[item] * n for n in lengths]) for item in items),
            *(Contrast(each, [[item] * n for item in items]) for n in lengths),
        ]

    def fixed_values(self, value: Any, name: str) -> dict[str, Scalar]:
        if not isinstance(value, list):
            raise ValueError("not a list; give one")  # noqa: TRY004 - a wrong input, not a wrong call
        found = self.length.fixed_values(len(value), f"{name}.length")
        for i, item in enumerate(value):
            found |= self.items.fixed_values(item, f"{name}.{i}")
        return found

    def size(self) -> int | None:
        items = self.items.size()
        lengths = range(self.length.low, self.length.high + 1, self.length.step)
        return None if items is None else sum(items**n for n in lengths)

    def points(self, name: str) -> list[dict[str, Scalar]]:
        return [
            {f"{name}.length": n, **merged(items)}
            for n in range(self.length.low, self.length.high + 1, self.length.step)
            for items in product(*(self.items.points(f"{name}.{i}") for i in range(n)))
        ]

    def suggest(self, trial: Suggester, name: str) -> list[Any]:
        n = self.length.suggest(trial, f"{name}.length")
        return [self.items.suggest(trial, f"{name}.{i}") for i in range(n)]


class Fixed(RootModel[Any]):
    """One value for every trial."""

    model_config = ConfigDict(frozen=True)

    @field_validator("root")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return _plain_value(value)

    def corners(self) -> list[Any]:
        return [self.root]

    def contrasts(self, name: str) -> list[Contrast]:
        return []

    def fixed_values(self, value: Any, name: str) -> dict[str, Scalar]:
        if _identity(value) != _identity(self.root):
            raise ValueError(f"fixed in this job; give {json.dumps(self.root)[:500]} or leave it out")
        return {}

    def size(self) -> int:
        return 1

    def points(self, name: str) -> list[dict[str, Scalar]]:
        return [{}]

    def suggest(self, trial: Suggester, name: str) -> Any:
        return self.root

    def choices_as_text(self) -> list[Scalar] | None:
        return None


def _kind(value: Any) -> str | None:
    """Return the tag of a dimension; None, which is refused, if its type is unknown."""
    if isinstance(value, dict):
        kind = value.get("type")
        return kind if isinstance(kind, str) and kind in _KINDS else None
    return getattr(value, "type", "fixed")


_KINDS = ("int", "float", "categorical", "list", "grid")

Dimension = Annotated[
    Annotated[Int, Tag("int")]
    | Annotated[Float, Tag("float")]
    | Annotated[Categorical, Tag("categorical")]
    | Annotated[List, Tag("list")]
    | Annotated[Grid, Tag("grid")]
    | Annotated[Fixed, Tag("fixed")],
    Discriminator(
        _kind,
        custom_error_type="dimension_type",
        custom_error_message="type must be one of int, float, categorical, list, grid; or give a plain value",
    ),
]
SearchSpace = dict[str, Dimension]


def grid_values(space: SearchSpace) -> dict[str, list[Scalar]]:
    """Return the choices of every dimension that is not fixed, for the grid sampler."""
    finite = {name: dimension.choices_as_text() for name, dimension in space.items()}
    return {name: choices for name, choices in finite.items() if choices is not None}


def grid_size(space: SearchSpace) -> int:
    """Return the number of points of a grid."""
    return prod(len(choices) for choices in grid_values(space).values())


def space_size(space: SearchSpace) -> int | None:
    """Return the number of points of a space; None if there is no such number, or if it is above `MAX_GRID`."""
    sizes = [dimension.size() for dimension in space.values()]
    size = prod(one for one in sizes if one is not None)
    return None if None in sizes or size > MAX_GRID else size


def points(space: SearchSpace) -> list[dict[str, Scalar]]:
    """Return the draws of every point of a space that has a size."""
    return [merged(each) for each in product(*(dimension.points(name) for name, dimension in space.items()))]


def point(draws: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    """Return draws as a point; steps of a range are equal to 12 digits, because each sampler rounds its own way."""
    return frozenset((name, f"{v:.12g}" if isinstance(v, float) else repr(v)) for name, v in draws.items())


def merged(draws: Iterable[dict[str, Scalar]]) -> dict[str, Scalar]:
    """Return several draws as one."""
    return {name: value for draw in draws for name, value in draw.items()}


def suggest(space: SearchSpace, trial: Suggester) -> dict[str, Any]:
    """Draw a value for every dimension, in the order of the space."""
    return {name: dimension.suggest(trial, name) for name, dimension in space.items()}
