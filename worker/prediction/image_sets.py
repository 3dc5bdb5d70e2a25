"""Images to be classified, whatever they came from: part of a data set, or what somebody uploaded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ml.artifacts import checkpoint_bytes, checkpoint_of
from ml.datasets import Dataset, SplitName, data_split
from ml.records import Checkpoint

Subset = Literal["validation", "test", "train", "all"]
WHITE = np.float32(255)
UNKNOWN = -1  # the label of an image whose class nobody has told


@dataclass(frozen=True)
class ImageSet:
    """Images in the order of their places, and what is known of them; a place is a number among all that were meant."""

    pixels: np.ndarray  # [n, channels, height, width]: uint8, or float32 in 0..1
    places: np.ndarray  # int64 [n]
    labels: np.ndarray  # int64 [n]: a class, or UNKNOWN
    errors: dict[int, str] = field(default_factory=dict)  # by place, why there is no image
    ids: dict[int, str] = field(default_factory=dict)  # by place, what the sender calls it

    def __len__(self) -> int:
        return len(self.places)

    @property
    def count(self) -> int:
        """How many were meant, unusable ones included."""
        return len(self) + len(self.errors)

    def parts(self, size: int) -> Iterator["ImageSet"]:
        """The images, so many at a time."""
        for first in range(0, len(self), size):
            part = slice(first, first + size)
            yield ImageSet(self.pixels[part], self.places[part], self.labels[part])

    @classmethod
    def of_dataset(
        cls, dataset: Dataset, subset: Subset, split: SplitName, seed: int, images: int | None = None
    ) -> "ImageSet":
        """Part of a data set as a job with this split and seed, held to so many images, saw it.

        A place is an image's number in the data set. DataError where its files are missing or damaged.
        """
        arrays = dataset.load()
        if subset == "all":
            places = np.arange(len(arrays))
        else:
            whole = data_split(len(arrays), dataset.official_test, split, seed)
            places = np.sort(getattr(whole.held_to(images), subset))
        found = arrays.take(places)
        return cls(found.images, places, found.labels.astype(np.int64))

    def to_bytes(self) -> bytes:
        """All of it as the content of one file."""
        arrays = {name: getattr(self, name) for name in ("pixels", "places", "labels")}
        return checkpoint_bytes(Checkpoint(arrays, {"errors": self.errors, "ids": self.ids}))

    @classmethod
    def of_bytes(cls, content: bytes, name: str) -> "ImageSet":
        """What `to_bytes` made; CheckpointError where a file of this name is something else."""
        found = checkpoint_of(content, name)
        return cls(**found.weights, errors=_by_place(found.card["errors"]), ids=_by_place(found.card["ids"]))


def in_unit(pixels: np.ndarray) -> np.ndarray:
    """Pixels as every network takes them: float32 in 0..1."""
    if pixels.dtype != np.uint8:
        return pixels
    divided: np.ndarray = np.divide(pixels, WHITE, dtype=np.float32)
    return divided


def compact(pixels: np.ndarray) -> np.ndarray:
    """Float32 pixels in 0..1 as uint8, a quarter of the size, where `in_unit` gives exactly the same back."""
    whole = np.rint(pixels * WHITE).astype(np.uint8)
    return whole if np.array_equal(in_unit(whole), pixels) else pixels


def together(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Pixels as uint8 where all parts are, else as float32."""
    whole = all(part.dtype == np.uint8 for part in parts)
    return np.concatenate(parts if whole else [in_unit(part) for part in parts])


def _by_place(texts: dict[str, Any]) -> dict[int, str]:
    """JSON has texts for keys."""
    return {int(place): text for place, text in texts.items()}
