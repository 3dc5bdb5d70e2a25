"""Random images of a data set as JSON: `python -m ml.images.samples mnist test 200`.

This is a separate program, so that a process that shows a few images need not hold all 70,000.
"""

import sys
from base64 import b64encode
from collections.abc import Sequence
from typing import Literal, cast

import numpy as np
from pydantic import BaseModel

from ml.datasets import Dataset, FindDataset, data_split, datasets

SubsetName = Literal["train", "validation", "test"]


class Sample(BaseModel, frozen=True):
    """One image and its label."""

    index: int  # its number in the data set
    label: str
    pixels: str  # base64 of the bytes, row by row


class Samples(BaseModel, frozen=True):
    """Several images in random order."""

    items: list[Sample]


def packed(image: np.ndarray) -> str:
    """Return an image, uint8, as base64 text."""
    return b64encode(image.tobytes()).decode()


def samples(dataset: Dataset, subset: SubsetName, count: int, rng: np.random.Generator) -> Samples:
    """Return at most `count` different images of a subset of the random split with seed 0.

    Raises:
        DataError: if the data set's files are missing or damaged.
    """
    arrays = dataset.load()
    split = data_split(len(arrays), dataset.official_test, "random", seed=0)
    places = rng.permutation(getattr(split, subset))[:count]
    return Samples(
        items=[
            Sample(index=place, label=dataset.classes[arrays.labels[place]], pixels=packed(arrays.images[place]))
            for place in places.tolist()
        ]
    )


def main(arguments: Sequence[str], find: FindDataset = datasets.__getitem__) -> None:
    """Write images to standard output; `arguments` are the data set, the subset and the number of images."""
    name, subset, count = arguments
    found = samples(find(name), cast("SubsetName", subset), int(count), np.random.default_rng())
    sys.stdout.write(found.model_dump_json())


if __name__ == "__main__":
    main(sys.argv[1:])
