"""The page's files: where they lie, what they may do, and that they need nobody else."""

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.page import FILES

PAGES = {"/": "text/html", "/docs": "text/html", "/web/main.js": "text/javascript", "/web/styles/style.css": "text/css"}
SCRIPTS = sorted(FILES.rglob("*.js"))


@pytest.mark.parametrize(("path", "kind"), PAGES.items())
def test_a_file_is_answered_with_its_type_and_a_policy(shared_api: TestClient, path: str, kind: str) -> None:
    """Nothing but this service's own scripts run, and nobody may frame it."""
    answer = shared_api.get(path)
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["style-src"] == ("'self' 'unsafe-inline'" if path == "/docs" else "'self'")


@pytest.mark.parametrize("path", PAGES)
def test_a_file_that_is_known_is_not_sent_again(shared_api: TestClient, path: str) -> None:
    """A browser asks by ETag and gets 304, with the same policy."""
    first = shared_api.get(path)
    again = shared_api.get(path, headers={"If-None-Match": first.headers["etag"]})

    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["cache-control"] == first.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/web/nothing.js", "/web/../page.py", "/web/%2e%2e/page.py", "/docs/files/nothing"])
def test_nothing_else_is_answered(shared_api: TestClient, path: str) -> None:
    """No file beside the page's own."""
    assert shared_api.get(path).status_code == 404


@pytest.mark.parametrize("name", ["swagger-ui-bundle.js", "swagger-ui.css"])
def test_the_documentation_has_its_files_here(shared_api: TestClient, name: str) -> None:
    """Swagger UI is asked for at this service, and is there."""
    assert f'"/docs/files/{name}"' in shared_api.get("/docs").text
    assert len(shared_api.get(f"/docs/files/{name}").content) > 100_000


@pytest.mark.parametrize(
    "path", sorted(path for path in FILES.rglob("*") if path.is_file()), ids=lambda path: path.name
)
def test_a_file_names_no_other_host_and_has_nothing_inline(path: Path) -> None:
    """What the policy would refuse is not written."""
    text = path.read_text()

    assert not re.search(r"(src|href|url\(|import|from|fetch\()\s*=?\s*[\"'(]?(https?:)?//", text)
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=\"|\son\w+=\"|javascript:", text)
    assert not re.search(r"\beval\(|new Function|innerHTML\s*=[^=]|document\.write", text)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_module_imports_what_another_exports(path: Path) -> None:
    """There is no build step that would notice a wrong name."""
    for names, source in re.findall(r"^import \{([^}]*)\} from \"(\.[\w./]+)\"", path.read_text(), re.MULTILINE):
        exported = (path.parent / source).read_text()
        for name in filter(None, (part.strip() for part in names.split(","))):
            assert re.search(
                rf"^export (async )?(const|let|function\*?|class) {re.escape(name)}\b", exported, re.MULTILINE
            )
    for source in re.findall(r"import\(\"\./([\w.]+)\"\)", path.read_text()):
        assert re.search(r"^export async function show\(", (FILES / source).read_text(), re.MULTILINE)


def test_the_page_is_small() -> None:
    """All of it, every view included, is under 300 kB, uncompressed."""
    assert sum(path.stat().st_size for path in FILES.rglob("*") if path.is_file()) < 300_000
