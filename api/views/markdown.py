"""Markdown from values: whatever a text holds, it is shown as it is and changes nothing around it."""

import re
from collections.abc import Iterable

# Inline they have a meaning, some in GitHub's dialect alone, which a backslash before them takes away:
# https://spec.commonmark.org/0.31.2/#backslash-escapes
MARKS = re.compile(r"([\\`*_{}\[\]<>#!|~&$@]|:(?=//))")
NO_TEXT = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]+")  # line breaks, control characters, halves of characters


def text(value: object) -> str:
    """A text as it is, on one line, anywhere but at the beginning of one."""
    return MARKS.sub(r"\\\1", _line(value))


def code(value: object) -> str:
    """The same in the type of code, where it can be."""
    line = _line(value)
    return text(line) if not line or set("`|") & set(line) else f"`{line}`"


def _line(value: object) -> str:
    return NO_TEXT.sub(" ", str(value)).strip()


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are Markdown already."""
    heads = list(headings)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def fence(language: str, code: str) -> str:
    """Lines of code, none of which begins with three backticks."""
    return f"```{language}\n{code.strip()}\n```"
