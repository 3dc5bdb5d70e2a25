"""Drawn digits, letters and symbols in MNIST's form: 20 of 28 pixels high or wide, centred by their mass."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ml.images.strokes import GLYPHS, LETTERS, draw

BOX = 20 / 28  # share of the image's side that a glyph fills: http://yann.lecun.com/exdb/mnist
LOOKALIKES = "BIOQSZbgijloqsz"  # letters that can be read as a digit
PLAIN_LETTERS = "".join(sorted(set(LETTERS) - set(LOOKALIKES)))
SYMBOLS = "&%$#@?*+=<>{}"
PEN = (0.05, 0.14)  # range of the line width, as a share of the image's side
HEIGHT = 40  # pixels; a glyph is drawn at this height and then made smaller


def glyphs(characters: str, rng: np.random.Generator, n: int, size: int) -> np.ndarray:
    """Return random characters, uint8 [n, 1, size, size]: every third as if by pen, the rest in Pillow's font."""
    chosen = [characters[i] for i in rng.integers(len(characters), size=n)]
    by_pen = [i % 3 == 0 and c in GLYPHS for i, c in enumerate(chosen)]
    drawn = [_penned(c, rng) if pen else printed(c, default_font(), rng) for c, pen in zip(chosen, by_pen, strict=True)]
    return centred(np.stack([boxed(image, size) for image in drawn]))[:, None]


@lru_cache(maxsize=1)
def default_font() -> ImageFont.FreeTypeFont:
    """Return the font that Pillow ships."""
    font = ImageFont.load_default(HEIGHT)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType; install its wheel"  # noqa: S101
    return font


def printed(character: str, font: ImageFont.FreeTypeFont, rng: np.random.Generator) -> Image.Image:
    """Return a character of a font with a random width, thickness and slant."""
    bold = int(rng.integers(3))
    left, top, right, bottom = (round(edge) for edge in font.getbbox(character, stroke_width=bold))
    height, lean = bottom - top, float(rng.uniform(-0.3, 0.3)) * (bottom - top)
    image = Image.new("L", (right - left + round(abs(lean)), height))
    ImageDraw.Draw(image).text((max(0.0, lean) - left, -top), character, 255, font, stroke_width=bold)
    slant = (1, lean / height, 0, 0, 1, 0)
    image = image.transform(image.size, Image.Transform.AFFINE, slant, Image.Resampling.BILINEAR)
    return image.resize((max(1, round(image.width * rng.uniform(0.8, 1.25))), height))


def _penned(character: str, rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(draw(character, rng, HEIGHT, rng.uniform(*PEN) * HEIGHT))


def boxed(image: Image.Image, size: int) -> np.ndarray:
    """Scale the lit part of an image to the size of MNIST's digits and put it in the middle: uint8 [size, size]."""
    image = image.crop(image.getbbox())
    shrink = BOX * size / max(image.size)
    width, height = (max(1, round(side * shrink)) for side in image.size)
    canvas = Image.new("L", (size, size))
    canvas.paste(image.resize((width, height), Image.Resampling.BOX), ((size - width) // 2, (size - height) // 2))
    return np.asarray(canvas)


def centred(images: np.ndarray) -> np.ndarray:
    """Shift each image, uint8 [n, height, width], by whole pixels until its centre of mass is in the middle.

    No lit pixel leaves the image.
    """
    for axis in (1, 2):
        mass = images.sum(3 - axis, dtype=np.int64)  # [n, length]
        places, lit = np.arange(mass.shape[1]), mass > 0
        centre = mass @ places / np.maximum(mass.sum(1), 1)
        lowest, highest = lit.argmax(1), len(places) - 1 - lit[:, ::-1].argmax(1)
        shift = np.clip(np.rint((len(places) - 1) / 2 - centre).astype(int), -lowest, len(places) - 1 - highest)
        moved = (places - shift[:, None]) % len(places)  # the source of each row or column
        images = np.take_along_axis(images, np.expand_dims(moved, 3 - axis), axis)
    return images
