"""The input canonicaliser keeps images in canonical form, brings all others into it, and never fails."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageFilter
from scipy import ndimage
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.images.distortions import DISTORTIONS, pen_strokes
from ml.canonical.blobs import Blobs
from ml.canonical.canonical import Canonical, InputReport, canonical
from ml.canonical.frame import MNIST, DigitForm, box_of, form_of
from ml.canonical.pen import THICKEST, THINNEST, widened, width_of
from ml.datasets import Arrays, data_split
from ml.images.strokes import draw

GAINS = {"shifted": 0.5, "scaled": 0.3, "inverted": 0.8, "thickened": 0.1, "mixed": 0.5, "photographs": 0.5}
DISTORTED = [name for name in DISTORTIONS if name != "untouched"]


Pictures = Callable[[str], list[tuple[np.ndarray, Canonical]]]


@pytest.fixture(scope="module")
def validation(mnist: Arrays) -> Arrays:
    """Return a thousand of MNIST's validation digits."""
    return mnist.take(data_split(len(mnist), 10_000, "random", 0).validation[:1000])


@pytest.fixture(scope="module")
def sample(validation: Arrays) -> np.ndarray:
    """Return forty of the validation digits, uint8 [40, 28, 28]."""
    return validation.images[:40, 0]


def distorted(family: str, digits: np.ndarray) -> list[np.ndarray]:
    """Return digits with the distortions of a family, the same ones every time."""
    rng = np.random.default_rng(3)
    return [DISTORTIONS[family](digit, rng) for digit in digits]


@pytest.fixture(scope="module")
def pictures(sample: np.ndarray) -> Pictures:
    """Return a function that gives forty images of a family with their canonical forms."""

    @cache
    def of(family: str) -> list[tuple[np.ndarray, Canonical]]:
        rng = np.random.default_rng(4)
        images = [pen_strokes(i % 10, rng) for i in range(40)] if family == "pen strokes" else distorted(family, sample)
        return [(image, canonical(image)) for image in images]

    return of


def on_canvas(digit: np.ndarray, top: int, left: int, side: int = 100) -> np.ndarray:
    """Return a digit on a large black canvas."""
    canvas = np.zeros((side, side), np.uint8)
    canvas[top : top + 28, left : left + 28] = digit
    return canvas


def larger(digit: np.ndarray, factor: int) -> np.ndarray:
    """Return a digit at several times its size."""
    side = 28 * factor
    return np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC))


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean difference of two images, as a share of the ink of the first."""
    return float(np.abs(one.astype(float) - other).sum() / one.sum())


def difference_in_place(one: np.ndarray, other: np.ndarray) -> float:
    """Return the difference after the second image is shifted by at most a pixel to fit best."""
    steps = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    return min(difference(one, np.roll(other, step, (0, 1))) for step in steps)


def test_mnist_passes_unchanged(validation: Arrays) -> None:
    """Of a thousand digits at least 995 come out byte for byte, and their reports name no change."""
    found = [canonical(image) for image in validation.images[:, 0]]
    same = [np.array_equal(f.pixels, image) for f, image in zip(found, validation.images[:, 0], strict=True)]

    assert sum(same) >= 995
    assert all((f.report.changed == ()) == unchanged for f, unchanged in zip(found, same, strict=True))


def test_the_result_is_a_copy(sample: np.ndarray) -> None:
    """An image in canonical form is copied, so that a change to the answer does not change the request."""
    image = sample[0].copy()
    canonical(image).pixels[:] = 7

    assert np.array_equal(image, sample[0])


def test_an_inverted_digit_is_inverted_back(validation: Arrays) -> None:
    """An inverted digit is detected, and comes out equal within 2 % of its ink if nothing else is unusual.

    A digit whose centre of mass lies between two pixels may be centred on either.
    """
    usual = 0
    for digit in validation.images[:200, 0]:
        found = canonical(255 - digit)
        alone = len(found.report.changed) == 1
        usual += alone

        assert found.report.inverted
        assert not alone or difference_in_place(digit, found.pixels) < 0.02
    assert usual > 60


@pytest.mark.long
@pytest.mark.parametrize("family", [family for family in DISTORTED if family != "mixed"])
def test_light_and_dark_ink_are_distinguished(family: str, pictures: Pictures) -> None:
    """In every family with a known polarity, the polarity of all digits is detected."""
    found = {known.report.inverted for _, known in pictures(family)}

    assert found == {family in ("inverted", "photographs")}


@pytest.mark.long
@pytest.mark.parametrize("family", [*DISTORTIONS, "pen strokes"])
def test_every_image_comes_into_canonical_form(family: str, pictures: Pictures) -> None:
    """It is white on black, its box 20 pixels long, its centre of mass within half a pixel of the middle pixel."""
    for _, found in pictures(family):
        pixels = found.pixels
        left, top, right, bottom = box_of(pixels)

        assert (pixels.shape, pixels.dtype, pixels.max() >= 250) == ((28, 28), np.uint8, True)
        assert 19 <= max(right - left, bottom - top) <= 20
        assert np.abs(np.subtract(ndimage.center_of_mass(pixels), 14)).max() <= 0.5 or left == 0 or top == 0


@pytest.mark.long
@pytest.mark.parametrize("family", [*DISTORTIONS, "pen strokes"])
def test_a_canonical_image_stays_unchanged(family: str, pictures: Pictures) -> None:
    """The canonical form of a canonical form is itself, and the same image gives the same answer."""
    for image, found in pictures(family):
        again = canonical(image)

        assert np.array_equal(canonical(found.pixels).pixels, found.pixels)
        assert (np.array_equal(again.pixels, found.pixels), again.report) == (True, found.report)


@given(top=st.integers(0, 72), left=st.integers(0, 72), number=st.integers(0, 39))
@settings(max_examples=50, deadline=None)
def test_the_position_of_a_digit_does_not_matter(top: int, left: int, number: int, sample: np.ndarray) -> None:
    """Anywhere on a large canvas a digit comes out the same, and the report says how far it was shifted."""
    found = canonical(on_canvas(sample[number], top, left))
    middle = canonical(on_canvas(sample[number], 36, 36))

    assert difference(middle.pixels, found.pixels) < 0.02
    assert np.subtract(middle.report.shift, found.report.shift) == pytest.approx((left - 36, top - 36), abs=0.3)


@pytest.mark.long
@pytest.mark.parametrize("factor", [2, 3, 5, 9, 20])
def test_the_size_of_a_digit_does_not_matter(factor: int, sample: np.ndarray) -> None:
    """An enlarged digit comes out nearly equal; its softer edges make it up to a twentieth smaller."""
    found = [canonical(larger(digit, factor)) for digit in sample]
    twice = [canonical(larger(digit, 2)).pixels for digit in sample]
    differences = [difference_in_place(digit, f.pixels) for digit, f in zip(twice, found, strict=True)]

    assert np.median(differences) < 0.1
    assert [f.report.scale * factor for f in found] == pytest.approx([1] * len(found), rel=0.06)


@pytest.mark.parametrize("pen", [2, 60])
@pytest.mark.parametrize("label", range(10))
def test_line_widths_come_into_mnists_range(label: int, pen: float) -> None:
    """The lines of a thin or thick pen come nearer to MNIST's range, and the report has both widths."""
    report = canonical(draw(str(label), np.random.default_rng(6), 300, pen)).report
    before, after = (abs(width - np.clip(width, THINNEST, THICKEST)) for width in report.stroke_width)

    assert after < 0.9 * before
    assert "lines" in report.changed[-1]


@pytest.mark.parametrize("side", [14, 56, 96])
def test_lines_have_the_same_relative_width_in_every_form(side: int) -> None:
    """Lines that are not changed in MNIST's form are not changed in a smaller or larger form either."""
    grey = draw("7", np.random.default_rng(6), 256, 22)
    of_mnist, of_form = (canonical(grey, form).report for form in (MNIST, form_of((1, side, side))))

    assert not any("lines" in change for change in [*of_mnist.changed, *of_form.changed])
    assert of_form.stroke_width[1] / form_of((1, side, side)).box == pytest.approx(
        of_mnist.stroke_width[1] / 20, rel=0.2
    )


@pytest.mark.parametrize("by", [-0.8, 0.7, 2.0])
def test_widening_equals_one_filter_over_a_square(by: float) -> None:
    """Many small filters of Pillow equal one filter of the total size."""
    ink = np.pad(np.random.default_rng(0).random((40, 30)).astype(np.float32), 4)
    reach = round(4 * abs(by) / 2)
    whole = (ImageFilter.MaxFilter if by > 0 else ImageFilter.MinFilter)(2 * reach + 1)
    padded = Image.fromarray(np.rint(255 * np.pad(ink, reach)).astype(np.uint8))

    assert np.array_equal(widened(ink, by), np.asarray(padded.filter(whole), np.float32) / 255)


@pytest.mark.parametrize("width", [2, 5, 9])
def test_the_width_of_a_line_is_measured(width: int) -> None:
    """The measured width of a long bar is within a tenth of its width."""
    bar = np.zeros((400, 30))
    bar[10:390, 8 : 8 + width] = 1

    assert width_of(bar) == pytest.approx(width, rel=0.1)


@given(mask=arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_blobs_equal_scipys_labels(mask: np.ndarray) -> None:
    """SciPy gives the same pixels one label, and its sums over blobs are equal."""
    expected, count = ndimage.label(mask, np.ones((3, 3)))
    values = np.arange(mask.size, dtype=float).reshape(mask.shape)
    blobs = Blobs.of(mask)
    labels = np.unique(blobs.label)

    assert len(labels) == count
    for label in labels:
        found = blobs.mask(np.arange(len(blobs.label)) == label)
        assert np.array_equal(found, expected == expected[found][0])
        assert blobs.ink(values)[label] == pytest.approx(values[found].sum())


def test_a_speck_is_removed_and_a_stroke_is_kept(sample: np.ndarray) -> None:
    """A speck near a five is removed; its bar, which does not touch it, stays."""
    five = np.zeros((120, 120), np.uint8)
    five[40:100, 40:48] = five[40:48, 55:80] = 255
    flecked = five.copy()
    flecked[10:13, 100:103] = 255
    found = canonical(flecked)

    assert (canonical(five).report.specks, found.report.specks) == (0, 1)
    assert np.array_equal(canonical(five).pixels, found.pixels)
    assert ndimage.label(found.pixels)[1] == 2


@pytest.mark.parametrize("shape", [(28, 28), (1, 1), (0, 0), (0, 5), (1, 5000), (5000, 1), (300, 200)])
@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_an_image_of_one_level_is_blank(shape: tuple[int, int], level: int) -> None:
    """The result is black, and the report says that nothing was found."""
    found = canonical(np.full(shape, level, np.uint8))

    assert not found.pixels.any()
    assert not found.report.found
    assert "blank" in found.report.changed[0]


@given(
    image=arrays(np.uint8, st.tuples(st.integers(0, 40), st.integers(0, 40))),
    form=st.sampled_from([MNIST, DigitForm(8, 8, 6), DigitForm(32, 20, 15)]),
)
@settings(max_examples=300, deadline=None)
def test_any_image_is_accepted(image: np.ndarray, form: DigitForm) -> None:
    """For any bytes, the result is in canonical form and stays unchanged; the report's figures are finite."""
    found = canonical(image, form)

    assert found.pixels.shape == (form.height, form.width)
    assert np.array_equal(canonical(found.pixels, form).pixels, found.pixels)
    assert np.isfinite(figures(found.report)).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (2, 3000), (28, 28), (257, 90), (1500, 1100)])
def test_noise_of_any_shape_is_accepted(shape: tuple[int, int]) -> None:
    """Noise, and nearly black noise with one white pixel, come out in canonical form."""
    rng = np.random.default_rng(7)
    dark = rng.integers(0, 3, shape, dtype=np.uint8)
    dark[shape[0] // 2, shape[1] // 2] = 255
    for image in (rng.integers(0, 256, shape, dtype=np.uint8), dark):
        found = canonical(image)

        assert found.pixels.shape == (28, 28)
        assert np.array_equal(canonical(found.pixels).pixels, found.pixels)


def figures(report: InputReport) -> list[float]:
    """Return all numbers of a report."""
    alone = [report.background, report.uneven, report.noise, report.lean, report.scale]
    return [*alone, *report.shift, *report.stroke_width]


@pytest.fixture(scope="module")
def neighbours(mnist: Arrays) -> KNeighborsClassifier:
    """Return a nearest-neighbour classifier of 3,000 training digits."""
    train = mnist.take(data_split(len(mnist), 10_000, "random", 0).train[:3000])
    return KNeighborsClassifier(3).fit(train.images.reshape(len(train), -1) / 255, train.labels)


@pytest.mark.long
@pytest.mark.parametrize("family", DISTORTED)
def test_canonical_images_are_classified_better(
    family: str, validation: Arrays, neighbours: KNeighborsClassifier
) -> None:
    """Nearest neighbours get four in five canonical images right, and far more than raw images of hard families."""
    count = 60
    images = distorted(family, validation.images[:count, 0])
    ways = [np.asarray(Image.fromarray(i).resize((28, 28))) for i in images], [canonical(i).pixels for i in images]
    without, with_it = (neighbours.score(np.reshape(way, (count, -1)) / 255, validation.labels[:count]) for way in ways)

    assert with_it >= 0.8
    assert with_it - without >= GAINS.get(family, -0.1)
