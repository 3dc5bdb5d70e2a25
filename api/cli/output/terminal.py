"""What the commands share: two consoles, a client, and errors in words."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console

from api.client import Chiffre
from api.connection import Unanswered
from ml.errors import ChiffreError

out = Console()
err = Console(stderr=True)

# Exit statuses; 2 is Typer's own, for a command line that makes no sense.
FAILED, UNANSWERED, INTERRUPTED = 1, 3, 130

AsJson = Annotated[bool, typer.Option("--json", help="print the API's own JSON")]


def show(data: Any, as_json: bool, table: Any) -> None:
    """Print what the API answered, or what `table` makes of it."""
    if as_json:
        print(json.dumps(data))
    else:
        out.print(table())


@contextmanager
def connected() -> Iterator[Chiffre]:
    """A client of the API that the environment names; what goes wrong ends the command in words."""
    with reporting_errors(), Chiffre() as client:
        yield client


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Say what went wrong in words, and end with a status that tells it to a script.

    What pydantic refuses here is a setting.
    """
    try:
        yield
    except Unanswered as error:
        fail(str(error), UNANSWERED)
    except ChiffreError as error:
        fail(str(error))
    except ValidationError as error:
        problems = ((_variable(e["loc"]), e["msg"]) for e in error.errors())
        fail("; ".join(f"{name}: {words.removeprefix('Value error, ')}" for name, words in problems))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _variable(place: tuple[int | str, ...]) -> str:
    """The variable of a setting; what holds of several together has no place of its own."""
    return f"CHIFFRE_{str(place[0]).upper()}" if place else "the environment"


def fail(message: str, status: int = FAILED) -> NoReturn:
    """End with a sentence on standard error and a status."""
    err.print(f"chiffre: {message}", style="red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(status)
