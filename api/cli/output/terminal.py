"""Shared by the commands: two consoles, a client, and error messages."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console

from api.client import Chiffre
from api.connection import Unanswered
from api.http.field_errors import plain_words
from ml.errors import ChiffreError

out = Console()
err = Console(stderr=True)

FAILED, UNANSWERED, INTERRUPTED = 1, 3, 130  # exit statuses; Typer exits with 2 after a usage error

AsJson = Annotated[bool, typer.Option("--json", help="print the API's JSON")]


def show(data: Any, as_json: bool, table: Any) -> None:
    """Print the API's answer as JSON, or the table that `table` returns."""
    if as_json:
        print(json.dumps(data))
    else:
        out.print(table())


@contextmanager
def connected() -> Iterator[Chiffre]:
    """Provide a client of the API from the environment, and report errors."""
    with reporting_errors(), Chiffre() as client:
        yield client


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Turn an error into a message and an exit status.

    A ValidationError here is always about a setting.
    """
    try:
        yield
    except Unanswered as error:
        fail(str(error), UNANSWERED)
    except ChiffreError as error:
        fail(str(error))
    except ValidationError as error:
        fail("; ".join(f"{_variable(e['loc'])}: {plain_words(e['msg'])}" for e in error.errors()))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _variable(place: tuple[int | str, ...]) -> str:
    """Return the environment variable of a setting; an error about several settings has no place."""
    return f"CHIFFRE_{str(place[0]).upper()}" if place else "the environment"


def fail(message: str, status: int = FAILED) -> NoReturn:
    """Print a message to standard error and exit with a status."""
    err.print(f"chiffre: {message}", style="red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(status)
