"""The language of a report: its sentences and its number formats."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup

Language = Literal["en", "fr"]

FRENCH: dict[str, str] = json.loads((Path(__file__).parent / "templates" / "french.json").read_text("utf-8"))

NARROW, WIDE = "\u202f", "\u00a0"  # no-break spaces: French between thousands, and before a unit
NUMBERS = re.compile(r"-?[\d.]+(e[-+]\d+)?( … -?[\d.]+(e[-+]\d+)?)?")
SIGNIFICANT = 4  # default number of significant digits


@dataclass(frozen=True)
class Wording:
    """Sentences and number formats of one language. The English sentence is the key of its translation."""

    language: Language

    def __call__(self, sentence: str, **values: object) -> str:
        """Return a sentence in this language with its values filled in.

        Raises:
            KeyError: if the sentence has no translation.

        """
        text = FRENCH[sentence] if self.language == "fr" else sentence
        return text.format(**values) if values else text

    def recorded(self, text: str) -> str:
        """Return a text that a job or a trial recorded. It is English, and marked as such in other languages."""
        return text if self.language == "en" else Markup('<span lang="en">{}</span>').format(text)

    def number(self, value: float | None, digits: int = SIGNIFICANT) -> str:
        """Return a number with `digits` significant digits, whole numbers with all their digits; – for None."""
        if value is None:
            return "–"
        if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
            return self._localized(f"{int(value):,}")
        rounded = f"{value:.{digits}g}"
        if float(rounded).is_integer() and abs(value) < 1e15:  # write 12,346 instead of 1.235e+04
            return self.number(round(value))
        return self._localized(rounded)

    def fixed(self, value: float | None, decimals: int) -> str:
        """Return a number with a fixed number of decimals; – for None."""
        return "–" if value is None else self._localized(f"{value:,.{decimals}f}")

    def percent(self, share: float | None, decimals: int = 2) -> str:
        """Return a share, 0..1, as a percentage; – for None."""
        return "–" if share is None else f"{self.fixed(100 * share, decimals)}{WIDE}%"

    def points(self, share: float | None) -> str:
        """Return a difference of two shares in percentage points, with its sign; – for None."""
        if share is None:
            return "–"
        rounded = round(100 * share, 2) or 0.0  # never −0
        return self._localized(f"{rounded:+.2f}").replace("-", "−")

    def interval(self, bounds: tuple[float, float]) -> str:
        """Return an interval of shares as percentages."""
        low, high = (self.fixed(100 * bound, 2) for bound in bounds)
        return f"{low} – {high}{WIDE}%"

    def duration(self, seconds: float | None) -> str:
        """Return a duration in hours, minutes or seconds; – for None."""
        if seconds is None:
            return "–"
        for size, unit in ((3600, "h"), (60, "min")):
            if seconds >= 2 * size:
                return f"{self.fixed(seconds / size, 1)}{WIDE}{unit}"
        return f"{self.number(seconds, 3)}{WIDE}s"

    def instant(self, seconds: float | None) -> str:
        """Return a time, given in seconds since 1970, as date and time in UTC; – for None."""
        return "–" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}{WIDE}UTC"

    def value(self, value: Any) -> str:
        """Return a hyper-parameter or a field of a specification; booleans, null and objects as JSON."""
        if isinstance(value, list):
            items = (f"[{self.value(item)}]" if isinstance(item, list) else self.value(item) for item in value)
            return ("; " if self.language == "fr" else ", ").join(items)
        if isinstance(value, bool | dict) or value is None:
            return json.dumps(value, ensure_ascii=False)
        return value if isinstance(value, str) else self.number(value)

    def range(self, label: str) -> str:
        """Return an analysis's label of a group: a number or a range in this language's format, other names as is."""
        return self._localized(label) if NUMBERS.fullmatch(label) else label

    def _localized(self, digits: str) -> str:
        return digits.replace(",", NARROW).replace(".", ",") if self.language == "fr" else digits
