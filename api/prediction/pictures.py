"""Pictures: PNG and JPEG as grey images. Their sizes are looked at before a pixel is decoded."""

import io
from warnings import catch_warnings, simplefilter

import numpy as np
from PIL import Image, ImageOps

from api.errors import BadInput
from ml.layers import Shape

MAX_PIXELS = 32_000_000  # width times height: a photograph of 32 megapixels takes 128 MB to decode, and no more
DRAFT = 1024  # a JPEG is decoded at an eighth, a quarter or half of its size where this many pixels a side remain
OPAQUE = 255


def decoded(body: bytes, form: str) -> np.ndarray:
    """A picture of `form`, PNG or JPEG, as uint8 [height, width]; BadInput where it is none, or too large.

    It is turned as its EXIF data say. What is transparent is taken for paper: white, or black where the ink is light.
    """
    try:
        with catch_warnings():
            simplefilter("ignore")  # Pillow's of doubtful metadata
            with Image.open(io.BytesIO(body), formats=[form]) as picture:
                _check_size(picture)
                picture.draft("L", (DRAFT, DRAFT))
                upright = ImageOps.exif_transpose(picture)
                return _grey(upright)
    except BadInput:
        raise
    except Exception as error:  # Pillow raises many kinds, SyntaxError and struct.error among them
        raise BadInput("#", f"not a {form} that can be read ({type(error).__name__}); is it whole?") from None


def naive(grey: np.ndarray, shape: Shape) -> np.ndarray:
    """A grey image at a network's size, uint8 [channels, height, width], and otherwise as it is."""
    channels, height, width = shape
    resized = Image.fromarray(grey).resize((width, height), Image.Resampling.BOX)
    return np.broadcast_to(np.asarray(resized), (channels, height, width))


def _check_size(picture: Image.Image) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        sides = f"{picture.width} × {picture.height}"
        raise BadInput("#", f"a picture of {sides} pixels; at most {MAX_PIXELS} can be read, so scale it down")


def _grey(picture: Image.Image) -> np.ndarray:
    if picture.mode.startswith("I;16") or picture.mode == "I":
        return _of_16_bits(picture)
    if not picture.has_transparency_data:
        return np.asarray(picture.convert("L"))
    layers = picture.convert("LA")
    ink, opacity = (np.asarray(band) for band in layers.split())
    seen = ink[opacity == OPAQUE] if (opacity == OPAQUE).any() else ink[opacity > 0]
    paper = 0 if seen.size and seen.mean() >= OPAQUE / 2 else OPAQUE
    mixed = Image.composite(layers.getchannel("L"), Image.new("L", layers.size, paper), layers.getchannel("A"))
    return np.asarray(mixed)


def _of_16_bits(picture: Image.Image) -> np.ndarray:
    return (np.asarray(picture, np.int32) // 257).clip(0, OPAQUE).astype(np.uint8)
