"""Pictures: PNG and JPEG, grey or in colour. Their size is checked before a pixel is decoded."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from warnings import catch_warnings, simplefilter

import numpy as np
from PIL import Image, ImageChops, ImageOps

from api.http.errors import BadInput
from ml.layers import Shape

# Width times height of one picture. While it is decoded, a grey picture of this size takes 120 MB, one in colour 215
# MB, and one with transparency up to 460 MB.
MAX_PIXELS = 32_000_000
DRAFT = 1024  # a JPEG is decoded at 1/8, 1/4 or 1/2 of its size if this many pixels a side remain
OPAQUE = 255
MODES = {1: "L", 3: "RGB"}  # Pillow's, by channels
DARK, LIGHT = 85, 170  # grey levels below and from which a tone is dark or light
SOME = 1e-3  # the least share of pixels that is more than an accident, such as thin lines on a large sheet


def opened(body: bytes, form: str) -> Image.Image:
    """Open a picture of `form`, PNG or JPEG, without decoding it.

    Raises:
        BadInput: if it is damaged, of another form or too large.
    """
    with _readable(form):
        picture = Image.open(io.BytesIO(body), formats=[form])
    if picture.width * picture.height > MAX_PIXELS:
        sides = f"{picture.width} × {picture.height}"
        raise BadInput("#", f"too large, {sides} pixels; scale it down to at most {MAX_PIXELS:,} in all")
    return picture


def grey(picture: Image.Image) -> np.ndarray:
    """Decode a picture as grey levels, uint8 [height, width], upright and without transparency.

    Raises:
        BadInput: if it is damaged.
    """
    return np.asarray(_flat(picture, "L"))


def at_size(picture: Image.Image, shape: Shape) -> np.ndarray:
    """Decode a picture and resize it to a network's shape, uint8 [channels, height, width].

    Raises:
        BadInput: if it is damaged, or the network takes neither 1 nor 3 channels.
    """
    channels, height, width = shape
    if channels not in MODES:
        raise BadInput("#", f"the network takes {channels} channels and a picture has 1 or 3; send application/x-npy")
    resized = _flat(picture, MODES[channels]).resize((width, height), Image.Resampling.BOX)
    return np.asarray(resized).reshape(height, width, channels).transpose(2, 0, 1)


@contextmanager
def _readable(form: str) -> Iterator[None]:
    """Turn any error of Pillow into a BadInput: it raises many kinds for a damaged picture."""
    try:
        with catch_warnings():
            simplefilter("ignore")  # Pillow's warnings of doubtful metadata
            yield
    except Exception as error:
        raise BadInput(
            "#", f"not a readable {form} ({type(error).__name__}); check that the file is complete"
        ) from None


def _flat(picture: Image.Image, mode: str) -> Image.Image:
    """Decode a picture in the mode L or RGB, turned as its EXIF data say, with paper behind transparent pixels."""
    with _readable(str(picture.format)):
        picture.draft(mode, (DRAFT, DRAFT))
        picture.load()
        with suppress(Exception):  # unreadable EXIF data: the picture is left as it is
            ImageOps.exif_transpose(picture, in_place=True)
        if picture.mode.startswith("I"):
            return _of_16_bits(picture).convert(mode)
        if not picture.has_transparency_data:
            return picture if picture.mode == mode else picture.convert(mode)
        return _on_paper(picture if picture.mode in ("LA", "RGBA") else picture.convert("RGBA"), mode)


def _on_paper(layers: Image.Image, mode: str) -> Image.Image:
    """Put a picture with transparency, in the mode L or RGB, on the paper that it seems to be drawn on.

    If the opaque pixels are ink alone, as a drawing pad sends them, the paper is white, or black for light ink. If
    they are both dark and light, they are a sheet of paper that was cut out. The paper then gets the colour of the
    sheet's edge, and half-transparent pixels are the sheet's rim or shadow.
    """
    ink, opacity = layers.convert(mode), layers.getchannel("A")
    tones, opaque = np.asarray(ink if mode == "L" else layers.convert("L")), np.asarray(opacity) == OPAQUE
    if opaque.all():
        return ink
    if opaque.any() and _is_sheet(tones[opaque]):
        edge = opaque & _neighbours(~opaque)
        paper = tuple(int(np.median(np.asarray(ink.getchannel(band))[edge])) for band in ink.getbands())
        ink.paste(paper, mask=Image.fromarray(~opaque))
        return ink
    seen = tones[opaque] if opaque.any() else tones[np.asarray(opacity) > 0]
    ink.paste("black" if seen.size and seen.mean() >= OPAQUE / 2 else "white", mask=ImageChops.invert(opacity))
    return ink


def _is_sheet(tones: np.ndarray) -> bool:
    """Return whether grey levels are those of ink and paper rather than of ink alone."""
    return min(float((tones < DARK).mean()), float((tones >= LIGHT).mean())) >= SOME


def _neighbours(mask: np.ndarray) -> np.ndarray:
    """Return the pixels next to a mask [height, width]: above, below, left or right of it."""
    found = np.zeros_like(mask)
    found[1:] |= mask[:-1]
    found[:-1] |= mask[1:]
    found[:, 1:] |= mask[:, :-1]
    found[:, :-1] |= mask[:, 1:]
    return found


def _of_16_bits(picture: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(picture) // 257).clip(0, OPAQUE).astype(np.uint8))
