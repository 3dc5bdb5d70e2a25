"""The data sets: loaders, splits and the stream of minibatches.

In memory images are uint8 [n, channels, height, width] and labels uint8 [n]. To add a data set, write a loader and
register it here with its shape, classes and SHA-256 (`python -m ml sha256 NAME` prints the hash).
"""

import gzip
import hashlib
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ml.errors import DataError
from ml.layers import Shape
from ml.records import STEPS_PER_EPOCH
from ml.registry import Registry
from ml.seeds import SeedPurpose, derive, permutation

DATA = Path(__file__).parent / "data"
DIGITS = tuple("0123456789")
NAME = r"[a-z0-9][a-z0-9_-]{0,62}"  # of an uploaded data set
UPLOADED = re.compile(rf"{NAME}(?:@[1-9][0-9]{{0,8}})?")  # with or without a version

SplitName = Literal["random", "official"]
TEST_SHARE = 0.10  # the report's split is 72 / 18 / 10 %
VALIDATION_SHARE = 0.20  # of the images that are not test images: 18 of 90
OFFICIAL_VALIDATION_SHARE = 0.18  # of the official training images


@dataclass(frozen=True)
class Arrays:
    """Images, uint8 [n, channels, height, width], with their labels, uint8 [n]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Arrays":
        """Return a copy of the images and labels at `indices`."""
        return Arrays(np.ascontiguousarray(self.images[indices]), np.ascontiguousarray(self.labels[indices]))

    def sha256(self) -> str:
        """Return the SHA-256 of images and labels, which does not depend on the file format."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class DatasetInfo:
    """The description of a data set that a specification can name, without its images."""

    name: str  # with the version if it was uploaded: "letters@2"
    shape: Shape  # of one image: channels, height, width
    classes: tuple[str, ...]  # names of the classes, by label
    size: int  # number of images
    sha256: str  # of the arrays
    official_test: int | None  # number of images at the end that are the publishers' own test set
    description: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Dataset(DatasetInfo):
    """A data set with a way to read its images."""

    read: Callable[[], Arrays] = field(compare=False)

    def load(self) -> Arrays:
        """Read the images and labels, and compare their hash.

        Raises:
            DataError: if a file is missing or damaged.
        """
        try:
            arrays = self.read()
        except (OSError, EOFError, struct.error, zlib.error, ValueError) as error:
            raise DataError(f"the data set cannot be read ({error}); restore its files under {DATA}") from error
        if arrays.sha256() != self.sha256:
            raise DataError(
                f"the data set is damaged: its SHA-256 is not {self.sha256}; restore its files under {DATA}"
            )
        return arrays


# Functions that find a data set by its name; they raise UnknownName if there is none.
FindInfo = Callable[[str], DatasetInfo]
FindDataset = Callable[[str], Dataset]

datasets: Registry[Dataset] = Registry("data set")  # the built-in ones


def can_be_dataset(name: str) -> bool:
    """Return whether `name` is a built-in data set or has the form of an uploaded one, with or without a version."""
    return name in datasets or UPLOADED.fullmatch(name) is not None


def is_called(dataset: str, asked: str) -> bool:
    """Return whether `asked` names `dataset`: "letters@2" is found by "letters@2" and by "letters"."""
    return asked in (dataset, dataset.partition("@")[0])


def digit_of(class_name: str) -> int | None:
    """Return the number that a class name spells; None if the name is not a number."""
    return int(class_name) if re.fullmatch("[0-9]{1,18}", class_name) else None  # JSON readers accept 64 bits


def version_of(dataset: str) -> int:
    """Return the version number in a name such as "letters@2"; 0 for a built-in data set."""
    return int(dataset.partition("@")[2] or 0)


def read_idx(path: Path) -> np.ndarray:
    """Return the uint8 array in a gzipped IDX file.

    Raises:
        ValueError: if the file is not an IDX file of bytes.
    """
    with gzip.open(path) as file:
        zeros, kind, dimensions = struct.unpack(">HBB", file.read(4))
        if zeros != 0 or kind != 8:
            raise ValueError(f"{path.name} is not an IDX file of bytes")
        shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
        return np.frombuffer(file.read(), np.uint8).reshape(shape)


def _read_mnist() -> Arrays:
    pairs = [
        (
            read_idx(DATA / "mnist" / f"{prefix}-images-idx3-ubyte.gz"),
            read_idx(DATA / "mnist" / f"{prefix}-labels-idx1-ubyte.gz"),
        )
        for prefix in ("train", "t10k")
    ]
    images, labels = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    return Arrays(images[:, None], labels)


def _read_digits() -> Arrays:
    folder = DATA / "digits"
    return Arrays(read_idx(folder / "images-idx3-ubyte.gz")[:, None], read_idx(folder / "labels-idx1-ubyte.gz"))


for _dataset in (
    Dataset(
        "mnist",
        shape=(1, 28, 28),
        classes=DIGITS,
        size=70_000,
        sha256="b411ecfe11a8b3651b6b29845f4205907083bf98aa89aa93ebaeb5eb29c1111e",
        official_test=10_000,
        description="Handwritten digits by Yann LeCun and Corinna Cortes (CC BY-SA 3.0)",
        read=_read_mnist,
    ),
    Dataset(
        "digits",
        shape=(1, 28, 28),
        classes=DIGITS,
        size=1_797,
        sha256="8ae050148f2831b65f42f72ecdc5e76365aa0ebea5686762e2b586df3ad8a9ab",
        official_test=None,
        description="UCI optical recognition of handwritten digits, 8×8 scaled to 28×28 (CC BY 4.0)",
        read=_read_digits,
    ),
):
    datasets.register(_dataset.name)(_dataset)


@dataclass(frozen=True)
class DataSplit:
    """The indices of the training, validation and test images, int64 each."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def held_to(self, images: int | None) -> "DataSplit":
        """Return the split of a job that is limited to `images` training and validation images together.

        The test images stay. With None the split is unchanged.
        """
        train, validation = limited(len(self.train), len(self.validation), images)
        return DataSplit(self.train[:train], self.validation[:validation], self.test)


def split_sizes(size: int, official_test: int | None, split: SplitName) -> tuple[int, int, int]:
    """Return the numbers of training, validation and test images among `size` images.

    Raises:
        ValueError: if `split` is "official" and the data set has no official test set.
    """
    if split == "official":
        if official_test is None:
            raise ValueError("this data set has no official test images")
        test, share = official_test, OFFICIAL_VALIDATION_SHARE
    else:
        test, share = round(TEST_SHARE * size), VALIDATION_SHARE
    validation = round(share * (size - test))
    return size - test - validation, validation, test


def limited(train: int, validation: int, images: int | None) -> tuple[int, int]:
    """Return the numbers of training and validation images, scaled down to at most `images` together; None: all."""
    if images is None or images >= train + validation:
        return train, validation
    kept = round(images * validation / (train + validation))
    return images - kept, kept


def data_split(size: int, official_test: int | None, split: SplitName, seed: int) -> DataSplit:
    """Split `size` images into training, validation and test images.

    "random" is 72 / 18 / 10 %. "official" tests on the publishers' test set and validates on 18 % of the others. The
    test images depend only on the data set; `seed` shuffles the rest.

    Raises:
        ValueError: if `split` is "official" and the data set has no official test set.
    """
    _, validation, test = split_sizes(size, official_test, split)
    if split == "official":
        rest, test_indices = np.split(np.arange(size), [size - test])
    else:
        test_indices, rest = np.split(permutation(size, derive(0, SeedPurpose.TEST)), [test])
    rest = rest[permutation(len(rest), derive(seed, SeedPurpose.SPLIT))]
    return DataSplit(train=rest[validation:], validation=rest[:validation], test=test_indices)


class Stream:
    """The endless sequence of minibatches over `size` images that a pack trains on.

    Shuffled passes follow each other. Batches run across the end of a pass, so that every step has `batch_size` images
    and a trial can join at any step.
    """

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self._passes: dict[int, np.ndarray] = {}

    def batch(self, step: int) -> np.ndarray:
        """Return the image indices of a step, int64 [batch_size]."""
        start = step * self.batch_size
        end = start + self.batch_size
        numbers = range(start // self.size, (end - 1) // self.size + 1)
        slices = [self._pass(n)[max(0, start - n * self.size) : end - n * self.size] for n in numbers]
        return slices[0] if len(slices) == 1 else np.concatenate(slices)

    def steps(self, tenths: int) -> int:
        """Return the number of steps after which `tenths` tenths of an epoch have been seen."""
        return -(-tenths * self.size // (STEPS_PER_EPOCH * self.batch_size))

    def _pass(self, number: int) -> np.ndarray:
        if number not in self._passes:
            # Only the current pass and the one before are kept: 50,400 indices are 0.4 MB.
            self._passes = {n: order for n, order in self._passes.items() if n == number - 1}
            self._passes[number] = permutation(self.size, derive(self.seed, SeedPurpose.STREAM, number))
        return self._passes[number]
