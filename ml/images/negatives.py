"""Negatives: images unlike those of a data set, made from its own images or from noise and shapes.

A network that tells a data set's images from these also tells them from other images: Hendrycks et al., Deep Anomaly
Detection with Outlier Exposure (2019). Each kind is a function (generator, images of the data set uint8
[m, channels, height, width], n) → uint8 [n, channels, height, width].
"""

from collections.abc import Callable

import numpy as np

from ml.registry import Registry

Kind = Callable[[np.random.Generator, np.ndarray, int], np.ndarray]

MAX_WAVES = 4

negatives: Registry[Kind] = Registry("kind of negative")


@negatives.register("flat")
def flat(rng: np.random.Generator, images: np.ndarray, n: int) -> np.ndarray:
    """Return images of one grey each; every other image is black."""
    greys = rng.integers(0, 256, (n, 1, 1, 1)) * (np.arange(n) % 2)[:, None, None, None]
    return _repeated(greys, images)


@negatives.register("noise")
def noise(rng: np.random.Generator, images: np.ndarray, n: int) -> np.ndarray:
    """Return images of noise, each pixel uniform between two greys of the image."""
    low, high = np.sort(rng.uniform(0, 255, (2, n, 1, 1, 1)), axis=0)
    return rng.uniform(low, high, (n, *images.shape[1:])).astype(np.uint8)


@negatives.register("waves")
def waves(rng: np.random.Generator, images: np.ndarray, n: int) -> np.ndarray:
    """Return sums of one to four plane waves, three pixels to the whole image long: stripes and textures."""
    rows, columns = np.indices(images.shape[2:], np.float32)
    shape = (MAX_WAVES, n, 1, 1)
    angle, phase = rng.uniform(0, 2 * np.pi, (2, *shape)).astype(np.float32)
    length = np.geomspace(3, max(images.shape[2:]), 64, dtype=np.float32)[rng.integers(64, size=shape)]
    used = np.arange(MAX_WAVES)[:, None, None, None] < rng.integers(1, MAX_WAVES + 1, (n, 1, 1))
    along = (rows * np.sin(angle) + columns * np.cos(angle)) * (np.float32(2 * np.pi) / length) + phase
    return _repeated(_stretched((used * np.sin(along)).sum(0))[:, None], images)


@negatives.register("shapes")
def shapes(rng: np.random.Generator, images: np.ndarray, n: int) -> np.ndarray:
    """Return filled superellipses, from ellipse to rectangle, rotated, of any grey but the darkest."""
    height, width = images.shape[2:]
    rows, columns = np.indices((height, width))
    centre = rng.uniform(0.35, 0.65, (2, n, 1, 1))
    half = rng.uniform(0.12, 0.45, (2, n, 1, 1)) * min(height, width)
    angle, power = rng.uniform(0, np.pi, (n, 1, 1)), rng.choice([2.0, 3.0, 20.0], (n, 1, 1))
    y, x = rows - centre[0] * height, columns - centre[1] * width
    u, v = y * np.cos(angle) + x * np.sin(angle), x * np.cos(angle) - y * np.sin(angle)
    radius = (np.abs(u / half[0]) ** power + np.abs(v / half[1]) ** power) ** (1 / power)
    inside = np.clip((1 - radius) * half.min(0) + 0.5, 0, 1)  # the edge about a pixel wide
    return _repeated((rng.uniform(80, 255, (n, 1, 1)) * inside)[:, None], images)


@negatives.register("rolled")
def rolled(rng: np.random.Generator, images: np.ndarray, n: int) -> np.ndarray:
    """Return images whose halves are swapped: left and right, top and bottom, or both."""
    found, height, width = _drawn(rng, images, n), *images.shape[2:]
    ways = ((height // 2, 0), (0, width // 2), (height // 2, width // 2))
    groups = np.array_split(found, len(ways))
    return np.concatenate([np.roll(group, way, (2, 3)) for group, way in zip(groups, ways, strict=True)])


@negatives.register("halves")
def halves(rng: np.random.Generator, images: np.ndarray, n: int) -> np.ndarray:
    """Return images made of the left half of one image and the right half of another."""
    middle = images.shape[3] // 2
    left, right = _drawn(rng, images, n), _drawn(rng, images, n)
    return np.concatenate([left[..., :middle], right[..., middle:]], 3)


@negatives.register("several")
def several(rng: np.random.Generator, images: np.ndarray, n: int) -> np.ndarray:
    """Return images that show two: side by side, one above the other, or side by side at half the size."""
    thirds = np.array_split(np.arange(n), 3)
    pairs = [(_drawn(rng, images, len(third)), _drawn(rng, images, len(third))) for third in thirds]
    small = [_halved(image, 2) for image in pairs[2]]
    made = [
        np.concatenate([_halved(image, 3) for image in pairs[0]], 3),
        np.concatenate([_halved(image, 2) for image in pairs[1]], 2),
        np.concatenate([_halved(image, 3) for image in small], 3),
    ]
    return np.concatenate([_framed(each, images.shape[2:]) for each in made])


def _drawn(rng: np.random.Generator, images: np.ndarray, n: int) -> np.ndarray:
    chosen: np.ndarray = images[rng.integers(len(images), size=n)]
    return chosen


def _repeated(greys: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return greys, [n, 1, …], broadcast to the shape of the images."""
    return np.ascontiguousarray(np.broadcast_to(greys, (len(greys), *images.shape[1:])), np.uint8)


def _stretched(values: np.ndarray) -> np.ndarray:
    """Stretch the values of each image, [n, height, width], to 0..255."""
    low, high = values.min((1, 2), keepdims=True), values.max((1, 2), keepdims=True)
    stretched: np.ndarray = 255 * (values - low) / np.maximum(high - low, 1e-6)
    return stretched


def _halved(images: np.ndarray, axis: int) -> np.ndarray:
    """Halve the images along an axis; a last odd row is left out."""
    pixels = np.moveaxis(images, axis, 0)
    whole = len(pixels) // 2 * 2
    means = (pixels[:whole:2].astype(np.uint16) + pixels[1:whole:2]) // 2
    return np.moveaxis(means.astype(np.uint8), 0, axis)


def _framed(images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Put smaller images in the middle of black ones of this height and width."""
    missing = [whole - side for whole, side in zip(shape, images.shape[2:], strict=True)]
    around = [(each // 2, each - each // 2) for each in missing]
    return np.pad(images, ((0, 0), (0, 0), *around))
