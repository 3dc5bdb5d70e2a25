"""The files of the page: how they are served, what they may import, and what they may contain."""

import posixpath
import re
from graphlib import CycleError, TopologicalSorter

import pytest
from starlette.testclient import TestClient

from api.page import FILES

PAGES = {"/": "text/html", "/docs": "text/html", "/web/main.js": "text/javascript", "/web/styles/style.css": "text/css"}
SOURCES = {path.relative_to(FILES).as_posix(): path.read_text() for path in FILES.rglob("*") if path.is_file()}
SCRIPTS = {name: text for name, text in SOURCES.items() if name.endswith(".js")}
RANKS = {"views": 2, "forms": 1, "charts": 1, "drawing": 1, "": 0}  # by folder; an import never points to a higher rank

IMPORT = re.compile(r"^import (?:\{([^}]*)\} from )?\"(\.[^\"]+)\"", re.MULTILINE)
LAZY_IMPORT = re.compile(r"\bimport\(\"(\.[^\"]+)\"\)")


def target(importer: str, source: str) -> str:
    """Return the file that an import names, relative to the page's folder."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(importer), source))


@pytest.mark.parametrize(("path", "kind"), PAGES.items())
def test_a_file_has_its_content_type_and_a_security_policy(shared_api: TestClient, path: str, kind: str) -> None:
    """The policy allows only this service's scripts, and no site may frame the page."""
    answer = shared_api.get(path)
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["style-src"] == ("'self' 'unsafe-inline'" if path == "/docs" else "'self'")


def test_a_cached_file_is_not_sent_again(shared_api: TestClient) -> None:
    """A request with the file's ETag gets 304 without a body, and the same caching rule."""
    for path in PAGES:
        first = shared_api.get(path)
        again = shared_api.get(path, headers={"If-None-Match": first.headers["etag"]})

        assert again.status_code == 304, path
        assert again.content == b"", path
        assert again.headers["cache-control"] == first.headers["cache-control"] == "no-cache", path


def test_no_file_outside_the_pages_folder_is_served(shared_api: TestClient) -> None:
    """Paths outside the page's folder get 404, also by way of `..`."""
    for path in ("/web/nothing.js", "/web/../page.py", "/web/%2e%2e/page.py", "/docs/files/nothing"):
        assert shared_api.get(path).status_code == 404, path


def test_the_documentation_loads_its_files_from_this_service(shared_api: TestClient) -> None:
    """The page at /docs loads Swagger UI from this service, which has the files."""
    for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert f'"/docs/files/{name}"' in shared_api.get("/docs").text, name
        assert len(shared_api.get(f"/docs/files/{name}").content) > 100_000, name


def test_no_file_names_another_host_or_has_inline_code() -> None:
    """No source contains what the policy would refuse."""
    for name, text in SOURCES.items():
        assert not re.search(r"(src|href|url\(|import|from|fetch\()\s*=?\s*[\"'(]?(https?:)?//", text), name
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=\"|\son\w+=\"|javascript:", text), name
        assert not re.search(r"\beval\(|new Function|innerHTML\s*=[^=]|document\.write", text), name


def test_every_imported_name_is_exported() -> None:
    """No build step checks this. A module that is loaded lazily must be a view."""
    for name, text in SCRIPTS.items():
        for names, source in IMPORT.findall(text):
            exported = SCRIPTS[target(name, source)]
            for imported in filter(None, map(str.strip, names.split(","))):
                export = rf"^export (async )?(const|let|function\*?|class) {re.escape(imported)}\b"
                assert re.search(export, exported, re.MULTILINE), f"{name} imports {imported} from {source}"
        for source in LAZY_IMPORT.findall(text):
            view = SCRIPTS[target(name, source)]
            assert re.search(r"^export async function show\(", view, re.MULTILINE), f"{name} loads {source}"


def test_imports_have_no_cycle_and_point_from_views_to_the_root() -> None:
    """A module imports from its own rank or below: views, then forms, charts and drawing, then the root."""
    graph = {
        name: [target(name, source) for _, source in IMPORT.findall(text)]
        + [target(name, source) for source in LAZY_IMPORT.findall(text)]
        for name, text in SCRIPTS.items()
    }
    for name, text in SCRIPTS.items():
        for _, source in IMPORT.findall(text):
            ranks = [RANKS[posixpath.dirname(path)] for path in (name, target(name, source))]
            assert ranks[0] >= ranks[1], f"{name} imports {source}"

    assert sum(map(len, graph.values())) > len(SCRIPTS)  # the patterns find the imports
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' → '.join(error.args[1])}")


def test_the_header_links_to_the_help(shared_api: TestClient) -> None:
    """The navigation has a link to the built documentation, next to the one to the API."""
    navigation = re.search(r"<nav aria-label=\"Pages\">(.*?)</nav>", shared_api.get("/").text, re.DOTALL)

    assert navigation is not None
    assert '<a href="/help">Help</a>' in navigation[1]


def test_the_page_is_small() -> None:
    """All files together, with every view, take less than 300 kB uncompressed."""
    assert sum(path.stat().st_size for path in FILES.rglob("*") if path.is_file()) < 300_000
