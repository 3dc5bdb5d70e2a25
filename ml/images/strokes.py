"""Digits and letters as a pen writes them: hand-made strokes, drawn with a wobble."""

from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

DIGITS = "0123456789"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

GRID = 9  # coordinates of the glyphs run from 0 to 9
OVERSAMPLING = 4  # pixels drawn for each pixel that is returned, along each axis
SMOOTHINGS = 3  # rounds of corner cutting
WOBBLE = 0.025  # standard deviation of a point's position, in heights of the glyph

# Each glyph has one or more ways to write it. A way is a list of strokes, separated by |. A stroke is a list of points:
# x to the right, y down. Lines between points are rounded; a repeated point is a sharp corner.
GLYPHS: dict[str, tuple[str, ...]] = {
    "0": ("60 30 02 07 39 69 97 92 60 40", "71 40 03 06 39 69 96 93 60 30"),
    "1": ("50 59", "23 50 50 59", "23 50 50 59|29 79"),
    "2": ("02 20 60 92 94 56 09 09 99", "02 20 60 92 94 48 18 07 37 99"),
    "3": ("01 30 70 92 84 44 44 85 97 79 39 08", "00 90 90 44 44 84 97 79 39 08"),
    "4": ("60 06 06 96|60 69", "10 05 05 95|70 69"),
    "5": ("80 10 10 04 04 54 95 97 69 29 08", "10 04 04 54 95 97 69 29 08|10 90"),
    "6": ("80 40 03 07 39 69 97 95 64 34 06", "50 12 07 29 69 97 95 65 35 07"),
    "7": ("00 90 90 39", "00 90 90 39|25 75", "02 00 00 90 90 49"),
    "8": ("82 60 30 12 33 65 97 69 29 07 35 63 82", "50 21 12 34 64 82 60 50|54 25 07 29 69 97 75 54"),
    "9": ("92 60 20 02 04 25 65 93 91 91 89", "92 60 20 02 04 25 65 93 91 91 97 69 29 08"),
    "A": ("09 50 50 99|26 76",),
    "B": ("00 09|00 60 92 64 04 04 64 97 69 09",),
    "C": ("92 60 30 02 07 39 69 98",),
    "D": ("00 09|00 50 93 96 59 09",),
    "E": ("90 00 00 09 09 99|04 74",),
    "F": ("90 00 00 09|04 74",),
    "G": ("92 60 30 02 07 39 69 97 95 95 55",),
    "H": ("00 09|90 99|04 94",),
    "I": ("50 59|20 80|29 79", "50 59"),
    "J": ("40 90|70 77 59 29 07", "80 87 59 29 07"),
    "K": ("00 09|80 05 05 99",),
    "L": ("00 09 09 99",),
    "M": ("09 00 00 56 56 90 90 99",),
    "N": ("09 00 00 99 99 90",),
    "O": ("60 30 02 07 39 69 97 92 60 40",),
    "P": ("09 00 00 70 92 93 75 05",),
    "Q": ("60 30 02 07 39 69 97 92 60 40|66 99",),
    "R": ("09 00 00 70 92 93 75 05 05 35 35 99",),
    "S": ("91 60 20 02 24 65 97 69 29 08",),
    "T": ("00 90|50 59",),
    "U": ("00 06 39 69 96 90",),
    "V": ("00 59 59 90",),
    "W": ("00 29 29 53 53 79 79 90",),
    "X": ("00 99|90 09",),
    "Y": ("00 54 54 90|54 59",),
    "Z": ("00 90 90 09 09 99", "00 90 90 09 09 99|25 75"),
    "a": ("81 50 20 04 07 39 69 86|80 87 99", "12 40 70 83 83 89|84 44 15 07 29 59 86"),
    "b": ("00 09|06 34 74 96 97 79 39 07", "00 09 09 79 97 95 74 34 06"),
    "c": ("82 50 20 03 07 39 69 88",),
    "d": ("90 99|96 64 24 06 07 29 69 97",),
    "e": ("05 95 95 92 60 30 03 07 39 69 98",),
    "f": ("90 60 42 49|14 74",),
    "g": ("83 50 20 02 04 26 56 83|81 87 69 29 08",),
    "h": ("00 09|05 43 73 85 89",),
    "i": ("43 49|40 41",),
    "j": ("63 68 49 19|60 61",),
    "k": ("00 09|73 06 06 89",),
    "l": ("40 47 59 79", "40 49"),
    "m": ("03 09|05 23 44 49|45 63 94 99",),
    "n": ("03 09|05 43 83 95 99",),
    "o": ("50 20 03 06 29 69 96 93 70 50",),
    "p": ("00 09|02 30 70 92 94 75 35 04",),
    "q": ("90 99|92 60 20 02 04 25 65 94",),
    "r": ("03 09|06 34 73 84",),
    "s": ("81 50 20 02 34 65 87 69 29 08",),
    "t": ("40 47 59 79|13 73",),
    "u": ("00 06 39 69 96|90 99",),
    "v": ("00 59 59 90",),
    "w": ("00 29 29 53 53 79 79 90",),
    "x": ("00 99|90 09",),
    "y": ("00 45|90 19", "00 03 25 65 93|90 96 79 39"),
    "z": ("00 90 90 09 09 99",),
}


def draw(glyph: str, rng: np.random.Generator, size: int, pen: float) -> np.ndarray:
    """Draw a glyph as if by hand, white on black: uint8 [size, size].

    The glyph is in the middle, about 0.7 × `size` high, with lines `pen` pixels wide. `rng` chooses the way to write
    it, its proportions, slant and wobble.

    Raises:
        KeyError: if there is no such glyph.
    """
    scale = size * OVERSAMPLING
    canvas = Image.new("L", (scale, scale))
    pencil = ImageDraw.Draw(canvas)
    for points in written(glyph, rng):
        _line(pencil, scale * (0.5 + 0.7 * points), max(1, round(pen * OVERSAMPLING)))
    return np.asarray(canvas.reduce(OVERSAMPLING))


def written(glyph: str, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the strokes of a glyph, each float64 [n, 2] with x and y around 0; the glyph is about 1 high."""
    ways = GLYPHS[glyph]
    aspect, slant = rng.uniform(0.55, 0.85), rng.uniform(-0.1, 0.3)
    strokes = []
    for stroke in ways[rng.integers(len(ways))].split("|"):
        x, y = np.array([[int(c) for c in point] for point in stroke.split()]).T / GRID - 0.5
        points = np.stack([aspect * x - slant * y, y], 1)
        _, same = np.unique(points, axis=0, return_inverse=True)  # a corner is a repeated point and stays one
        strokes.append(_rounded(points + rng.normal(0, WOBBLE, points.shape)[same.ravel()]))
    return strokes


def _rounded(points: np.ndarray) -> np.ndarray:
    """Return a smooth line along the points, by Chaikin's corner cutting; the ends stay."""
    for _ in range(SMOOTHINGS):
        before, after = points[:-1], points[1:]
        cut = np.stack([0.75 * before + 0.25 * after, 0.25 * before + 0.75 * after], 1).reshape(-1, 2)
        points = np.concatenate([points[:1], cut, points[-1:]])
    return points


def _line(pencil: ImageDraw.ImageDraw, points: np.ndarray, width: int) -> None:
    """Draw a line with round ends and joints."""
    for (x0, y0), (x1, y1) in pairwise(points.tolist()):
        pencil.line([x0, y0, x1, y1], fill=255, width=width)
    for x, y in points.tolist():
        pencil.circle((x, y), width / 2, fill=255)
