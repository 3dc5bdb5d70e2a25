"""Distortions of digits like those in images that people send. Each is a function from a digit and a random generator.

A digit is uint8 [28, 28], white on black, as in MNIST. The result is a grey image, uint8 [height, width] of any size.
"""

from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image, ImageFilter

from ml.images.strokes import draw

Generator = np.random.Generator
Distortion = Callable[[np.ndarray, Generator], np.ndarray]

SIDE = 28
TILT = 0.08  # the farthest that a corner moves, as a share of a photograph's side
BICUBIC = Image.Resampling.BICUBIC


def untouched(digit: np.ndarray, rng: Generator) -> np.ndarray:
    """Return the digit as it is."""
    return digit


def shifted(digit: np.ndarray, rng: Generator) -> np.ndarray:
    """Move the digit to any place in the frame that loses no ink."""
    image = np.zeros_like(digit)
    ink = _cropped(digit)
    top, left = (int(rng.integers(0, SIDE - side + 1)) for side in ink.shape)
    image[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return image


def scaled(digit: np.ndarray, rng: Generator) -> np.ndarray:
    """Scale the digit by 0.4 to 1.4 in the middle of the same frame."""
    factor = np.exp(rng.uniform(np.log(0.4), np.log(1.4)))
    return _warped(digit, np.array([[1, 0], [0, 1]]) / factor)


def rotated(digit: np.ndarray, rng: Generator) -> np.ndarray:
    """Rotate the digit by up to 15° to either side."""
    return _turned(digit, rng.uniform(-15, 15))


def inverted(digit: np.ndarray, rng: Generator) -> np.ndarray:
    """Make the digit black on white."""
    return 255 - digit


def thickened(digit: np.ndarray, rng: Generator) -> np.ndarray:
    """Widen the lines by 1.3 to 3 pixels."""
    return _wider(digit, ImageFilter.MaxFilter, rng.uniform(1.3, 3))


def thinned(digit: np.ndarray, rng: Generator) -> np.ndarray:
    """Narrow the lines by 0.7 to 1.5 pixels, without losing a line."""
    thin = _wider(digit, ImageFilter.MinFilter, rng.uniform(0.7, 1.5))
    return np.maximum(thin, _skeleton(digit))


def noisy(digit: np.ndarray, rng: Generator) -> np.ndarray:
    """Add Gaussian noise with a standard deviation of 15 to 60, and make up to 2 % of the pixels black or white."""
    return _salted(digit + rng.normal(0, rng.uniform(15, 60), digit.shape), rng.uniform(0, 0.02), rng)


def on_grey(digit: np.ndarray, rng: Generator) -> np.ndarray:
    """Put the digit on a grey of 30 to 120 that grows lighter towards one side; the ink is 60 to 135 lighter."""
    ground = rng.uniform(30, 120) + _ramp(digit.shape, rng.uniform(0, 25), rng)
    return _pixels(ground + rng.uniform(60, 135) * (digit / 255))


def mixed(digit: np.ndarray, rng: Generator) -> np.ndarray:
    """Apply the other distortions together, each with some probability, in a frame of 28 to 112 pixels."""
    image = (thickened, thinned, untouched)[rng.integers(3)](digit, rng)
    side = int(rng.integers(SIDE, 4 * SIDE + 1))
    image = _placed(image, side, rng.uniform(0.35, 0.95), rng.uniform(-15, 15), rng)
    if rng.random() < 0.5:
        image = on_grey(image, rng)
    if rng.random() < 0.5:
        image = _pixels(image + rng.normal(0, rng.uniform(3, 25), image.shape))
    return 255 - image if rng.random() < 0.5 else image


def photographed(digit: np.ndarray, rng: Generator) -> np.ndarray:
    """Imitate a photograph of pen on paper: uneven light, a shadow, perspective, blur, noise and JPEG."""
    height, width = (int(side) for side in rng.integers(300, 900, 2))
    side = int(rng.uniform(0.25, 0.8) * min(height, width))
    # MNIST's grey edges become broad when enlarged, but the edges of a pen are sharp.
    ink = np.clip(2.5 * _placed(digit, side, 0.95, rng.uniform(-15, 15), rng) / 255 - 0.75, 0, 1)
    sheet = np.zeros((height, width))
    top, left = (int(rng.uniform(TILT, 1 - TILT) * (length - side)) for length in sheet.shape)
    sheet[top : top + side, left : left + side] = ink
    paper, pen = rng.uniform(150, 250), rng.uniform(0.15, 0.6)
    light = (1 - rng.uniform(0, 0.4) * _ramp(sheet.shape, 1, rng)) * _shadow(sheet.shape, rng)
    image = _tilted(Image.fromarray(_pixels(paper * light * (1 - (1 - pen) * sheet))), rng)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2)))
    return _compressed(_pixels(np.asarray(image) + rng.normal(0, rng.uniform(1, 10), sheet.shape)), rng)


def pen_strokes(label: int, rng: Generator) -> np.ndarray:
    """Draw a digit as with a pen on the large canvas of a web page, black on white or white on black."""
    side = int(rng.integers(150, 401))
    glyph = draw(str(label), rng, side, side * rng.uniform(0.015, 0.1))
    image = _placed(glyph, side, rng.uniform(0.4, 1), 0, rng)
    return 255 - image if rng.random() < 0.5 else image


DISTORTIONS: dict[str, Distortion] = {
    "untouched": untouched,
    "shifted": shifted,
    "scaled": scaled,
    "rotated": rotated,
    "inverted": inverted,
    "thickened": thickened,
    "thinned": thinned,
    "noise": noisy,
    "grey background": on_grey,
    "mixed": mixed,
    "photographs": photographed,
}


def _pixels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _cropped(image: np.ndarray) -> np.ndarray:
    """Return the smallest box of an image with all of its ink."""
    box = Image.fromarray(image).getbbox()
    return image if box is None else image[box[1] : box[3], box[0] : box[2]]


def _warped(image: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Return the image under an affine map about its middle; `back`, [2, 2], maps the result to the source."""
    middle = np.array(image.shape[::-1]) / 2
    offset = middle - back @ middle
    data = (back[0, 0], back[0, 1], offset[0], back[1, 0], back[1, 1], offset[1])
    warped = Image.fromarray(image).transform(image.shape[::-1], Image.Transform.AFFINE, data, BICUBIC)
    return np.asarray(warped)


def _turned(image: np.ndarray, degrees: float) -> np.ndarray:
    return np.asarray(Image.fromarray(image).rotate(degrees, BICUBIC))


def _wider(digit: np.ndarray, kind: type[ImageFilter.RankFilter], by: float) -> np.ndarray:
    """Return the digit with lines wider or narrower by `by` pixels; the filter runs at eight times the size."""
    large = Image.fromarray(digit).resize((8 * SIDE, 8 * SIDE), BICUBIC)
    return np.asarray(large.filter(kind(2 * round(4 * by) + 1)).reduce(8))


def _skeleton(digit: np.ndarray) -> np.ndarray:
    """Return the thinnest lines of a digit: pixels that are the lightest of three in their row or column."""
    image = np.pad(digit, 1).astype(int)
    middle = image[1:-1, 1:-1]
    across = (middle >= image[1:-1, :-2]) & (middle > image[1:-1, 2:])
    along = (middle >= image[:-2, 1:-1]) & (middle > image[2:, 1:-1])
    return np.where((across | along) & (middle > 127), digit, 0).astype(np.uint8)


def _salted(image: np.ndarray, share: float, rng: Generator) -> np.ndarray:
    hit = rng.random(image.shape) < share
    return _pixels(np.where(hit, 255 * rng.integers(0, 2, image.shape), image))


def _ramp(shape: tuple[int, ...], height: float, rng: Generator) -> np.ndarray:
    """Return a plane that grows from 0 to `height` in a random direction."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * x / shape[1] + np.sin(angle) * y / shape[0]
    return height * (slope - slope.min()) / (slope.max() - slope.min())


def _shadow(shape: tuple[int, int], rng: Generator) -> np.ndarray:
    """Return a half plane with a soft edge and less light, or in every second case no shadow."""
    if rng.random() < 0.5:
        return np.ones(shape)
    edge = rng.uniform(0.2, 0.8)
    softness = rng.uniform(0.01, 0.1)
    return 1 - rng.uniform(0.15, 0.5) / (1 + np.exp((_ramp(shape, 1, rng) - edge) / softness))


def _placed(image: np.ndarray, side: int, share: float, degrees: float, rng: Generator) -> np.ndarray:
    """Return the ink rotated and scaled to `share` of a black frame of `side` pixels, at any place in it."""
    ink = Image.fromarray(_cropped(_turned(np.pad(image, image.shape[0] // 4), degrees)))
    factor = share * side / max(ink.size)
    ink = ink.resize([max(1, round(factor * length)) for length in ink.size], Image.Resampling.BICUBIC)
    left, top = (int(rng.integers(0, side - length + 1)) for length in ink.size)
    frame = Image.new("L", (side, side))
    frame.paste(ink, (left, top))
    return np.asarray(frame)


def _tilted(image: Image.Image, rng: Generator) -> Image.Image:
    """Return the image seen at an angle, with each corner moved independently."""
    width, height = image.size
    inset = rng.uniform(0, TILT, (4, 2)) * (width, height)
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    found = _homography(corners, corners + inwards * inset)
    return image.transform(image.size, Image.Transform.PERSPECTIVE, found, BICUBIC)


def _homography(targets: np.ndarray, sources: np.ndarray) -> tuple[float, ...]:
    """Return Pillow's eight coefficients of the perspective that maps `targets`, [4, 2], to `sources`, [4, 2]."""
    rows = []
    for (x, y), (u, v) in zip(targets, sources, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return tuple(np.linalg.solve(np.array(rows), sources.ravel()))


def _compressed(image: np.ndarray, rng: Generator) -> np.ndarray:
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=int(rng.integers(50, 96)))
    return np.asarray(Image.open(file))
