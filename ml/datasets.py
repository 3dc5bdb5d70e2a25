"""The data sets: loaders, splits and the stream of minibatches.

Images are uint8 [n, channels, height, width] in memory, labels uint8 [n]. To add a data set, write a loader and
register it here with its shape, classes and SHA-256 (`python -m ml sha256 NAME` prints it).
"""

import gzip
import hashlib
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
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
NAME = r"[a-z0-9][a-z0-9_-]{0,62}"  # of what is uploaded
UPLOADED = re.compile(rf"{NAME}(?:@[1-9][0-9]{{0,8}})?")  # its name, with or without a version

SplitName = Literal["random", "official"]
TEST_SHARE = 0.10  # the report's split: 72 / 18 / 10
VALIDATION_SHARE = 0.20  # of what is not test: 18 of 90
OFFICIAL_VALIDATION_SHARE = 0.18  # of the official training images


@dataclass(frozen=True)
class Arrays:
    """Images, uint8 [n, channels, height, width], and their labels, uint8 [n]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Arrays":
        """The images at `indices`, copied."""
        return Arrays(np.ascontiguousarray(self.images[indices]), np.ascontiguousarray(self.labels[indices]))

    def sha256(self) -> str:
        """The hash that identifies these images and labels, whatever file they came from."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """A data set that can be named in a specification."""

    read: Callable[[], Arrays]
    shape: Shape  # of one image: channels, height, width
    classes: tuple[str, ...]  # their names, by label
    size: int  # images
    sha256: str  # of the arrays
    official_test: int | None  # how many images at the end are the publishers' own test set
    description: str

    def load(self) -> Arrays:
        """Read and verify; DataError where a file is missing or damaged."""
        try:
            arrays = self.read()
        except (OSError, EOFError, struct.error, zlib.error, ValueError) as error:
            raise DataError(f"the data set cannot be read ({error}); restore its files under {DATA}") from error
        if arrays.sha256() != self.sha256:
            raise DataError(
                f"the data set is damaged: its SHA-256 is not {self.sha256}; restore its files under {DATA}"
            )
        return arrays


class Datasets(Registry[Dataset]):
    """The data sets that are registered here, and beside them those that `finder` knows, which people have uploaded.

    What is uploaded again under the same name is another version of it, "letters@2"; the name alone is the newest.
    """

    finder: Callable[[str], tuple[str, Dataset] | None] | None = None  # from a name to that of one version, and it

    def __missing__(self, name: str) -> Dataset:
        found = self._found(name)
        return super().__missing__(name) if found is None else found[1]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or self._found(str(name)) is not None

    def pinned(self, name: str) -> str:
        """The name of what a name stands for now, and always will; the name itself where there is no such data set."""
        found = None if super().__contains__(name) else self._found(name)
        return name if found is None else found[0]

    def may_be(self, name: str) -> bool:
        """Whether there may be a data set of this name; whether there is one, only `in` tells, which may take long."""
        return super().__contains__(name) or UPLOADED.fullmatch(name) is not None

    def _found(self, name: str) -> tuple[str, Dataset] | None:
        return self.finder(name) if self.finder is not None and UPLOADED.fullmatch(name) else None


datasets = Datasets("data set")


def is_called(dataset: str, asked: str) -> bool:
    """Whether a version of a data set, "letters@2", is what somebody asks for: it, or "letters"."""
    return asked in (dataset, dataset.partition("@")[0])


def digit_of(class_name: str) -> int | None:
    """The number that the name of a class is, as an answer tells it beside the name; None of any other name."""
    return int(class_name) if re.fullmatch("[0-9]{1,18}", class_name) else None  # JSON's readers take 64 bits


def version_of(dataset: str) -> int:
    """The number of a version of a data set, "letters@2"; 0 of one that is registered."""
    return int(dataset.partition("@")[2] or 0)


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array in a gzipped IDX file; ValueError where it is not one."""
    with gzip.open(path) as file:
        zeros, kind, dimensions = struct.unpack(">HBB", file.read(4))
        if zeros != 0 or kind != 8:
            raise ValueError(f"{path.name} is not an IDX file of bytes")
        shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
        return np.frombuffer(file.read(), np.uint8).reshape(shape)


def _read_mnist() -> Arrays:
    parts = [
        (
            read_idx(DATA / "mnist" / f"{part}-images-idx3-ubyte.gz"),
            read_idx(DATA / "mnist" / f"{part}-labels-idx1-ubyte.gz"),
        )
        for part in ("train", "t10k")
    ]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Arrays(images[:, None], labels)


def _read_digits() -> Arrays:
    folder = DATA / "digits"
    return Arrays(read_idx(folder / "images-idx3-ubyte.gz")[:, None], read_idx(folder / "labels-idx1-ubyte.gz"))


datasets.register("mnist")(
    Dataset(
        _read_mnist,
        shape=(1, 28, 28),
        classes=DIGITS,
        size=70_000,
        sha256="b411ecfe11a8b3651b6b29845f4205907083bf98aa89aa93ebaeb5eb29c1111e",
        official_test=10_000,
        description="Handwritten digits by Yann LeCun and Corinna Cortes (CC BY-SA 3.0)",
    )
)
datasets.register("digits")(
    Dataset(
        _read_digits,
        shape=(1, 28, 28),
        classes=DIGITS,
        size=1_797,
        sha256="8ae050148f2831b65f42f72ecdc5e76365aa0ebea5686762e2b586df3ad8a9ab",
        official_test=None,
        description="UCI optical recognition of handwritten digits, 8×8 scaled to 28×28 (CC BY 4.0)",
    )
)


@dataclass(frozen=True)
class DataSplit:
    """Which images train, validate and test: three index arrays, int64."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def held_to(self, images: int | None) -> "DataSplit":
        """What a job sees of it that trains and validates on so many images together; None: all."""
        train, validation = limited(len(self.train), len(self.validation), images)
        return DataSplit(self.train[:train], self.validation[:validation], self.test)


def split_sizes(size: int, official_test: int | None, split: SplitName) -> tuple[int, int, int]:
    """How many of `size` images train, validate and test; ValueError where there is no official test set."""
    if split == "official":
        if official_test is None:
            raise ValueError("this data set has no official test images")
        test, share = official_test, OFFICIAL_VALIDATION_SHARE
    else:
        test, share = round(TEST_SHARE * size), VALIDATION_SHARE
    validation = round(share * (size - test))
    return size - test - validation, validation, test


def limited(train: int, validation: int, images: int | None) -> tuple[int, int]:
    """How many of the images that train and validate do so where they are `images` together, at most; None: all."""
    if images is None or images >= train + validation:
        return train, validation
    kept = round(images * validation / (train + validation))
    return images - kept, kept


def data_split(size: int, official_test: int | None, split: SplitName, seed: int) -> DataSplit:
    """Divide `size` images. The test images depend on nothing but the data set; `seed` moves the rest.

    "random" is 72 / 18 / 10 %; "official" leaves the publishers' test set aside and validates on 18 % of the others.
    ValueError where there is none.
    """
    _, validation, test = split_sizes(size, official_test, split)
    if split == "official":
        rest, tested = np.split(np.arange(size), [size - test])
    else:
        tested, rest = np.split(permutation(size, derive(0, SeedPurpose.TEST)), [test])
    rest = rest[permutation(len(rest), derive(seed, SeedPurpose.CUT))]
    return DataSplit(train=rest[validation:], validation=rest[:validation], test=tested)


class Stream:
    """The endless order of minibatches over `size` images that a pack trains on.

    One shuffled pass after another, cut into batches of `batch_size` whatever the end of a pass, so that every step
    is as wide as the next and a stream can be entered at any step.
    """

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self._passes: dict[int, np.ndarray] = {}

    def batch(self, step: int) -> np.ndarray:
        """The image indices of a step, int64 [batch_size]."""
        first = step * self.batch_size
        last = first + self.batch_size
        numbers = range(first // self.size, (last - 1) // self.size + 1)
        parts = [self._pass(n)[max(0, first - n * self.size) : last - n * self.size] for n in numbers]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def steps(self, tenths: int) -> int:
        """The steps after which this many tenths of the data set's worth of images have been seen."""
        return -(-tenths * self.size // (STEPS_PER_EPOCH * self.batch_size))

    def _pass(self, number: int) -> np.ndarray:
        if number not in self._passes:
            # Only the passes at hand are kept: 50,400 indices are 0.4 MB.
            self._passes = {n: order for n, order in self._passes.items() if n == number - 1}
            self._passes[number] = permutation(self.size, derive(self.seed, SeedPurpose.STREAM, number))
        return self._passes[number]
