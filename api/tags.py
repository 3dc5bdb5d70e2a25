"""Entity tags (RFC 9110, 8.8.3): a client that has a file need not be sent it again."""

from typing import Annotated

from fastapi import Header

KnownTag = Annotated[
    str | None, Header(alias="If-None-Match", max_length=2000, description="an ETag; the file is sent unless it is its")
]


def names(known: str | None, tag: str) -> bool:
    """Whether an If-None-Match names a tag, by the weak comparison of RFC 9110, 13.1.2."""
    return any(one.strip().removeprefix("W/") in (tag, "*") for one in (known or "").split(","))
