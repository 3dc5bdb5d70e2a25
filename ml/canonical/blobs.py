"""The blobs of an image, which are sets of touching pixels: the digit, and specks and shadows."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageFilter

FAINT = 0.12  # ink from which a pixel belongs to a blob
RIM = 0.03  # ink from which a pixel next to a blob belongs to it, too
SPECK = 0.04  # of the largest blob's ink: a blob with less does not belong to the digit
INNER = 0.1  # of the largest blob's ink: if a blob inside the frame has more, blobs at the edge are not the digit


@dataclass(frozen=True)
class Blobs:
    """The blobs of a mask, as runs: adjacent pixels of a row."""

    shape: tuple[int, int]
    row: np.ndarray  # int64 [runs]
    start: np.ndarray  # int64 [runs], the run's first column
    end: np.ndarray  # int64 [runs], the column after its last
    label: np.ndarray  # int64 [runs], the number of the blob's first run

    @classmethod
    def of(cls, mask: np.ndarray) -> "Blobs":
        """Return the blobs of a boolean mask [height, width]; pixels touch along sides and at corners."""
        stride = mask.shape[1] + 1  # all rows form one line, with a gap between them
        padded = np.zeros((mask.shape[0], stride + 1), np.int8)
        padded[:, 1:-1] = mask
        steps = np.diff(padded, axis=1).ravel()
        start, end = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
        row = start // stride
        label = _joined(len(row), *_touching(row, start - stride, end - stride, start, end))
        return cls(mask.shape, row, start - row * stride, end - row * stride, label)

    def ink(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of `values`, [height, width], over each blob, by label."""
        sums = np.pad(np.cumsum(values, 1, dtype=float), ((0, 0), (1, 0)))
        return np.bincount(self.label, sums[self.row, self.end] - sums[self.row, self.start])

    @cached_property
    def at_edge(self) -> np.ndarray:
        """True for each blob that touches the frame, by label."""
        height, width = self.shape
        touches = (self.row == 0) | (self.row == height - 1) | (self.start == 0) | (self.end == width)
        return np.bincount(self.label, touches) > 0

    def mask(self, wanted: np.ndarray) -> np.ndarray:
        """Return the mask of the blobs that are `wanted`, by label."""
        runs = wanted[self.label]
        steps = np.zeros((self.shape[0], self.shape[1] + 1), np.int8)
        steps[self.row[runs], self.start[runs]] = 1
        steps[self.row[runs], self.end[runs]] -= 1
        return np.cumsum(steps, 1)[:, :-1] > 0


def digit(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Find the digit in ink, [height, width] of 0 to 1; return its mask, and the number of blobs that are left out."""
    blobs = Blobs.of(values > FAINT)
    ink = blobs.ink(values)
    if not ink.size:
        return values > FAINT, 0
    there = ink > 0
    inner = np.where(blobs.at_edge, 0, ink)
    if inner.max() > INNER * ink.max():
        ink = inner
    wanted = ink >= SPECK * ink.max()
    return _with_rim(blobs.mask(wanted)) & (values > RIM), int((there & ~wanted).sum())


def _with_rim(mask: np.ndarray) -> np.ndarray:
    """Return the mask with every pixel that touches it: a soft edge belongs to the line, and to MNIST's box."""
    return np.asarray(Image.fromarray(mask.astype(np.uint8)).filter(ImageFilter.MaxFilter(3))) > 0


def _touching(
    row: np.ndarray, left: np.ndarray, right: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of runs, by index, that touch from one row to the next.

    `left` and `right` are the position that a run would have in the row above. All arrays ascend, so that the runs
    above that touch a run are neighbours in the list.
    """
    first = np.searchsorted(end, left)
    counts = np.maximum(np.searchsorted(start, right, side="right") - first, 0)
    below = np.repeat(np.arange(len(row)), counts)
    above = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - first, counts)
    real = row[above] == row[below] - 1
    return above[real], below[real]


def _joined(count: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return for each of `count` items the smallest item that the pairs (`one`, `other`) connect it to."""
    label = np.arange(count)
    while True:
        smaller, larger = np.minimum(label[one], label[other]), np.maximum(label[one], label[other])
        if (smaller == larger).all():
            return label
        np.minimum.at(label, larger, smaller)
        while (label != label[label]).any():
            label = label[label]
