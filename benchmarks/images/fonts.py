"""Digits drawn with the fonts of this machine."""

from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FOLDER = Path("/usr/share/fonts")
SEEN = "DejaVu"  # the canonicaliser was tuned on these fonts, so no result uses them
PACKAGES = (  # Debian packages; results/canonical.json was made with them
    "fonts-breip fonts-cabin fonts-comic-neue fonts-courier-prime fonts-crosextra-carlito fonts-dkg-handwriting "
    "fonts-femkeklaver fonts-freefont-ttf fonts-humor-sans fonts-liberation fonts-quicksand fonts-rufscript"
)


class Fonts:
    """The installed fonts by family, or Pillow's own if there are none."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.files: dict[str, list[str]] = defaultdict(list)
        for path in sorted((*folder.rglob("*.ttf"), *folder.rglob("*.otf"))):
            font = ImageFont.truetype(path, 40)
            family = str(font.getname()[0])
            if SEEN not in family and _has_digits(font):
                self.files[family].append(str(path))

    def __str__(self) -> str:
        names = ", ".join(self.files) or "Pillow's own"
        return f"{len(self.files) or 1} families of fonts: {names} (more by: apt-get install {PACKAGES})"

    def draw(self, label: int, rng: np.random.Generator) -> np.ndarray:
        """Draw a digit of any size anywhere on a canvas of 40 to 200 pixels: uint8, black on white or the reverse."""
        side = int(rng.integers(40, 201))
        font = self._font(rng, int(side * rng.uniform(0.3, 0.9)))
        canvas = Image.new("L", (side, side))
        left, top, right, bottom = font.getbbox(str(label))
        x, y = rng.uniform(0, side - (right - left)) - left, rng.uniform(0, side - (bottom - top)) - top
        ImageDraw.Draw(canvas).text((x, y), str(label), fill=255, font=font)
        image = np.asarray(canvas)
        return 255 - image if rng.random() < 0.5 else image

    def _font(self, rng: np.random.Generator, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        if not self.files:
            return ImageFont.load_default(size)
        files = list(self.files.values())[rng.integers(len(self.files))]
        return ImageFont.truetype(files[rng.integers(len(files))], size)


def _has_digits(font: ImageFont.FreeTypeFont) -> bool:
    """Return whether a font has ten different digits; missing characters all become the same box."""
    return len({bytes(font.getmask(digit)) for digit in "0123456789"}) == 10
