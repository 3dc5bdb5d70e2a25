"""The input canonicaliser: it brings any image of a digit to the form that the networks were trained on.

The digit is found in the whole image, and if it is small, once more at a higher resolution. Then its lines, slant, size
and place are adapted to the data set. An image that already has the form is returned unchanged, byte for byte.
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

LOOK = 256  # pixels of the longer side to which an image is reduced for the search
NEAR = 64  # pixels; if the ink of a reduced image is smaller, the search is repeated at a higher resolution
MARGIN = 0.35  # of the ink's size: the surroundings that this second search includes
EVEN, QUIET = 8, 3  # grey levels of background and of noise up to which they are not reported


@dataclass(frozen=True)
class InputReport:
    """The properties of an image as it was received, and the changes that were made."""

    changed: tuple[str, ...] = ()  # each change in plain English, in order
    found: bool = True  # False if nothing stands out from the background
    inverted: bool = False  # True if it was dark on light
    background: float = 0.0  # the grey level that was removed, 0 to 255
    uneven: float = 0.0  # the difference between the background's lightest and darkest tenths, in grey levels
    noise: float = 0.0  # standard deviation in grey levels
    specks: int = 0  # number of blobs that were left out
    lean: float = 0.0  # the slant that was corrected, in pixels to the right per pixel upwards
    scale: float = 1.0  # pixels of the form per pixel of the image
    shift: tuple[float, float] = (0.0, 0.0)  # from its place to the middle, right and down, in pixels of the image
    stroke_width: tuple[float, float] = (0.0, 0.0)  # before and after, in pixels of the form


@dataclass(frozen=True)
class Canonical:
    """An image in the form of a data set, and the report on it."""

    pixels: np.ndarray  # uint8 [form.height, form.width], white on black
    report: InputReport


@dataclass(frozen=True)
class _Look:
    """The digit as it was found, at some resolution."""

    ink: Ink
    digit: np.ndarray  # float32 [height, width], 0 to 1, cropped to its ink
    specks: int
    left: float  # of its box, in pixels of the image
    top: float
    zoom: float  # pixels of the image per pixel of `digit`


def canonical(grey: np.ndarray, form: DigitForm = MNIST) -> Canonical:
    """Return a grey image, uint8 [height, width] of any size, in the form of a data set."""
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
    """Return the width of the ink's lines, and the ink as bytes in the form's box, with lines of a usual width."""
    width = width_of(fitted(ink, form.box))
    by = change(width, form.box)
    if by:
        changed = cropped(widened(fitted(ink, LARGER * form.box), by))
        ink = changed if changed.size and changed.max() > 0.5 else ink  # keep lines that would vanish
    return width, drawn(ink, form)


def _found(grey: np.ndarray) -> _Look | None:
    """Return the digit at the highest resolution that shows all of it; None if there is none."""
    look = _look(grey, 0, 0)
    if look is None or look.zoom == 1 or max(look.digit.shape) >= NEAR:
        return look
    height, width = (look.zoom * side for side in look.digit.shape)
    margin = MARGIN * max(height, width)
    left, top = (max(0, int(start - margin)) for start in (look.left, look.top))
    right, bottom = int(look.left + width + margin) + 1, int(look.top + height + margin) + 1
    return _look(grey[top:bottom, left:right], left, top) or look


def _look(grey: np.ndarray, left: int, top: int) -> _Look | None:
    """Return the digit in a crop of an image whose upper left corner is at `left` and `top`; None if there is none."""
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
    # The middle is the form's middle pixel. If a side is even, it is half a pixel off the middle of the frame.
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
    """Yield a clause for each visible change."""
    if report.inverted:
        yield "dark ink on a light background became light ink on a dark one"
    if EVEN < report.background < 255 - EVEN:
        yield f"background of grey level {report.background:.0f} removed"
    if report.uneven > EVEN:
        yield f"light that was uneven by {report.uneven:.0f} grey levels evened out"
    if report.noise > QUIET:
        yield f"noise of {report.noise:.0f} grey levels removed"
    if report.specks:
        yield f"specks or shadows left out: {report.specks}"
    if report.lean:
        yield f"slant of {report.lean:g} corrected"
    if report.scale != 1:
        yield f"scaled by {report.scale:g}"
    right, down = report.shift
    if max(abs(right), abs(down)) >= 1:
        sideways, vertical = "left" if right < 0 else "right", "up" if down < 0 else "down"
        yield f"shifted {abs(right):g} px {sideways} and {abs(down):g} px {vertical}"
    before, after = report.stroke_width
    if change(before, box):
        yield f"lines changed from {before:g} to {after:g} px wide"
