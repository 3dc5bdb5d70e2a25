"""The README against the code: commands, routes, settings, examples."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import typer.main

from api.cli.app import app
from api.main import create_app
from ml.specs import TrainSpec, TuneSpec
from worker.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGE = {"/openapi.json", "/docs", "/docs/files", "/", "/web"}  # documents and pages about the API, not of it


def table(heading: str) -> list[list[str]]:
    """The cells of the table whose first heading is this."""
    lines = README[README.index(f"| {heading} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in lines]


def routes() -> set[str]:
    """Every route of the application, as "METHOD /path"."""
    paths = create_app().openapi()["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def curls() -> list[tuple[str, str, str | None]]:
    """Method, path and body of every curl command of the README."""
    text = README.replace("\\\n", " ")
    found = []
    for line in re.findall(r"^\$ (curl .*)$", text, re.MULTILINE):
        path = re.search(r"localhost:8000(/[^\s'?]*)", line)
        body = re.search(r"-d '(.*?)'", line)
        assert path, line
        found.append(("POST" if body else "GET", path[1], body[1] if body else None))
    return found


def test_the_table_of_requests_is_the_api(environment: Path) -> None:
    """Every route has its line, and every line a route."""
    assert {row[0] for row in table("request")} == routes()


def test_every_curl_command_calls_a_route_that_exists(environment: Path) -> None:
    """The session of the README can be typed."""
    patterns = [(route.split()[0], re.sub(r"{\w+}", "[^/]+", route.split()[1])) for route in routes()]

    assert len(curls()) >= 5
    for method, path, _ in curls():
        assert any(m == method and re.fullmatch(p, path) for m, p in patterns), f"{method} {path}"


def test_every_example_job_is_one_that_is_accepted() -> None:
    """But for the one that shows an error."""
    bodies = [json.loads(body) for _, path, body in curls() if path.startswith("/jobs") and body]
    whole = json.loads(re.findall(r"```json\n(.*?)```", README, re.DOTALL)[0])
    train = json.loads(re.findall(r"`(\{\"model\": \"mlp\".*?\})`", README)[0])
    good = [body for body in bodies if "lr" not in body.get("search_space", {})]

    assert len(good) == len(bodies) - 1
    assert all(TuneSpec.model_validate(spec) for spec in [*good, whole])
    assert TrainSpec.model_validate(train)


def test_the_table_of_settings_is_the_settings() -> None:
    """Every variable stands there with the default and the meaning that the code gives it."""
    rows = {name: (default, meaning.replace("`", "")) for name, default, meaning in table("variable")}
    fields = {f"CHIFFRE_{name.upper()}": field for name, field in Settings.model_fields.items()}
    plain = {
        name: field for name, field in fields.items() if field.default is not None and field.default_factory is None
    }

    assert {name: meaning for name, (_, meaning) in rows.items()} == {
        name: (field.description or "").replace("`", "") for name, field in fields.items()
    }
    for name, field in plain.items():
        if not field.is_required():
            text = json.dumps(field.default) if isinstance(field.default, list) else str(field.default)
            assert rows[name][0] == text.removesuffix(".0"), name


def test_compose_hands_on_every_setting() -> None:
    """To some container, but for the home, which is the image's; the port is Compose's own."""
    text = (ROOT / "docker-compose.yml").read_text()
    handed_on = set(re.findall(r"^ +(CHIFFRE_\w+):", text, re.MULTILINE))
    told_of = set(re.findall(r"CHIFFRE_\w+", "".join(line for line in text.splitlines() if line.startswith("#"))))
    settings = {f"CHIFFRE_{name.upper()}" for name in Settings.model_fields}

    assert handed_on == settings - {"CHIFFRE_HOME"}
    assert told_of == handed_on - {"CHIFFRE_DATABASE_URL", "CHIFFRE_BROKER_URL"} | {"CHIFFRE_PORT"}


def test_every_make_target_exists() -> None:
    """`make` knows what the README tells to type."""
    targets = set(
        re.findall(r"\bmake (\w+)\b(?=[`\s])", "\n".join(re.findall(r"`[^`]*`|```.*?```", README, re.DOTALL)))
    )

    assert {"demo", "test", "check", "lint", "up", "format"} <= targets
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_every_chiffre_command_exists() -> None:
    """And every command has a help text."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    named = set(re.findall(r"chiffre (up|worker|migrate|tune|train|trials|predict|\w+)(?=[ `])", README))
    named &= {word for word in named if re.search(rf"`(?:\.venv/bin/)?chiffre {word}\b", README)}

    assert {"up", "tune", "trials", "predict", "worker", "migrate"} <= named <= set(commands)
    assert all(command.help for command in commands.values())


def test_the_table_of_commands_is_the_command() -> None:
    """Every command has its line, and every line a command."""
    groups = typer.main.get_command(app).commands  # type: ignore[attr-defined]

    assert {row[0].split()[1] for row in table("command")} == set(groups)


def test_every_command_that_asks_the_api_answers_in_json() -> None:
    """With --json; those that start services have nothing to answer."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    without = {
        name for name, command in commands.items() if "--json" not in {o for p in command.params for o in p.opts}
    }

    assert without == {"up", "worker", "migrate", "demo"}


@pytest.mark.parametrize(
    "path", ["ml/networks.py", "ml/datasets.py", "ml/samplers.py", "api/routes", "ml/data/README.md"]
)
def test_every_file_that_the_readme_names_exists(path: str) -> None:
    """A newcomer finds the one place to edit."""
    assert path in README
    assert (ROOT / path).exists()


def test_nothing_but_pages_is_undocumented(environment: Path) -> None:
    """No route hides from the OpenAPI document."""
    paths = {route.path for route in create_app().routes if hasattr(route, "path")}

    assert paths - PAGE <= {route.split()[1] for route in routes()}
