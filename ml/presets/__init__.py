"""Presets: specifications that come with Chiffre as JSON files in this folder, and collections of presets.

`FOLDER/NAME.json` is the preset `FOLDER/NAME`: a TrainSpec if it has `params`, else a TuneSpec. A collection in
`collections.json` lists presets of one folder, its experiments, in the order in which they are submitted.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ml.errors import UnknownName
from ml.specs import TrainSpec, TuneSpec

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Experiment:
    """A preset as a member of a collection."""

    name: str  # of the preset, without the folder
    title: str
    spec: TuneSpec


@dataclass(frozen=True)
class Collection:
    """Experiments that are submitted together."""

    name: str
    title: str
    experiments: tuple[Experiment, ...]


def preset_names() -> list[str]:
    """Return the names of all presets, sorted."""
    return sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.glob("*/*.json"))


def preset_body(name: str) -> dict[str, Any]:
    """Return the content of a preset's file.

    Raises:
        UnknownName: if there is no such preset.
    """
    if name not in preset_names():
        raise UnknownName("preset", preset_names())
    body: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return body


def trains(body: dict[str, Any]) -> bool:
    """Return whether a preset trains with fixed hyper-parameters instead of searching them."""
    return "params" in body


def preset(name: str) -> TrainSpec | TuneSpec:
    """Return a preset as a specification.

    Raises:
        UnknownName: if there is no such preset.
        SpecError: if its values do not fit together.
        ValidationError: if a value has the wrong type or range.
    """
    body = preset_body(name)
    return (TrainSpec if trains(body) else TuneSpec).model_validate(body)


@cache
def collections() -> dict[str, Collection]:
    """Return all collections by name."""
    written = json.loads((FOLDER / "collections.json").read_text())
    return {
        name: Collection(
            name,
            found["title"],
            tuple(
                Experiment(own, title, TuneSpec.model_validate(preset_body(f"{name}/{own}")))
                for own, title in found["experiments"].items()
            ),
        )
        for name, found in written.items()
    }


def collection(name: str) -> Collection:
    """Return a collection.

    Raises:
        UnknownName: if there is no such collection.
    """
    known = collections()
    if name not in known:
        raise UnknownName("collection", known)
    return known[name]
