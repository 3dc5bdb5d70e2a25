"""Random images of a part of a data set as JSON: `python -m ml.images.samples mnist test 200`.

A program of its own, because whoever wants to show some images must not hold all 70,000 for that.
"""

import sys
from base64 import b64encode
from collections.abc import Sequence
from typing import Literal, cast

import numpy as np
from pydantic import BaseModel

from ml.datasets import data_split, datasets

Part = Literal["train", "validation", "test"]


class Sample(BaseModel, frozen=True):
    """One image and what it shows."""

    index: int  # its number in the data set
    label: str
    pixels: str  # base64 of its bytes, row by row


class Samples(BaseModel, frozen=True):
    """Some images in random order."""

    items: list[Sample]


def packed(image: np.ndarray) -> str:
    """An image, uint8, as text."""
    return b64encode(image.tobytes()).decode()


def samples(name: str, part: Part, count: int, rng: np.random.Generator) -> Samples:
    """At most `count` images of a part of a data set, as the random split with seed 0 divides it, each once.

    DataError where its files are missing or damaged.
    """
    dataset = datasets[name]
    arrays = dataset.load()
    places = rng.permutation(getattr(data_split(len(arrays), dataset.official_test, "random", seed=0), part))[:count]
    return Samples(
        items=[
            Sample(index=place, label=dataset.classes[arrays.labels[place]], pixels=packed(arrays.images[place]))
            for place in places.tolist()
        ]
    )


def main(arguments: Sequence[str]) -> None:
    """Write images of the data set and part that the arguments name."""
    name, part, count = arguments
    found = samples(name, cast("Part", part), int(count), np.random.default_rng())
    sys.stdout.write(found.model_dump_json())


if __name__ == "__main__":
    main(sys.argv[1:])
