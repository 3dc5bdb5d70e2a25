"""What a question says beside its images: in the query, and for JSON also in the body, which then counts."""

from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from api.http.errors import BadInput, invalid, refuse_many
from ml.datasets import datasets
from ml.networks import networks

MAX_CLASSES = 1000
PREFER = r"^fastest-within:(100(\.0{1,6})?|[0-9]{1,2}(\.[0-9]{1,6})?)$"
CACHED_BYTES = 200  # longer queries are parsed each time: what is remembered must be bounded


TEXTS = {"model", "dataset", "prefer"}  # options that are texts whatever they look like


class Options(BaseModel):
    """Who is asked, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: str | None = Field(None, max_length=100, description="a network; without it the best of all answers")
    dataset: str = Field("mnist", max_length=100, description="what the network was trained on")
    version: int | None = Field(None, ge=1, le=2**31 - 1, description="of that network; without it the champion")
    prefer: str | None = Field(
        None,
        pattern=PREFER,
        description="instead of the champion the fastest version that is at most so many percentage points less "
        "accurate on validation than the best of that network and data set, as in fastest-within:0.2",
    )
    top_k: int | None = Field(None, ge=1, le=MAX_CLASSES, description="only the most probable labels, this many")
    explain: bool = Field(False, description="with a saliency: which pixels the answer rests on")
    canonical: bool | None = Field(
        None, description="bring the image to the data set's own form first; without it only what comes as PNG or JPEG"
    )
    scale: int | None = Field(
        None,
        description="the value of white, 1 or 255; without it 1 if no value of the image exceeds 1, else 255",
        json_schema_extra={"enum": [1, 255, None]},
    )

    @property
    def within(self) -> float | None:
        """The percentage points of `prefer`; None without it."""
        return None if self.prefer is None else float(self.prefer.partition(":")[2])

    @field_validator("scale", mode="before")
    @classmethod
    def _known(cls, scale: Any) -> Any:
        if scale is not None and (type(scale) is not int or scale not in (1, 255)):
            raise ValueError("the scale is 1 or 255")
        return scale

    @classmethod
    def of_query(cls, query: bytes) -> "Options":
        """The options in a query string; BadInput names what is wrong."""
        return _cached(query) if len(query) <= CACHED_BYTES else _parsed(query)

    def changed(self, fields: dict[str, Any]) -> "Options":
        """These options with what a JSON body says; BadInput names what is wrong there."""
        return _checked({**self.model_dump(exclude_unset=True), **fields}, "#/")


def _parsed(query: bytes) -> Options:
    texts = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return _checked({name: _typed(name, text) for name, text in texts}, "?")


_cached = lru_cache(256)(_parsed)


def _typed(name: str, text: str) -> str | int | bool:
    """What a text of the query stands for, as JSON would have it; the name of a data set may look like a number."""
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
        raise BadInput(f"{prefix}model", f"there is no such network; choose one of: {', '.join(networks)}")
    if not datasets.may_be(options.dataset):
        raise BadInput(f"{prefix}dataset", f"there is no such data set; choose one of: {', '.join(datasets)}")
    if options.version is not None and options.model is None:
        raise BadInput(f"{prefix}version", "each network numbers its own versions; name the model too")
    if options.version is not None and options.prefer is not None:
        raise BadInput(f"{prefix}prefer", "a version is named already; leave one of the two out")
    return options
