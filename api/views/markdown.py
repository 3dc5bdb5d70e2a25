"""Markdown from values: texts are escaped, so that they show as they are and cannot change the text around them."""

import re
from collections.abc import Iterable

# Characters with an inline meaning, some of them in GitHub's dialect only. A backslash escapes each:
# https://spec.commonmark.org/0.31.2/#backslash-escapes
MARKS = re.compile(r"([\\`*_{}\[\]<>#!|~&$@]|:(?=//))")
NO_TEXT = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]+")  # line breaks, control characters, surrogates


def text(value: object) -> str:
    """Return a text escaped, on one line. It must not start a line, where other characters have a meaning."""
    return MARKS.sub(r"\\\1", _line(value))


def code(value: object) -> str:
    """Return a text as inline code, or escaped if it has characters that inline code cannot hold."""
    line = _line(value)
    return text(line) if not line or set("`|") & set(line) else f"`{line}`"


def _line(value: object) -> str:
    return NO_TEXT.sub(" ", str(value)).strip()


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of cells that are Markdown already."""
    heads = list(headings)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def fence(language: str, code: str) -> str:
    """Return a code block. No line of the code may begin with three backticks."""
    return f"```{language}\n{code.strip()}\n```"
