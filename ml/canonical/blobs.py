"""The blobs of an image, pixels that touch one another: which are the digit, and which are specks and shadows."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageFilter

FAINT = 0.12  # ink from which a pixel belongs to a blob
RIM = 0.03  # ink from which a pixel beside a blob does, too
SPECK = 0.04  # of the largest blob's ink: what has less is no part of the digit
INNER = 0.1  # of the largest blob's ink: where a blob inside of the frame has more, those at its edge are not the digit


@dataclass(frozen=True)
class Blobs:
    """The blobs of a mask, by runs: pixels of a row that lie side by side."""

    shape: tuple[int, int]
    row: np.ndarray  # int64 [runs]
    start: np.ndarray  # int64 [runs], the run's first column
    end: np.ndarray  # int64 [runs], the column after its last
    label: np.ndarray  # int64 [runs], the number of the blob's first run

    @classmethod
    def of(cls, mask: np.ndarray) -> "Blobs":
        """The blobs of a boolean mask [height, width]; pixels touch along sides and at corners."""
        stride = mask.shape[1] + 1  # as rows lie in one line, with a gap between them
        padded = np.zeros((mask.shape[0], stride + 1), np.int8)
        padded[:, 1:-1] = mask
        steps = np.diff(padded, axis=1).ravel()
        start, end = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
        row = start // stride
        label = _joined(len(row), *_touching(row, start - stride, end - stride, start, end))
        return cls(mask.shape, row, start - row * stride, end - row * stride, label)

    def ink(self, values: np.ndarray) -> np.ndarray:
        """The sum of `values`, [height, width], over each blob, by label."""
        sums = np.pad(np.cumsum(values, 1, dtype=float), ((0, 0), (1, 0)))
        return np.bincount(self.label, sums[self.row, self.end] - sums[self.row, self.start])

    @cached_property
    def at_edge(self) -> np.ndarray:
        """Whether each blob touches the frame, by label."""
        height, width = self.shape
        touches = (self.row == 0) | (self.row == height - 1) | (self.start == 0) | (self.end == width)
        return np.bincount(self.label, touches) > 0

    def mask(self, wanted: np.ndarray) -> np.ndarray:
        """The pixels of the blobs that are `wanted`, by label."""
        runs = wanted[self.label]
        steps = np.zeros((self.shape[0], self.shape[1] + 1), np.int8)
        steps[self.row[runs], self.start[runs]] = 1
        steps[self.row[runs], self.end[runs]] -= 1
        return np.cumsum(steps, 1)[:, :-1] > 0


def digit(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Which pixels of ink, [height, width] of 0 to 1, are the digit; and how many blobs were left out."""
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
    """The mask and every pixel that touches it: a soft edge is part of the line, and of MNIST's box."""
    return np.asarray(Image.fromarray(mask.astype(np.uint8)).filter(ImageFilter.MaxFilter(3))) > 0


def _touching(
    row: np.ndarray, left: np.ndarray, right: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of runs, each as an index, that touch from one row to the next.

    `left` and `right` are where a run would lie in the row above; all of them ascend, so that the runs above which
    touch it are neighbours in the list.
    """
    first = np.searchsorted(end, left)
    counts = np.maximum(np.searchsorted(start, right, side="right") - first, 0)
    below = np.repeat(np.arange(len(row)), counts)
    above = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - first, counts)
    real = row[above] == row[below] - 1
    return above[real], below[real]


def _joined(count: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """For each of `count` things the smallest that it is joined to by the pairs (`one`, `other`)."""
    label = np.arange(count)
    while True:
        smaller, larger = np.minimum(label[one], label[other]), np.maximum(label[one], label[other])
        if (smaller == larger).all():
            return label
        np.minimum.at(label, larger, smaller)
        while (label != label[label]).any():
            label = label[label]
