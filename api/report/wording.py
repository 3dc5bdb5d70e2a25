"""A report's language: its sentences and its numbers."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup

Language = Literal["en", "fr"]

FRENCH: dict[str, str] = json.loads((Path(__file__).parent / "templates" / "french.json").read_text("utf-8"))

NARROW, WIDE = "\u202f", "\u00a0"  # spaces at which no line breaks: between thousands, and before a unit
NUMBERS = re.compile(r"-?[\d.]+(e[-+]\d+)?( … -?[\d.]+(e[-+]\d+)?)?")
SIGNIFICANT = 4  # digits of a number whose kind is not known


@dataclass(frozen=True)
class Wording:
    """Sentences and numbers of one language. English sentences are the keys of the others."""

    language: Language

    def __call__(self, sentence: str, **values: object) -> str:
        """A sentence with its values; KeyError where the language lacks it."""
        text = FRENCH[sentence] if self.language == "fr" else sentence
        return text.format(**values) if values else text

    def recorded(self, text: str) -> str:
        """What a job or a trial wrote down itself: that is English, and marked as such where the report is not."""
        return text if self.language == "en" else Markup('<span lang="en">{}</span>').format(text)

    def number(self, value: float | None, digits: int = SIGNIFICANT) -> str:
        """A number to so many significant digits, – for none."""
        if value is None:
            return "–"
        if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
            return f"{int(value):,}".replace(",", NARROW)
        rounded = f"{value:.{digits}g}"
        if 10**digits <= abs(float(rounded)) and abs(value) < 1e15:  # it would have an exponent
            return self.number(round(value))
        return self._pointed(rounded)

    def fixed(self, value: float | None, places: int) -> str:
        """A number with so many places behind the point, – for none."""
        return "–" if value is None else self._pointed(f"{value:.{places}f}")

    def percent(self, share: float | None, places: int = 2) -> str:
        """A share, 0..1, in percent."""
        return "–" if share is None else f"{self.fixed(100 * share, places)}{WIDE}%"

    def points(self, share: float | None) -> str:
        """A difference of two shares, with its sign, in percentage points."""
        if share is None:
            return "–"
        rounded = round(100 * share, 2) or 0.0  # never −0
        return self._pointed(f"{rounded:+.2f}").replace("-", "−")

    def interval(self, bounds: tuple[float, float]) -> str:
        """An interval of shares in percent."""
        low, high = (self.fixed(100 * bound, 2) for bound in bounds)
        return f"{low} – {high}{WIDE}%"

    def duration(self, seconds: float | None) -> str:
        """A time in the unit that suits it."""
        if seconds is None:
            return "–"
        for size, unit in ((3600, "h"), (60, "min")):
            if seconds >= 2 * size:
                return f"{self.fixed(seconds / size, 1)}{WIDE}{unit}"
        return f"{self.number(seconds, 3)}{WIDE}s"

    def instant(self, seconds: float | None) -> str:
        """An instant, given in seconds since 1970, in UTC."""
        return "–" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}{WIDE}UTC"

    def value(self, value: Any) -> str:
        """A hyper-parameter, or a field of what was asked for: what is no number, name or list as JSON has it."""
        if isinstance(value, list):
            items = (f"[{self.value(item)}]" if isinstance(item, list) else self.value(item) for item in value)
            return ("; " if self.language == "fr" else ", ").join(items)
        if isinstance(value, bool | dict) or value is None:
            return json.dumps(value, ensure_ascii=False)
        return value if isinstance(value, str) else self.number(value)

    def range(self, label: str) -> str:
        """A number or a range of numbers, as an analysis names a group; another name as it is."""
        return self._pointed(label) if NUMBERS.fullmatch(label) else label

    def _pointed(self, digits: str) -> str:
        return digits.replace(".", ",") if self.language == "fr" else digits
