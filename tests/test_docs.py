"""README and documentation, compared with the code: commands, requests, settings, examples, paths, links, the site."""

import hashlib
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from base64 import b64encode
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import jsonschema_rs  # of schemathesis
import pytest
import typer.main
from starlette.applications import Starlette
from starlette.testclient import TestClient

from api.cli.app import app
from api.client import Chiffre
from api.main import create_app
from api.page import HELP, HelpFiles
from docs.generate import PAGES
from ml.datasets import datasets
from ml.networks import networks
from ml.optimizers import optimizers
from ml.parameters.params import describe
from ml.records import TrialState
from ml.samplers import pruners, samplers
from ml.specs import TrainSpec, TuneSpec
from worker.database.tables import JobState, StopReason
from worker.settings import Settings, settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = ROOT / "docs"
WRITTEN = sorted(path for path in DOCS.rglob("*.md") if path.parent.name != "generated")
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *WRITTEN]
}
ALL = "\n".join(TEXTS.values())
SITE = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
# Routes of documents and pages, which are not part of the API.
PAGE = {"/openapi.json", "/docs", "/docs/files", "/", "/web", "/help"}
GENERATED = {"docs/generated"}  # made by `make docs`


@pytest.fixture(scope="module")
def service_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the settings name a folder of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHIFFRE_HOME", str(tmp_path_factory.mktemp("home")))
        settings.cache_clear()
        yield
    settings.cache_clear()


@pytest.fixture(scope="module")
def generated(service_home: None) -> dict[str, str]:
    """Return the text of every generated page, by its name."""
    return {name: "\n\n".join(part for part in page() if part) for name, page in PAGES.items()}


@pytest.fixture(scope="module")
def document(service_home: None) -> dict[str, Any]:
    """Return the OpenAPI document."""
    return create_app().openapi()


def routes(document: dict[str, Any]) -> set[str]:
    """Return every route of the application, as "METHOD /path"."""
    return {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}


def rows(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the table with this first heading."""
    lines = text[text.index(f"| {heading} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def blocks(text: str, *languages: str) -> list[str]:
    """Return the fenced blocks of these languages."""
    return [found for name, found in re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL) if name in languages]


def curls(text: str) -> list[tuple[str, str, str | None]]:
    """Return the method, path and body of every curl command."""
    found = []
    for block in blocks(text, "console", "sh"):
        for line in re.findall(r"^(?:\$ )?(curl .*)$", block.replace("\\\n", " "), re.MULTILINE):
            path = re.search(r"localhost:8000(/[^\s'?]*)", line)
            body = re.search(r"-d '(.*?)'", line)
            assert path, line
            found.append(("POST" if body or "--data-binary" in line else "GET", path[1], body[1] if body else None))
    return found


def examples() -> list[dict[str, Any]]:
    """Return every example of a request body in the documentation."""
    found = [json.loads(block) for text in TEXTS.values() for block in blocks(text, "json")]
    return [body for body in found if isinstance(body, dict)]


def inline() -> list[str]:
    """Return all text in code quotes outside fenced blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", ALL, flags=re.DOTALL))


def test_readme_is_one_screen() -> None:
    """It has at most 150 lines, none of them very long."""
    lines = README.splitlines()

    assert len(lines) <= 150
    assert max(len(line) for line in lines if not line.startswith(("|", "$"))) <= 125


def test_no_folder_of_the_documentation_holds_more_than_twenty_files() -> None:
    """A reader can then see a folder at a glance."""
    folders = [DOCS, *(path for path in DOCS.rglob("*") if path.is_dir() and path.name != "__pycache__")]

    for folder in folders:
        assert len([path for path in folder.iterdir() if path.is_file()]) <= 20, folder


def test_the_reference_has_every_route_and_no_other(generated: dict[str, str], document: dict[str, Any]) -> None:
    """Each route is in a table and has a section."""
    page = generated["routes"]
    listed = re.findall(r"^\| \[`([A-Z]+ [^`]+)`\]", page, re.MULTILINE)
    sections = re.findall(r"^### `([A-Z]+ [^`]+)`", page, re.MULTILINE)

    assert set(listed) == set(sections) == routes(document)
    assert len(listed) == len(sections) == len(routes(document))


def test_the_reference_has_every_object(generated: dict[str, str], document: dict[str, Any]) -> None:
    """Each section lists all fields of its object."""
    page = generated["schemas"]

    for name, schema in document["components"]["schemas"].items():
        section = page[page.index(f"## {name} {{") :].split("\n\n## ")[0]
        assert all(f"| `{field}` |" in section for field in schema.get("properties", {})), name


def test_every_curl_command_calls_a_route_that_exists(document: dict[str, Any]) -> None:
    """A reader can type the commands as they are shown."""
    patterns = [(route.split()[0], re.sub(r"{\w+}", "[^/]+", route.split()[1])) for route in routes(document)]

    for method, path, _ in curls(ALL):
        assert any(m == method and re.fullmatch(p, path) for m, p in patterns), f"{method} {path}"


def test_every_request_that_a_text_names_exists(document: dict[str, Any]) -> None:
    """The test finds requests in code quotes by their method."""
    named = {quoted for quoted in inline() if re.match(r"(GET|POST|PUT|PATCH|DELETE) /", quoted)}

    assert len(named) > 20
    assert {quoted.split("?")[0] for quoted in named} <= routes(document) | {"GET /docs"}


def test_readme_has_a_session() -> None:
    """The session has five commands or more."""
    assert len(curls(README)) >= 5


@pytest.mark.parametrize("name", ["README.md", "docs/tutorials/first-search.md"])
def test_every_example_job_is_accepted(name: str) -> None:
    """The exception is one example that shows an error."""
    bodies = [json.loads(body) for _, path, body in curls(TEXTS[name]) if path.startswith("/jobs") and body]
    good = [body for body in bodies if "lr" not in body.get("search_space", {})]

    assert len(good) == len(bodies) - 1
    assert all(TuneSpec.model_validate(spec) for spec in good)


def test_every_example_of_a_body_is_valid(document: dict[str, Any]) -> None:
    """Specifications are checked as the service does, and other bodies against the OpenAPI document."""
    found = dict.fromkeys(("tune", "train", "predict", "evaluate", "experiments"), 0)
    for body in examples():
        if "params" in body:
            kind = "train"
            TrainSpec.model_validate(body)
        elif "collection" in body:
            kind = "experiments"
        elif "subset" in body:
            kind = "predict"
        elif "version" in body:
            kind = "evaluate"
        else:
            kind = "tune"
            TuneSpec.model_validate(body if "budget" in body else {**body, "budget": {"trials": 1}})
        found[kind] += 1
        if kind not in ("train", "tune"):
            content = document["paths"][f"/jobs/{kind}"]["post"]["requestBody"]["content"]["application/json"]
            jsonschema_rs.validate({**content["schema"], "components": document["components"]}, body)

    assert all(found.values()), found


def test_the_table_of_settings_equals_the_settings_class(generated: dict[str, str]) -> None:
    """Every variable has the default and the description of the code."""
    listed = {
        name.strip("`"): (default.strip("`"), text) for name, default, text in rows(generated["settings"], "variable")
    }
    fields = {f"CHIFFRE_{name.upper()}": field for name, field in Settings.model_fields.items()}

    assert {name: text for name, (_, text) in listed.items()} == {
        name: field.description or "" for name, field in fields.items()
    }
    for name, field in fields.items():
        assert listed[name][0]
        if field.default is not None:
            text = json.dumps(field.default) if isinstance(field.default, list) else str(field.default)
            assert listed[name][0] == text, name


def test_every_setting_that_a_text_names_exists() -> None:
    """Besides the settings, the client's URL and Compose's port may be named."""
    named = set(re.findall(r"\bCHIFFRE_[A-Z_]+\b", ALL))
    known = {f"CHIFFRE_{name.upper()}" for name in Settings.model_fields} | {"CHIFFRE_URL", "CHIFFRE_PORT"}

    assert named - {"CHIFFRE_MAX_"} <= known


def test_compose_passes_on_every_setting() -> None:
    """The exception is the home, which the image fixes. The comments list settings, and Compose's own port."""
    text = (ROOT / "docker-compose.yml").read_text()
    handed_on = set(re.findall(r"^ +(CHIFFRE_\w+):", text, re.MULTILINE))
    told_of = set(re.findall(r"CHIFFRE_\w+", "".join(line for line in text.splitlines() if line.startswith("#"))))
    names = {f"CHIFFRE_{name.upper()}" for name in Settings.model_fields}

    assert handed_on == names - {"CHIFFRE_HOME"}
    assert told_of == handed_on - {"CHIFFRE_DATABASE_URL", "CHIFFRE_BROKER_URL"} | {"CHIFFRE_PORT"}


def test_every_make_target_exists() -> None:
    """`make` accepts every target that a text names."""
    quoted = "\n".join(re.findall(r"`[^`\n]*`|```.*?```", ALL, re.DOTALL))
    targets = set(re.findall(r"\bmake ([\w-]+)(?=[`\s])", quoted))
    known = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert {"demo", "test", "check", "lint", "up", "format", "docs", "chaos"} <= targets <= known
    subprocess.run(["make", "-n", *sorted(targets)], cwd=ROOT, check=True, capture_output=True)


def chiffre_commands() -> dict[str, Any]:
    """Return every command by its words."""
    found: dict[str, Any] = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        found[name] = command
        found |= {f"{name} {below}": one for below, one in getattr(command, "commands", {}).items()}
    return found


def test_every_chiffre_command_exists_and_takes_the_options_shown() -> None:
    """Every command also has a help text."""
    commands = chiffre_commands()
    typed = {quoted for quoted in inline() if quoted.startswith("chiffre ")}
    typed |= {
        line.split("#")[0] for block in blocks(ALL, "sh") for line in block.splitlines() if line.startswith("chiffre ")
    }

    assert len(typed) > 20
    for line in sorted(typed):
        first, *rest = [word for word in shlex.split(line)[1:] if word != "…"]
        if first == "--install-completion":
            continue
        name = f"{first} {rest[0]}" if rest and f"{first} {rest[0]}" in commands else first
        assert name in commands, line
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert {word for word in rest if word.startswith("-") and len(word) > 1} <= known, line
    assert all(command.help for command in commands.values())


def test_the_reference_has_every_command(generated: dict[str, str]) -> None:
    """Each section lists all options of its command."""
    page = generated["commands"]
    groups = typer.main.get_command(app).commands  # type: ignore[attr-defined]

    assert [re.findall(r"`chiffre ([\w-]+)`", row[0])[0] for row in rows(page, "command")] == list(groups)
    for name, command in chiffre_commands().items():
        section = page[page.index(f"{{ #chiffre-{name.replace(' ', '-')} }}") :].split("\n\n## ")[0]
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                assert parameter.opts[0] in section, (name, parameter.name)


def test_every_command_that_asks_the_api_can_answer_in_json() -> None:
    """Each such command takes --json; commands that start services have no answer."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    without = {
        name for name, command in commands.items() if "--json" not in {o for p in command.params for o in p.opts}
    }

    assert without == {"up", "worker", "migrate", "demo"}


def test_the_catalog_has_everything_that_a_specification_can_name(generated: dict[str, str]) -> None:
    """It lists networks, data sets, samplers, pruners and optimizers, each with its parameters."""
    page = generated["catalog"]
    entries: dict[str, Any] = {f"network-{name}": entry.params for name, entry in networks.items()}
    for kind, registry in (("sampler", samplers), ("pruner", pruners), ("optimizer", optimizers)):
        entries |= {f"{kind}-{name.replace('_', '-')}": entry for name, entry in registry.items()}

    for anchor, model in entries.items():
        assert f"{{ #{anchor} }}" in page
        assert all(f"| `{name}` |" in page for name in describe(model) if name != "name"), anchor
    assert all(f"| `{name}` |" in page for name in datasets)


def test_the_reference_has_every_state_with_a_meaning(generated: dict[str, str]) -> None:
    """It lists the states of jobs and trials, and every reason to stop."""
    for states in (JobState, TrialState):
        for state in states:
            assert re.search(rf"^\| `{state.value}` \| \S", generated["states"], re.MULTILINE), state
    assert all(f"`{reason.value}`" in generated["states"] for reason in StopReason)


def test_the_specifications_have_every_field(generated: dict[str, str]) -> None:
    """The page lists the fields of tuning jobs and of training jobs."""
    for model in (TuneSpec, TrainSpec):
        assert all(f"| `{name}` |" in generated["specifications"] for name in model.model_fields)


def test_every_path_that_a_text_names_exists() -> None:
    """A newcomer can then find the place to edit."""
    roots = ("ml/", "worker/", "api/", "tests/", "docs/", "benchmarks/", "alembic/")
    named = {quoted for quoted in inline() if quoted.startswith(roots) and re.fullmatch(r"[\w./-]+", quoted)}

    assert len(named) > 60
    for path in named:
        assert (ROOT / path).exists() or path.rstrip("/") in GENERATED, path


@pytest.mark.parametrize("layer", ["ml", "worker", "api"])
def test_the_design_lists_every_folder_in_the_order_of_imports(layer: str) -> None:
    """The order is from the bottom up, as import-linter enforces it."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (ordered,) = [contract["layers"] for contract in contracts if contract.get("containers") == [layer]]
    heights = {name: height for height, names in enumerate(reversed(ordered)) for name in names.split(" | ")}
    section = TEXTS["docs/architecture.md"].split(f"### `{layer}`, from the bottom up")[1].split("\n### ")[0]
    places = re.findall(rf"`{layer}/(\w+)(?:/|\.py)`", "\n".join(row[0] for row in rows(section, "place")))

    assert sorted(places) == sorted(heights)
    assert [heights[name] for name in places] == sorted(heights.values())


@pytest.mark.parametrize("path", ["ml/networks.py", "ml/datasets.py", "ml/samplers.py", "api/routes/", "ml/layers.py"])
def test_the_places_that_a_newcomer_edits_are_named(path: str) -> None:
    """The contributor's page and the design name them."""
    assert f"`{path}`" in TEXTS["CONTRIBUTING.md"]
    assert f"`{path}`" in TEXTS["docs/architecture.md"]


def test_every_module_that_a_text_runs_exists() -> None:
    """`python -m …` finds each of them."""
    named = set(re.findall(r"python -m ((?:ml|worker|benchmarks|docs|acceptance)[\w.]*)", ALL))

    assert len(named) > 10
    assert all(importlib.util.find_spec(name) for name in named)


def test_the_tutorial_of_the_client_calls_methods_that_exist() -> None:
    """Its blocks are valid Python, too."""
    for block in blocks(TEXTS["docs/tutorials/python-client.md"], "python"):
        compile(block, "python-client.md", "exec")
        assert all(hasattr(Chiffre, name) for name in re.findall(r"\bclient\.(\w+)\(", block)), block


def test_every_relative_link_leads_to_a_file() -> None:
    """Links are checked in plain Markdown too; links to generated pages are accepted before they are built."""
    for name, text in TEXTS.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)):
            path = urlsplit(link).path
            target = (ROOT / name).parent / path
            made = target.resolve().parent == DOCS / "generated" and target.stem in PAGES
            assert urlsplit(link).scheme or made or target.exists(), (name, link)


def test_every_page_is_in_the_navigation() -> None:
    """The navigation names no other page either."""

    def leaves(nav: Any) -> Iterator[str]:
        for entry in nav if isinstance(nav, list) else nav.values():
            yield from [entry] if isinstance(entry, str) else leaves(entry)

    written = {str(path.relative_to(DOCS)) for path in WRITTEN}
    assert set(leaves(SITE["nav"])) == written | {f"generated/{name}.md" for name in PAGES}


def test_the_changelog_has_this_version() -> None:
    """Its newest entry is the version in pyproject.toml."""
    versions = re.findall(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert versions[0] == project["project"]["version"]
    assert f"{HELP.relative_to(ROOT)}/**" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["artifacts"]
    assert SITE["site_dir"] == str(HELP.relative_to(ROOT))


def test_pre_commit_runs_the_same_ruff() -> None:
    """Its revision is the version that constraints.txt pins."""
    pinned = re.search(r"^ruff==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)

    assert pinned
    assert f"rev: v{pinned[1]}\n" in (ROOT / ".pre-commit-config.yaml").read_text()


def test_every_route_except_pages_is_documented(environment: Path) -> None:
    """The OpenAPI document lists every route of the API."""
    application = create_app()
    paths = {route.path for route in application.routes if hasattr(route, "path")}

    assert paths - PAGE <= set(application.openapi()["paths"])


INLINE = b"<script>start()</script>"


@pytest.fixture
def helped(tmp_path: Path) -> TestClient:
    """Return a client of a service with two pages of documentation, one of which has a script."""
    (tmp_path / "page").mkdir()
    (tmp_path / "index.html").write_bytes(b"<p>Home" + INLINE + b'<script src="a.js"></script>')
    (tmp_path / "page" / "index.html").write_bytes(b"<p>Page")
    (tmp_path / "search.json").write_text("{}")
    application = Starlette()
    application.mount("/help", HelpFiles(tmp_path))
    return TestClient(application)


def scripts_of(policy: str) -> str:
    """Return the part of a policy that says which scripts may run."""
    return next(part for part in policy.split("; ") if part.startswith("script-src"))


def test_help_allows_the_scripts_of_its_own_pages_by_their_hashes(helped: TestClient) -> None:
    """It allows no others. An answer without a body has the policy too, because a browser uses its policy."""
    first = helped.get("/help/")
    again = helped.get("/help/", headers={"If-None-Match": first.headers["etag"]})
    hashed = b64encode(hashlib.sha256(b"start()").digest()).decode()

    assert first.status_code == 200
    assert again.status_code == 304
    for answer in (first, again):
        assert scripts_of(answer.headers["content-security-policy"]) == f"script-src 'self' 'sha256-{hashed}'"
    for path in ("/help/page/", "/help/search.json"):
        answer = helped.get(path)
        assert answer.status_code == 200
        assert scripts_of(answer.headers["content-security-policy"]) == "script-src 'self'"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_help_serves_no_other_files(helped: TestClient) -> None:
    """A missing file and a file outside the folder are both 404."""
    assert helped.get("/help/nothing/").status_code == 404
    assert helped.get("/help/%2e%2e/secret").status_code == 404


def test_help_says_how_to_build_missing_documentation(tmp_path: Path) -> None:
    """It is a plain page with the same policy."""
    application = Starlette()
    application.mount("/help", HelpFiles(tmp_path / "absent"))
    client = TestClient(application)
    answer = client.get("/help/")

    assert answer.status_code == 200
    assert "make docs" in answer.text
    assert scripts_of(answer.headers["content-security-policy"]) == "script-src 'self'"
    assert client.get("/help/page/").status_code == 404


def test_help_without_a_slash_redirects_to_its_folder(api: TestClient) -> None:
    """The redirect has a relative address, which a proxy need not rewrite."""
    answer = api.get("/help", follow_redirects=False)

    assert answer.headers["location"] == "/help/"
    assert api.get("/help").status_code == 200


class Links(HTMLParser):
    """A parser that collects the references of a page, and the ids in it that others can refer to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.loads: set[str] = set()  # scripts, styles, pictures
        self.links: set[str] = set()
        self.classes: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.ids |= {found["id"]} if "id" in found else set()
        self.classes |= set(found.get("class", "").split())
        if tag == "a" and "href" in found:
            self.links.add(found["href"])
        elif tag == "link" and "href" in found:
            self.loads.add(found["href"])
        elif "src" in found:
            self.loads.add(found["src"])


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a copy of the site's sources and its generated pages."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(DOCS, folder / "docs", ignore=shutil.ignore_patterns("generated", "__pycache__"))
    shutil.copy(ROOT / "zensical.toml", folder)
    subprocess.run([sys.executable, "-m", "docs.generate", str(folder / "docs/generated")], cwd=ROOT, check=True)
    return folder


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site as `make docs` does, without a network."""
    zensical = [str(Path(sys.executable).parent / "zensical"), "build", "--clean", "--strict"]
    offline = {"PATH": "/usr/bin:/bin", "https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    return subprocess.run(zensical, cwd=folder, env=offline, capture_output=True, text=True, check=False)


@pytest.mark.long
def test_the_site_builds_strictly_and_needs_no_other_host(checkout: Path) -> None:
    """Every link and anchor has a target, and no page loads a file from elsewhere."""
    done = build(checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    site = checkout / SITE["site_dir"]
    pages = {page: Links(page) for page in site.rglob("*.html") if page.name != "404.html"}

    assert len(pages) == len(WRITTEN) + len(PAGES)
    for page, found in pages.items():
        # For pages with these classes, the theme loads scripts from other hosts.
        assert not found.classes & {"mermaid", "arithmatex", "glightbox", "pyodide"}
        assert not [load for load in found.loads if urlsplit(load).netloc or urlsplit(load).scheme]
        for link in found.loads | found.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or parts.path.startswith("/"):
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), (page, link)
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].ids | {"__skip"}, (page, link)
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style.read_text()), style
    assert not list(site.rglob("*.py"))


@pytest.mark.long
@pytest.mark.parametrize("mistake", ["[gone](gone.md)", "[no such place](glossary.md#nothing)"])
def test_the_site_is_not_built_with_a_broken_link(checkout: Path, tmp_path: Path, mistake: str) -> None:
    """A broken link is a warning, and a warning is an error."""
    copy = tmp_path / "checkout"
    shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns("help", ".cache"))
    index = copy / "docs" / "index.md"
    index.write_text(f"{index.read_text()}\n{mistake}\n")

    assert build(copy).returncode != 0
