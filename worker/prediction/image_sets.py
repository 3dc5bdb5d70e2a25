"""Images to be classified: a subset of a data set, or uploaded ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ml.artifacts import checkpoint_bytes, checkpoint_of
from ml.datasets import Dataset, SplitName, data_split
from ml.records import Checkpoint

Subset = Literal["validation", "test", "train", "all"]
WHITE = np.float32(255)
UNKNOWN = -1  # the label of an image whose class is unknown


@dataclass(frozen=True)
class ImageSet:
    """Images in the order of their places, with their labels and ids.

    An image's place is its number among all images that were asked for, including those that could not be read.
    """

    pixels: np.ndarray  # [n, channels, height, width]: uint8, or float32 in 0..1
    places: np.ndarray  # int64 [n]
    labels: np.ndarray  # int64 [n]: a class, or UNKNOWN
    errors: dict[int, str] = field(default_factory=dict)  # why there is no image, by place
    ids: dict[int, str] = field(default_factory=dict)  # the sender's names, by place

    def __len__(self) -> int:
        return len(self.places)

    @property
    def count(self) -> int:
        """The number of images that were asked for, including unusable ones."""
        return len(self) + len(self.errors)

    def batches(self, size: int) -> Iterator["ImageSet"]:
        """Yield the images, `size` at a time."""
        for first in range(0, len(self), size):
            batch = slice(first, first + size)
            yield ImageSet(self.pixels[batch], self.places[batch], self.labels[batch])

    @classmethod
    def of_dataset(
        cls, dataset: Dataset, subset: Subset, split: SplitName, seed: int, images: int | None = None
    ) -> "ImageSet":
        """Return a subset of a data set, divided as for a job.

        Args:
            dataset: A place is an image's number in it.
            subset: The images to return; "all" ignores the other arguments.
            split: The data split of the job.
            seed: The seed of the job.
            images: The limit on images of the job; None if it has none.

        Raises:
            DataError: if a file of the data set is missing or damaged.
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
        """Return the content of one file with everything."""
        arrays = {name: getattr(self, name) for name in ("pixels", "places", "labels")}
        return checkpoint_bytes(Checkpoint(arrays, {"errors": self.errors, "ids": self.ids}))

    @classmethod
    def of_bytes(cls, content: bytes, name: str) -> "ImageSet":
        """Return the image set of a file that `to_bytes` made.

        Raises:
            CheckpointError: if the content is anything else; its text names the file.
        """
        found = checkpoint_of(content, name)
        return cls(**found.weights, errors=_by_place(found.card["errors"]), ids=_by_place(found.card["ids"]))


def in_unit(pixels: np.ndarray) -> np.ndarray:
    """Return pixels as every network takes them: float32 in 0..1."""
    if pixels.dtype != np.uint8:
        return pixels
    divided: np.ndarray = np.divide(pixels, WHITE, dtype=np.float32)
    return divided


def compact(pixels: np.ndarray) -> np.ndarray:
    """Return float32 pixels in 0..1 as uint8, a quarter of the size, if `in_unit` restores exactly the same."""
    whole = np.rint(pixels * WHITE).astype(np.uint8)
    return whole if np.array_equal(in_unit(whole), pixels) else pixels


def together(batches: Sequence[np.ndarray]) -> np.ndarray:
    """Return the pixels of several batches as one array: uint8 if all of them are, else float32."""
    whole = all(batch.dtype == np.uint8 for batch in batches)
    return np.concatenate(batches if whole else [in_unit(batch) for batch in batches])


def _by_place(texts: dict[str, Any]) -> dict[int, str]:
    """Return texts by place; JSON has texts for keys."""
    return {int(place): text for place, text in texts.items()}
