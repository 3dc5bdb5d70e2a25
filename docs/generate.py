"""The pages of the reference that follow from the code: `python -m docs.generate [FOLDER]` writes them.

Routes and schemas come from the OpenAPI document, commands from Typer, settings from pydantic-settings, networks,
samplers, pruners and optimizers from their pydantic classes. No page of them is written by hand, so none goes stale.
"""

import inspect
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "generated"
Schema = dict[str, Any]


def quiet_environment() -> None:
    """Let the settings be the defaults: what this shell sets for Chiffre must not reach a page."""
    for name in [name for name in os.environ if name.startswith("CHIFFRE_")]:
        del os.environ[name]
    os.environ["CHIFFRE_LOG_LEVEL"] = "WARNING"


def cell(text: Any) -> str:
    """Return a text as one cell of a Markdown table."""
    return re.sub(r"\s+", " ", str(text)).strip().replace("|", "\\|").replace("<", "&lt;")


def table(headings: list[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a Markdown table."""
    lines = [headings, ["---"] * len(headings), *[[cell(text) for text in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(value: Any) -> str:
    """Return a value in code quotes, as JSON unless it is a text; nothing for None."""
    return "" if value is None else f"`{value if isinstance(value, str) else json.dumps(value)}`"


def kind(schema: Schema, page: str = "schemas.md") -> str:
    """Return what a JSON Schema allows, in words: its type, its range, a link to what it refers to."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}]({page}#{name.lower()})"
    if "const" in schema:
        return code(schema["const"])
    if "enum" in schema:
        return " or ".join(code(value) for value in schema["enum"])
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(kind(one, page) for one in schema[several]))
    if schema.get("type") == "array":
        return f"list of {kind(schema.get('items', {}), page)}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {kind(schema['additionalProperties'], page)}"
    return f"{schema.get('type', 'any')}{limits(schema)}"


def limits(schema: Schema) -> str:
    """Return the range of a number or of a text's length, with a space before it."""
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {schema[name]:,}" for name, sign in signs.items() if name in schema]
    found += [f"at most {schema['maxLength']:,} characters"] if "maxLength" in schema else []
    return f" {', '.join(found)}" if found else ""


def fields(schema: Schema, page: str = "schemas.md") -> str:
    """Return the table of an object's fields."""
    required = schema.get("required", [])
    rows = [
        (
            code(name),
            kind(field, page),
            "required" if name in required else code(field["default"]) if "default" in field else "",
            field.get("description", ""),
        )
        for name, field in schema.get("properties", {}).items()
    ]
    return table(["field", "type", "default", "meaning"], rows) if rows else "No fields."


def openapi() -> Schema:
    """Return the OpenAPI document of the application."""
    from api.main import create_app

    return create_app().openapi()


def routes() -> Iterator[str]:
    """Yield the page of all requests."""
    document = openapi()
    operations = [(method.upper(), path, o) for path, found in document["paths"].items() for method, o in found.items()]
    yield "# Requests"
    yield (
        "Every request that the API answers. `/docs` on a running service has the same, to try out. "
        "[Errors](../reference/errors.md) have one form."
    )
    tags = dict.fromkeys(o["tags"][0] for _, _, o in operations)
    for tag in tags:
        own = [(method, path, o) for method, path, o in operations if o["tags"][0] == tag]
        yield f"## {tag.capitalize()}"
        rows = [(f"[`{m} {p}`](#{o['operationId'].replace('_', '-')})", sentence(o)) for m, p, o in own]
        yield table(["request", "answer"], rows)
        for method, path, operation in own:
            yield from route(method, path, operation)


def sentence(operation: Schema) -> str:
    """Return the first paragraph of what an operation says of itself."""
    return str(operation.get("description", operation["summary"])).split("\n\n")[0]


def route(method: str, path: str, operation: Schema) -> Iterator[str]:
    """Yield the section of one request."""
    yield f"### `{method} {path}` {{ #{operation['operationId'].replace('_', '-')} }}"
    yield str(operation.get("description", operation["summary"]))
    rows = [
        (code(p["name"]), p["in"], kind(p["schema"]), code(p["schema"].get("default")), p.get("description", ""))
        for p in operation.get("parameters", [])
    ]
    if rows:
        yield table(["parameter", "in", "type", "default", "meaning"], rows)
    for media, body in operation.get("requestBody", {}).get("content", {}).items():
        yield f"Body as `{media}`: {kind(body.get('schema', {}))}."
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            bodies = [f"`{media}`: {kind(b.get('schema', {}))}" for media, b in answer.get("content", {}).items()]
            yield f"Answer {status}{': ' if bodies else ''}{'; '.join(bodies)}."


def schemas() -> Iterator[str]:
    """Yield the page of all objects that requests and answers hold."""
    yield "# Objects"
    yield "The JSON objects of [requests and answers](routes.md), by name."
    for name, schema in sorted(openapi()["components"]["schemas"].items()):
        yield f"## {name} {{ #{name.lower()} }}"
        yield str(schema.get("description", ""))
        yield f"One of {kind(schema)}." if "enum" in schema else fields(schema)


def specifications() -> Iterator[str]:
    """Yield the page of a job's specification."""
    from ml.specs import TrainSpec, TuneSpec

    yield "# Specifications"
    yield (
        "The body of `POST /jobs/tune` and of `POST /jobs/train`, and the file that `chiffre tune` and `chiffre train` "
        "read. [The search space](search-space.md) has a grammar of its own; "
        "[the catalog](catalog.md) lists networks, samplers and pruners."
    )
    shown: set[str] = set()
    for title, model in (("A tuning job", TuneSpec), ("A training job", TrainSpec)):
        schema = model.model_json_schema()
        yield f"## {title} {{ #{model.__name__.lower()} }}"
        yield fields(schema, "")
        nested = schema.get("$defs", {})
        for name, one in nested.items():
            if name not in shown:
                shown.add(name)
                yield f"### {name} {{ #{name.lower()} }}"
                yield str(one.get("description", ""))
                yield fields(one, "") if "properties" in one else f"{kind(one).capitalize()} value."


def search_space() -> Iterator[str]:
    """Yield the page of the search space's grammar."""
    from ml.parameters import space

    yield "# Search-space grammar"
    yield (
        "`search_space` is an object from the name of a hyper-parameter to a dimension. A dimension is an object with "
        "a `type`, or a plain value, which stays fixed in every trial. A parameter that is not named keeps its "
        "default. Without a search space the network's own is searched ([catalog](catalog.md)). "
        f"A list of choices holds at most {space.MAX_CHOICES:,} values; a grid has at most {space.MAX_GRID:,} points."
    )
    for dimension in (space.Int, space.Float, space.Categorical, space.List, space.Grid):
        schema = dimension.model_json_schema()
        name = schema["properties"]["type"]["const"]
        yield f"## {name}"
        yield doc(dimension)
        yield fields(schema, "")
    yield "## Fixed value"
    yield doc(space.Fixed)
    yield "A number, a text, true or false, or a list of these."


def doc(thing: Any) -> str:
    """Return the docstring of a class or function, without its indentation."""
    return inspect.cleandoc(thing.__doc__ or "").split("\n\nArgs:")[0]


def catalog() -> Iterator[str]:
    """Yield the page of everything that a specification can name."""
    from pydantic import TypeAdapter

    from ml.datasets import datasets
    from ml.networks import networks
    from ml.optimizers import optimizers
    from ml.parameters.params import Params, describe
    from ml.parameters.space import SearchSpace
    from ml.samplers import pruners, samplers

    yield "# Catalog"
    yield "Everything that a specification can name. `GET /catalog` answers the same as JSON."
    yield "## Networks"
    yield "Every network takes these hyper-parameters; a section below lists what a network adds."
    common = describe(Params)
    yield parameters(common)
    for name, network in networks.items():
        yield f"### {name} {{ #network-{name} }}"
        yield network.description
        own = {field: schema for field, schema in describe(network.params).items() if field not in common}
        yield parameters(own) if own else "It adds no parameter."
        yield "Searched by default:"
        searched = TypeAdapter(SearchSpace).dump_python(network.space, mode="json")
        yield table(["parameter", "dimension"], [(code(field), code(found)) for field, found in searched.items()])
    yield "## Data sets"
    yield "These come with Chiffre; [others can be added](../how-to/data-sets.md)."
    rows = [
        (
            code(n),
            d.description,
            f"{d.size:,}",
            "×".join(map(str, d.shape)),
            len(d.classes),
            "yes" if d.official_test else "no",
        )
        for n, d in datasets.items()
    ]
    yield table(["data set", "description", "images", "channels × height × width", "classes", "official split"], rows)
    for title, registry in (("Samplers", samplers), ("Pruners", pruners), ("Optimizers", optimizers)):
        yield f"## {title}"
        for name, entry in registry.items():
            yield f"### {name} {{ #{title.lower()[:-1]}-{name.replace('_', '-')} }}"
            yield doc(entry)
            found = {field: schema for field, schema in describe(entry).items() if field != "name"}
            yield parameters(found) if found else "It has no parameter."


def parameters(found: dict[str, Schema]) -> str:
    """Return the table of hyper-parameters, as `describe` gives them."""
    rows = [(code(n), kind(s), code(s.get("default")), s.get("description", "")) for n, s in found.items()]
    return table(["parameter", "type", "default", "meaning"], rows)


def settings() -> Iterator[str]:
    """Yield the page of the settings."""
    from worker.settings import Settings

    computed = {  # what the code works out when a variable is not set
        "database_url": "SQLite under the home",
        "broker_url": "a private Valkey",
        "artifacts": "`artifacts` under the home",
        "trainers": "one per core, or one on a GPU",
    }
    yield "# Settings"
    yield (
        "Every setting is an environment variable. `chiffre up` also takes `--host` (127.0.0.1), `--port` (8000) and "
        "`--home` (`CHIFFRE_HOME`). For any other host, name what clients call it by in `CHIFFRE_ALLOWED_HOSTS`."
    )
    rows = []
    for name, field in Settings.model_fields.items():
        default = computed.get(name) or f"`{setting(field.default)}`"
        rows.append((f"`CHIFFRE_{name.upper()}`", default, field.description or ""))
    yield table(["variable", "default", "meaning"], rows)
    yield "`CHIFFRE_URL` is the API's address for the client commands; each of them takes `--json`."


def setting(default: Any) -> str:
    """Return a default as the environment would spell it."""
    return json.dumps(default) if isinstance(default, list) else str(default)


def commands() -> Iterator[str]:
    """Yield the page of the command."""
    import typer.main

    from api.cli.app import app

    whole: Any = typer.main.get_command(app)
    yield "# Commands"
    yield (
        "`chiffre` is a client of the API, and starts services. What a command does is the same as the request that it "
        "makes; from Python, [`api.client.Chiffre`](../tutorials/python-client.md) makes the same requests."
    )
    yield table(
        ["command", "what it does"],
        [(f"[`chiffre {name}`](#chiffre-{name})", first_line(one.help)) for name, one in whole.commands.items()],
    )
    yield (
        "Exit status: 0 success; 1 failure, or a followed job that failed (for `follow`, `predict-all` and `evaluate` "
        "also one that was cancelled); 2 usage error; 3 the API cannot be reached; 130 interrupted by Ctrl-C. Errors "
        "go to standard error as a sentence, and standard output holds results only. A command that follows a job or a "
        "group waits up to five minutes for an API that is away. `chiffre --install-completion` sets up completion "
        "for bash, zsh, fish or PowerShell."
    )
    for name, one in whole.commands.items():
        yield from command(f"chiffre {name}", one)


def first_line(text: str | None) -> str:
    """Return the first paragraph of a help text."""
    return (text or "").strip().split("\n\n")[0]


def command(name: str, found: Any, level: int = 2) -> Iterator[str]:
    """Yield the section of one command, and of those below it."""
    arguments = [p for p in found.params if p.param_type_name == "argument"]
    usage = " ".join([name, *(p.name.upper() if p.required else f"[{p.name.upper()}]" for p in arguments)])
    yield f"{'#' * level} `{usage}` {{ #{name.replace(' ', '-')} }}"
    yield inspect.cleandoc(found.help or "")
    rows = [
        (
            code(", ".join([*p.opts, *p.secondary_opts]) if p.param_type_name == "option" else p.name.upper()),
            getattr(p, "help", None) or "",
            code(p.default) if isinstance(p.default, str | int | float) and p.default is not False else "",
        )
        for p in found.params
        if p.name not in ("help", "install_completion", "show_completion")
    ]
    if rows:
        yield table(["argument or option", "meaning", "default"], rows)
    for below, one in getattr(found, "commands", {}).items():
        yield from command(f"{name} {below}", one, level + 1)


def states() -> Iterator[str]:
    """Yield the page of the states of jobs and trials."""
    from ml.records import TrialState
    from worker.database.tables import JobState, StopReason
    from worker.ledger.transitions import JOB_MOVES

    yield "# Job and trial states"
    yield (
        "A job moves `queued → running ⇄ paused → stopping → completed | failed | cancelled`. A trial moves "
        "`running → completed | pruned | stopped_early | diverged | failed | cancelled`. "
        "Every change of state is written to the job's history, with its time and its reason."
    )
    yield "## Jobs"
    yield states_of(JobState)
    moves = [
        (code(before.value), ", ".join(sorted(code(after.value) for after in JOB_MOVES[before])))
        for before in JOB_MOVES
    ]
    yield table(["from", "to"], moves)
    yield "## Trials"
    yield states_of(TrialState)
    yield "## Stop reasons"
    yield "`stop_reason` says why a job begins no more trials."
    yield states_of(StopReason)


def states_of(enum: type[StrEnum]) -> str:
    """Return the table of a StrEnum: its values with the comments behind them."""
    comments = dict(re.findall(r'^ +\w+ = "(\w+)"(?:  # (.*))?$', inspect.getsource(enum), re.MULTILINE))
    if not any(comments.values()):
        return ", ".join(f"`{value.value}`" for value in enum) + "."
    return table(["state", "meaning"], [(f"`{value.value}`", comments.get(value.value, "")) for value in enum])


def records() -> Iterator[str]:
    """Yield the page of accuracy records, which `python -m benchmarks.records` keeps."""
    yield (ROOT / "benchmarks" / "records.md").read_text().replace("`results/", "`benchmarks/results/")


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "routes": routes,
    "schemas": schemas,
    "specifications": specifications,
    "search-space": search_space,
    "catalog": catalog,
    "settings": settings,
    "commands": commands,
    "states": states,
    "records": records,
}


def write(folder: Path) -> None:
    """Write every page into a folder, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, page in PAGES.items():
        (folder / f"{name}.md").write_text("\n\n".join(part for part in page() if part) + "\n")


if __name__ == "__main__":
    quiet_environment()
    with tempfile.TemporaryDirectory() as home:
        os.environ["CHIFFRE_HOME"] = home  # the application opens a database there
        write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
