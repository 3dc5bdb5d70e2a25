"""Images to reject, of kinds that no model is fitted on, and printed digits: uint8 [n, 1, 28, 28].

Each kind is a function (generator, test digits uint8 [m, 1, 28, 28], fonts, n).
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_images

from ml.images.glyphs import LOOKALIKES, PLAIN_LETTERS, SYMBOLS, boxed, centred

Kind = Callable[[np.random.Generator, np.ndarray, list[Path], int], np.ndarray]
Pencil = Callable[[ImageDraw.ImageDraw, np.random.Generator, int], None]

SIDE, LARGE = 28, 112  # pixels of an image, and of the drawing that is scaled down to it
HEIGHT = 60  # of a font, in pixels, before it is scaled down
GREEK_AND_CYRILLIC = "ΓΔΘΛΞΠΣΦΨΩαδεηθλμξπψωБЖИЛЦШЩЫЭЮЯжйцшщыэюя"


def fonts_in(folders: list[Path]) -> list[Path]:
    """Return the TrueType and OpenType fonts in these folders that have every character drawn here."""
    found = sorted(path for folder in folders for kind in ("ttf", "otf") for path in folder.rglob(f"*.{kind}"))
    return [path for path in found if _has(path, PLAIN_LETTERS + LOOKALIKES + "0123456789" + SYMBOLS)]


def _has(path: Path, characters: str) -> bool:
    """Return whether a font has these characters: each must differ from its picture of a missing one."""
    try:
        font = ImageFont.truetype(str(path), HEIGHT)
    except OSError:
        return False
    lacking = bytes(font.getmask("\U0010fffd"))
    return all(font.getmask(each).getbbox() and bytes(font.getmask(each)) != lacking for each in characters)


def _typed(characters: str, length: int = 1) -> Kind:
    """Return the kind that shows `length` of the characters in a row, in any font that has them."""

    def kind(rng: np.random.Generator, digits: np.ndarray, fonts: list[Path], n: int) -> np.ndarray:
        able = [ImageFont.truetype(str(path), HEIGHT) for path in fonts if _has(path, characters)]
        drawn = []
        for _ in range(n if able else 0):
            text = "".join(rng.choice(list(characters), length))
            image = Image.new("L", (HEIGHT * (length + 2), 3 * HEIGHT))
            ImageDraw.Draw(image).text((HEIGHT, HEIGHT), text, 255, able[rng.integers(len(able))])
            drawn.append(boxed(image, SIDE))
        return centred(np.array(drawn, np.uint8).reshape(-1, SIDE, SIDE))[:, None]

    return kind


def _sketched(pencils: list[Pencil]) -> Kind:
    """Return the kind that the pencils draw, in any grey except the darkest."""

    def kind(rng: np.random.Generator, digits: np.ndarray, fonts: list[Path], n: int) -> np.ndarray:
        drawn = []
        for _ in range(n):
            image = Image.new("L", (LARGE, LARGE))
            pencils[rng.integers(len(pencils))](ImageDraw.Draw(image), rng, int(rng.integers(90, 256)))
            drawn.append(np.asarray(image.reduce(LARGE // SIDE)))
        return np.stack(drawn)[:, None]

    return kind


def _shirt(pencil: ImageDraw.ImageDraw, rng: np.random.Generator, grey: int) -> None:
    width, sleeve, length, top = rng.uniform((18, 4, 30, 12), (26, 16, 75, 20))
    left = [(0, top), (-width, top), (-width - sleeve, top + length), (-width - sleeve + 9, top + length)]
    left += [(-width, top + 25), (-width, 100), (0, 100)]
    _symmetric(pencil, left, grey)


def _trousers(pencil: ImageDraw.ImageDraw, rng: np.random.Generator, grey: int) -> None:
    width, gap = rng.uniform((14, 2), (24, 8))
    _symmetric(pencil, [(0, 8), (-width, 8), (-width - 4, 104), (-gap, 104), (0, 40)], grey)


def _dress(pencil: ImageDraw.ImageDraw, rng: np.random.Generator, grey: int) -> None:
    width = rng.uniform(10, 16)
    _symmetric(pencil, [(0, 6), (-width, 6), (3 - width, 40), (-width - 18, 106), (0, 106)], grey)


def _shoe(pencil: ImageDraw.ImageDraw, rng: np.random.Generator, grey: int) -> None:
    top = 80 - rng.uniform(20, 40)
    pencil.polygon([(10, top), (34, top), (60, 66), (100, 72), (102, 84), (10, 84)], fill=grey)


def _bag(pencil: ImageDraw.ImageDraw, rng: np.random.Generator, grey: int) -> None:
    top = rng.uniform(36, 52)
    pencil.rectangle([12, top, 100, 98], fill=grey)
    pencil.arc([34, 12, 78, 2 * top - 12], 180, 360, fill=grey, width=6)


def _symmetric(pencil: ImageDraw.ImageDraw, left: list[tuple[float, float]], grey: int) -> None:
    """Draw a symmetric shape from the outline of its left half, around the middle of the drawing."""
    outline = [*left, *((-x, y) for x, y in reversed(left))]
    pencil.polygon([(LARGE / 2 + x, y) for x, y in outline], fill=grey)


def _triangle(pencil: ImageDraw.ImageDraw, rng: np.random.Generator, grey: int) -> None:
    turns = np.array([0, 1, 2]) * 2 * np.pi / 3 + rng.uniform(-0.4, 0.4, 3) + rng.uniform(0, 6.28)
    radius = rng.uniform(25, 50)
    pencil.polygon([(56 + radius * np.cos(t), 56 + radius * np.sin(t)) for t in turns], fill=grey)


def _scribble(pencil: ImageDraw.ImageDraw, rng: np.random.Generator, grey: int) -> None:
    """Draw a line that goes up and down from left to right and back."""
    x = 56 + 44 * np.sin(np.linspace(-1.5, rng.uniform(4, 8), 16)) + rng.normal(0, 5, 16)
    y = rng.uniform(14, 98, 16)
    pencil.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=255, width=int(rng.integers(6, 12)), joint="curve")


def _blocks(rng: np.random.Generator, digits: np.ndarray, fonts: list[Path], n: int) -> np.ndarray:
    """Draw random black and white squares of 2 or 4 pixels, as in a matrix code."""
    halves = np.array_split(np.arange(n), 2)
    codes = [
        (k, rng.integers(0, 2, (len(half), 1, SIDE // k, SIDE // k))) for k, half in zip((2, 4), halves, strict=True)
    ]
    return np.concatenate([255 * code.repeat(k, 2).repeat(k, 3) for k, code in codes]).astype(np.uint8)


def _checkerboards(rng: np.random.Generator, digits: np.ndarray, fonts: list[Path], n: int) -> np.ndarray:
    rows, columns = np.indices((SIDE, SIDE))
    size, down, right = rng.integers((2, 0, 0), (8, 8, 8), (n, 3)).T[:, :, None, None]
    return (255 * (((rows + down) // size + (columns + right) // size) % 2)).astype(np.uint8)[:, None]


def _photographs(rng: np.random.Generator, digits: np.ndarray, fonts: list[Path], n: int) -> np.ndarray:
    """Crop squares of 28 to 200 pixels from the two photographs in scikit-learn."""
    photographs, crops = [Image.fromarray(image).convert("L") for image in load_sample_images().images], []
    for _ in range(n):
        photograph, size = photographs[rng.integers(2)], int(rng.integers(28, 200))
        x, y = (int(rng.integers(side - size)) for side in photograph.size)
        crop = photograph.resize((SIDE, SIDE), Image.Resampling.BOX, (x, y, x + size, y + size))
        crops.append(np.asarray(crop))
    return np.stack(crops)[:, None]


def _inverted(rng: np.random.Generator, digits: np.ndarray, fonts: list[Path], n: int) -> np.ndarray:
    return 255 - digits[rng.integers(len(digits), size=n)]


# Novelty is fitted on these characters in Pillow's own font; here they are in other fonts.
OTHER_FONTS: dict[str, Kind] = {"letters": _typed(PLAIN_LETTERS), "symbols": _typed(SYMBOLS)}
# No model is fitted on any of these kinds.
UNSEEN: dict[str, Kind] = {
    "letters like digits": _typed(LOOKALIKES),
    "Greek and Cyrillic": _typed(GREEK_AND_CYRILLIC),
    "numbers of two digits": _typed("0123456789", 2),
    "words of three letters": _typed(PLAIN_LETTERS, 3),
    "scribbles": _sketched([_scribble]),
    "blocks": _blocks,
}
# No model is fitted on these either, but the method of novelty was chosen while looking at them.
LOOKED_AT: dict[str, Kind] = {
    "garments": _sketched([_shirt, _trousers, _dress, _shoe, _bag]),
    "triangles": _sketched([_triangle]),
    "checkerboards": _checkerboards,
    "photographs": _photographs,
    "inverted digits": _inverted,
}
# These should not be rejected.
DIGITS: dict[str, Kind] = {"digits in print": _typed("0123456789")}
GROUPS = {"other fonts": OTHER_FONTS, "unseen": UNSEEN, "looked at": LOOKED_AT, "digits": DIGITS}


def kinds() -> Iterator[tuple[str, str, Kind]]:
    """Yield the group, the name and the function of every kind."""
    return ((group, name, kind) for group, members in GROUPS.items() for name, kind in members.items())
