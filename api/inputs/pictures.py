"""Pictures: PNG and JPEG, grey or in colours. Their sizes are looked at before a pixel is decoded."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from warnings import catch_warnings, simplefilter

import numpy as np
from PIL import Image, ImageChops, ImageOps

from api.http.errors import BadInput
from ml.layers import Shape

# Width times height of one picture. Of so many pixels a grey one takes 120 MB while it is decoded, one in colours 215,
# one with transparency up to 460.
MAX_PIXELS = 32_000_000
DRAFT = 1024  # a JPEG is decoded at an eighth, a quarter or half of its size where this many pixels a side remain
OPAQUE = 255
MODES = {1: "L", 3: "RGB"}  # Pillow's, by channels
DARK, LIGHT = 85, 170  # grey levels below and from which a tone is dark or light
SOME = 1e-3  # a share of pixels that is no accident: thin lines on a large sheet


def opened(body: bytes, form: str) -> Image.Image:
    """A picture of `form`, PNG or JPEG, yet to be decoded; BadInput where it is none, or too large."""
    with _readable(form):
        picture = Image.open(io.BytesIO(body), formats=[form])
    if picture.width * picture.height > MAX_PIXELS:
        sides = f"{picture.width} × {picture.height}"
        raise BadInput("#", f"a picture of {sides} pixels; at most {MAX_PIXELS} can be read, so scale it down")
    return picture


def grey(picture: Image.Image) -> np.ndarray:
    """A picture as uint8 [height, width], upright and on paper; BadInput where it cannot be decoded."""
    return np.asarray(_flat(picture, "L"))


def at_size(picture: Image.Image, shape: Shape) -> np.ndarray:
    """A picture at a network's size, uint8 [channels, height, width], and otherwise as it is; BadInput likewise."""
    channels, height, width = shape
    if channels not in MODES:
        raise BadInput("#", f"a picture has 1 or 3 channels and the network takes {channels}; send application/x-npy")
    resized = _flat(picture, MODES[channels]).resize((width, height), Image.Resampling.BOX)
    return np.asarray(resized).reshape(height, width, channels).transpose(2, 0, 1)


@contextmanager
def _readable(form: str) -> Iterator[None]:
    """BadInput for whatever Pillow raises of a picture that is damaged, or none."""
    try:
        with catch_warnings():
            simplefilter("ignore")  # Pillow's of doubtful metadata
            yield
    except Exception as error:  # Pillow raises many kinds, SyntaxError and struct.error among them
        raise BadInput("#", f"not a {form} that can be read ({type(error).__name__}); is it whole?") from None


def _flat(picture: Image.Image, mode: str) -> Image.Image:
    """A picture decoded, in the mode L or RGB: turned as its EXIF data say, and on paper where it is transparent."""
    with _readable(str(picture.format)):
        picture.draft(mode, (DRAFT, DRAFT))
        picture.load()
        with suppress(Exception):  # what its EXIF data say cannot be read: it is taken as it is
            ImageOps.exif_transpose(picture, in_place=True)
        if picture.mode.startswith("I"):
            return _of_16_bits(picture).convert(mode)
        if not picture.has_transparency_data:
            return picture if picture.mode == mode else picture.convert(mode)
        return _on_paper(picture if picture.mode in ("LA", "RGBA") else picture.convert("RGBA"), mode)


def _on_paper(layers: Image.Image, mode: str) -> Image.Image:
    """A picture with transparency, in the mode L or RGB, on the paper that it seems to be drawn on.

    Where what is opaque is ink alone, as a drawing pad sends it, that is white, or black where the ink is light. Where
    it is dark and light it is a sheet itself, cut out: the paper is that of its edge, and what is half transparent is
    its rim or its shadow.
    """
    ink, opacity = layers.convert(mode), layers.getchannel("A")
    tones, opaque = np.asarray(ink if mode == "L" else layers.convert("L")), np.asarray(opacity) == OPAQUE
    if opaque.all():
        return ink
    if opaque.any() and _is_sheet(tones[opaque]):
        edge = opaque & _beside(~opaque)
        paper = tuple(int(np.median(np.asarray(ink.getchannel(band))[edge])) for band in ink.getbands())
        ink.paste(paper, mask=Image.fromarray(~opaque))
        return ink
    seen = tones[opaque] if opaque.any() else tones[np.asarray(opacity) > 0]
    ink.paste("black" if seen.size and seen.mean() >= OPAQUE / 2 else "white", mask=ImageChops.invert(opacity))
    return ink


def _is_sheet(tones: np.ndarray) -> bool:
    """Whether grey levels are those of ink and paper, and not of ink alone."""
    return min(float((tones < DARK).mean()), float((tones >= LIGHT).mean())) >= SOME


def _beside(mask: np.ndarray) -> np.ndarray:
    """The pixels that have one of a mask [height, width] above, below, to the left or to the right."""
    found = np.zeros_like(mask)
    found[1:] |= mask[:-1]
    found[:-1] |= mask[1:]
    found[:, 1:] |= mask[:, :-1]
    found[:, :-1] |= mask[:, 1:]
    return found


def _of_16_bits(picture: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(picture) // 257).clip(0, OPAQUE).astype(np.uint8))
