"""The command that shows presets, the built-in specifications."""

import json
from typing import Annotated

import typer

from api.cli.output.terminal import AsJson, out, reporting_errors
from ml.presets import preset_body, preset_names

app = typer.Typer()


@app.command()
def presets(
    name: Annotated[str | None, typer.Argument(help="a preset's name, such as records/cnn; default: list all")] = None,
    as_json: AsJson = False,
) -> None:
    """List the built-in specifications, or show one."""
    with reporting_errors():
        if name is not None:
            print(json.dumps(preset_body(name), indent=None if as_json else 2))
        elif as_json:
            print(json.dumps(preset_names()))
        else:
            out.print("\n".join(preset_names()), highlight=False)
