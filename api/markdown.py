"""Markdown from values: whatever a text holds, it is shown as it is and changes nothing around it."""

import re
from collections.abc import Iterable

NAME = re.compile(r"\w[\w.:-]*", re.ASCII)
# A backslash before any of them takes its meaning away: https://spec.commonmark.org/0.31.2/#backslash-escapes
PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
NO_TEXT = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]+")  # line breaks, control characters, halves of characters


def text(value: object) -> str:
    """A text as it is, on one line; a plain name in the type of code."""
    line = NO_TEXT.sub(" ", str(value)).strip()
    return f"`{line}`" if NAME.fullmatch(line) else PUNCTUATION.sub(r"\\\1", line)


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are Markdown already."""
    heads = list(headings)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def fence(language: str, code: str) -> str:
    """Lines of code, none of which begins with three backticks."""
    return f"```{language}\n{code.strip()}\n```"
