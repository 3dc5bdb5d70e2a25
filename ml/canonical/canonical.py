"""The input canonicaliser: whatever people send of a digit, brought to the form that the networks were trained on.

An image is looked at as a whole, and once more from nearer where its ink is a small part of it; then its lines, its
slant, its size and its place are made those of the data set. One that is in form already stays as it is, byte for byte.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ml.canonical.blobs import digit
from ml.canonical.frame import (
    MNIST,
    DigitForm,
    box_of,
    centre_of,
    cropped,
    drawn,
    excess_of,
    fitted,
    is_in_form,
    lean_of,
    placed,
    sheared,
)
from ml.canonical.paper import Ink, ink_of, reduced
from ml.canonical.pen import LARGER, change, widened, width_of

LOOK = 256  # pixels of the longer side that an image is looked at with
NEAR = 64  # ink that is smaller than this, of an image that was reduced, is looked at again
MARGIN = 0.35  # of the ink's size: what is seen around it from near
EVEN, QUIET = 8, 3  # grey levels of background and of noise that are not worth a word


@dataclass(frozen=True)
class InputReport:
    """What was found in an image and changed. Figures are those of the image as it came."""

    changed: tuple[str, ...] = ()  # in plain words, in the order in which it was done
    found: bool = True  # whether anything stands out from the ground
    inverted: bool = False  # whether it was dark on light
    background: float = 0.0  # the grey level that was taken away, 0 to 255
    uneven: float = 0.0  # by how many grey levels the background's lightest and darkest tenths differ
    noise: float = 0.0  # standard deviation in grey levels
    specks: int = 0  # blobs that were left out
    lean: float = 0.0  # pixels to the right a pixel upwards that were taken from its slant
    scale: float = 1.0  # pixels of the form for a pixel of the image
    shift: tuple[float, float] = (0.0, 0.0)  # to the right and down, pixels of the image, from its place to the middle
    stroke_width: tuple[float, float] = (0.0, 0.0)  # before and after, pixels of the form


@dataclass(frozen=True)
class Canonical:
    """An image in form, and what it took."""

    pixels: np.ndarray  # uint8 [form.height, form.width], white on black
    report: InputReport


@dataclass(frozen=True)
class _Look:
    """The digit as it was found, from far or from near."""

    ink: Ink
    digit: np.ndarray  # float32 [height, width], 0 to 1, cropped to what is not zero
    specks: int
    left: float  # of its box, in pixels of the image
    top: float
    zoom: float  # pixels of the image for one of the digit's


def canonical(grey: np.ndarray, form: DigitForm = MNIST) -> Canonical:
    """A grey image, uint8 [height, width] of any size, in the form of a data set."""
    if is_in_form(grey, form):
        width = width_of(grey / np.float32(255))
        return Canonical(grey.copy(), InputReport(stroke_width=(round(width, 2), round(width, 2))))
    look = _found(grey)
    if look is None:
        blank = InputReport(("nothing stands out from the background: the image is blank",), found=False)
        return Canonical(np.zeros((form.height, form.width), np.uint8), blank)
    excess = excess_of(lean_of(look.digit))
    upright = sheared(look.digit, excess) if excess else look.digit
    before, pixels = _drawn(upright, form)
    report = _report(grey, look, excess, (before, width_of(pixels / np.float32(255))), form)
    return Canonical(placed(pixels, form), report)


def _drawn(ink: np.ndarray, form: DigitForm) -> tuple[float, np.ndarray]:
    """The width of the ink's lines, and the ink as bytes in the form's box with lines as wide as they should be."""
    width = width_of(fitted(ink, form.box))
    by = change(width, form.box)
    if by:
        changed = cropped(widened(fitted(ink, LARGER * form.box), by))
        ink = changed if changed.size and changed.max() > 0.5 else ink  # lines that would vanish stay
    return width, drawn(ink, form)


def _found(grey: np.ndarray) -> _Look | None:
    """The digit from as near as it can be seen whole; None where there is none."""
    look = _look(grey, 0, 0)
    if look is None or look.zoom == 1 or max(look.digit.shape) >= NEAR:
        return look
    height, width = (look.zoom * side for side in look.digit.shape)
    margin = MARGIN * max(height, width)
    left, top = (max(0, int(start - margin)) for start in (look.left, look.top))
    right, bottom = int(look.left + width + margin) + 1, int(look.top + height + margin) + 1
    return _look(grey[top:bottom, left:right], left, top) or look


def _look(grey: np.ndarray, left: int, top: int) -> _Look | None:
    """The digit of a part of an image that begins at `left` and `top`."""
    if not grey.size:
        return None
    image = reduced(Image.fromarray(np.ascontiguousarray(grey)), LOOK)
    ink = ink_of(image)
    if ink is None:
        return None
    mask, specks = digit(ink.values)
    if not mask.any():
        return None
    box, zoom = box_of(mask), grey.shape[1] / image.width
    found = np.where(mask, ink.values, 0)[box[1] : box[3], box[0] : box[2]]
    return _Look(ink, found, specks, left + zoom * box[0], top + zoom * box[1], zoom)


def _report(
    grey: np.ndarray, look: _Look, excess: float, stroke_width: tuple[float, float], form: DigitForm
) -> InputReport:
    x, y = centre_of(look.digit)
    # The middle is the form's middle pixel, which lies half a pixel beside that of the frame where its sides are even.
    across, down = ((side // 2 + 0.5) / side for side in (form.width, form.height))
    shift = (
        across * grey.shape[1] - look.left - look.zoom * (x + 0.5),
        down * grey.shape[0] - look.top - look.zoom * (y + 0.5),
    )
    report = InputReport(
        inverted=look.ink.inverted,
        background=round(look.ink.ground, 1),
        uneven=round(look.ink.uneven, 1),
        noise=round(look.ink.noise, 1),
        specks=look.specks,
        lean=round(excess, 2),
        scale=round(form.box / (look.zoom * max(look.digit.shape)), 3),
        shift=(round(shift[0], 1), round(shift[1], 1)),
        stroke_width=(round(stroke_width[0], 2), round(stroke_width[1], 2)),
    )
    return replace(report, changed=tuple(_changes(report, form.box)))


def _changes(report: InputReport, box: int) -> Iterator[str]:
    """What was changed, a clause for each, leaving out what nobody would see."""
    if report.inverted:
        yield "dark ink on a light background became light ink on a dark one"
    if EVEN < report.background < 255 - EVEN:
        yield f"a background of grey level {report.background:.0f} was taken away"
    if report.uneven > EVEN:
        yield f"light that was uneven by {report.uneven:.0f} grey levels was evened out"
    if report.noise > QUIET:
        yield f"noise of {report.noise:.0f} grey levels was taken away"
    if report.specks:
        yield f"{report.specks} specks or shadows beside the digit were left out"
    if report.lean:
        yield f"a slant of {report.lean:g} was taken back"
    if report.scale != 1:
        yield f"it was scaled by {report.scale:g}"
    if max(map(abs, report.shift)) >= 1:
        yield f"it was moved by {report.shift[0]:g} to the right and {report.shift[1]:g} down"
    before, after = report.stroke_width
    if change(before, box):
        yield f"its lines were made {after:g} pixels wide, after {before:g}"
