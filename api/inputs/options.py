"""The options of a prediction request: in the query, and for JSON also in the body, which takes precedence."""

from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from api.http.errors import BadInput, invalid, refuse_many
from ml.datasets import can_be_dataset, datasets
from ml.networks import networks

MAX_CLASSES = 1000
PREFER = r"^fastest-within:(100(\.0{1,6})?|[0-9]{1,2}(\.[0-9]{1,6})?)$"
CACHED_BYTES = 200  # longer queries are parsed each time, so that the cache stays small
TEXTS = {"model", "dataset", "prefer"}  # options that stay texts even if they look like numbers


class Options(BaseModel):
    """The version that a request asks for, and the form of its answer."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: str | None = Field(
        None, max_length=100, description="a network; by default the network whose champion is the most accurate"
    )
    dataset: str = Field("mnist", max_length=100, description="the data set that the network was trained on")
    version: int | None = Field(
        None, ge=1, le=2**31 - 1, description="a version of that network; by default the champion"
    )
    prefer: str | None = Field(
        None,
        pattern=PREFER,
        description="use the fastest version instead of the champion, if its accuracy on validation images is at most "
        "so many percentage points below the best of that network and data set, as in fastest-within:0.2",
    )
    top_k: int | None = Field(
        None,
        ge=1,
        le=MAX_CLASSES,
        description="the number of most probable labels to return, instead of all probabilities",
    )
    explain: bool = Field(False, description="return a saliency map: how much each pixel contributes to the label")
    canonical: bool | None = Field(
        None, description="bring the image to the data set's own form first; by default only PNG and JPEG"
    )
    scale: int | None = Field(
        None,
        description="the pixel value of white, 1 or 255; by default 1 if no value of the image exceeds 1, else 255",
        json_schema_extra={"enum": [1, 255, None]},
    )

    @property
    def within(self) -> float | None:
        """The percentage points of `prefer`, if it is given."""
        return None if self.prefer is None else float(self.prefer.partition(":")[2])

    @field_validator("scale", mode="before")
    @classmethod
    def _known(cls, scale: Any) -> Any:
        if scale is not None and (type(scale) is not int or scale not in (1, 255)):
            raise ValueError("unknown scale; use 1 or 255")
        return scale

    @classmethod
    def of_query(cls, query: bytes) -> "Options":
        """Parse the options of a query string.

        Raises:
            BadInput: if one is invalid.
        """
        return _cached(query) if len(query) <= CACHED_BYTES else _parsed(query)

    def changed(self, fields: dict[str, Any]) -> "Options":
        """Return these options with those of a JSON body.

        Raises:
            BadInput: if one is invalid.
        """
        return _checked({**self.model_dump(exclude_unset=True), **fields}, "#/")


def _parsed(query: bytes) -> Options:
    texts = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return _checked({name: _typed(name, text) for name, text in texts}, "?")


_cached = lru_cache(256)(_parsed)


def _typed(name: str, text: str) -> str | int | bool:
    """Return a text of the query as the JSON value that it stands for."""
    if name in TEXTS:
        return text
    if text.isascii() and text.isdecimal() and len(text) < 20:
        return int(text)
    return {"true": True, "false": False}.get(text, text)


def _checked(fields: dict[str, Any], prefix: str) -> Options:
    refuse_many(fields, Options, prefix)
    try:
        options = Options.model_validate(fields)
    except ValidationError as error:
        raise invalid(error, prefix, Options) from None
    if options.model is not None and options.model not in networks:
        raise BadInput(f"{prefix}model", f"unknown network; use one of {', '.join(networks)}")
    if not can_be_dataset(options.dataset):
        raise BadInput(f"{prefix}dataset", f"unknown data set; use one of {', '.join(datasets)}")
    if options.version is not None and options.model is None:
        raise BadInput(f"{prefix}version", "each network numbers its own versions; give model too")
    if options.version is not None and options.prefer is not None:
        raise BadInput(f"{prefix}prefer", "not allowed with version; leave one of the two out")
    return options
