"""Presets: specifications that come with Chiffre, as JSON files beside this module, and the collections of them.

`FOLDER/NAME.json` is the preset `FOLDER/NAME`: a TuneSpec, or a TrainSpec where it has `params`.
`collections.json` names presets of a folder in the order in which they are submitted: those are its experiments.
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

    name: str  # the preset's, without the collection's
    title: str
    spec: TuneSpec


@dataclass(frozen=True)
class Collection:
    """Experiments that are submitted together."""

    name: str
    title: str
    experiments: tuple[Experiment, ...]


def preset_names() -> list[str]:
    """Every preset's name, sorted."""
    return sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.glob("*/*.json"))


def preset_body(name: str) -> dict[str, Any]:
    """A preset as its file has it; UnknownName where there is none."""
    if name not in preset_names():
        raise UnknownName("preset", preset_names())
    body: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return body


def trains(body: dict[str, Any]) -> bool:
    """Whether a preset trains with fixed hyper-parameters, rather than to search them."""
    return "params" in body


def preset(name: str) -> TrainSpec | TuneSpec:
    """A preset, checked; UnknownName where there is none, and SpecError or ValidationError where its file is wrong."""
    body = preset_body(name)
    return (TrainSpec if trains(body) else TuneSpec).model_validate(body)


@cache
def collections() -> dict[str, Collection]:
    """Every collection by its name."""
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
    """A collection; UnknownName where there is none."""
    known = collections()
    if name not in known:
        raise UnknownName("collection", known)
    return known[name]
