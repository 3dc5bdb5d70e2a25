"""Host headers: a page of another site cannot reach the API by giving its own name our address."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.api.tools import BLANK, problem
from worker.settings import settings

OURS = ["127.0.0.1", "127.0.0.1:8000", "localhost", "localhost:8000", "LOCALHOST", "[::1]", "[::1]:8000", "localhost:1"]
OTHERS = [
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "evil-localhost",
    "127.0.0.1.evil.example",
    "evil.example:127.0.0.1",
    "localhost@evil.example",
    "evil.example#localhost",
    "127.0.0.2",
    "0.0.0.0",
    "[::2]",
    "[::1].evil.example",
    "",
    ":8000",
    "*",
]


@pytest.fixture
def api_for(environment: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TestClient]:
    """Return a function that makes an API with known hosts."""

    def make(*hosts: str) -> TestClient:
        from api.main import create_app

        monkeypatch.setenv("CHIFFRE_ALLOWED_HOSTS", json.dumps(hosts))
        settings.cache_clear()
        return TestClient(create_app(), base_url="http://127.0.0.1")

    return make


def status(api: TestClient, host: str) -> int:
    """Return the status that an API answers to a Host header."""
    code: int = api.get("/livez", headers={"host": host}).status_code
    return code


@pytest.mark.parametrize("host", OURS)
def test_this_machines_names_are_answered(shared_api: TestClient, host: str) -> None:
    """They are accepted with and without a port, in upper and lower case."""
    assert status(shared_api, host) == 200


@pytest.mark.parametrize("host", OTHERS)
def test_other_names_are_refused(shared_api: TestClient, host: str) -> None:
    """The answer is 400 and names the setting that would allow the host; it does not repeat the name."""
    response = shared_api.get("/livez", headers={"host": host})
    found = problem(response, 400)

    assert "CHIFFRE_ALLOWED_HOSTS" in found["detail"]
    assert "evil" not in response.text


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/predict"), ("GET", "/jobs"), ("GET", "/docs"), ("GET", "/nothing"), ("PUT", "/jobs")],
)
def test_no_path_is_answered_to_another_name(shared_api: TestClient, method: str, path: str) -> None:
    """The host is checked before everything else."""
    problem(shared_api.request(method, path, headers={"host": "evil.example"}, json={"pixels": BLANK}), 400)


def test_hosts_can_be_added(api_for: Callable[..., TestClient]) -> None:
    """Hosts in CHIFFRE_ALLOWED_HOSTS are answered, and no others."""
    api = api_for("chiffre.example.org", "10.0.0.7", "::1", "[fe80::1]")
    answered = ["chiffre.example.org", "Chiffre.Example.ORG:443", "10.0.0.7:8000", "[::1]:80", "[fe80::1]"]

    assert {host: status(api, host) for host in answered} == dict.fromkeys(answered, 200)
    assert status(api, "example.org") == 400
    assert status(api, "localhost") == 400


def test_a_wildcard_stands_for_any_name_below(api_for: Callable[..., TestClient]) -> None:
    """`*.example.org` allows every name with this ending, but neither the domain itself nor a lookalike."""
    api = api_for("*.example.org")

    assert status(api, "a.example.org") == status(api, "a.b.example.org:8000") == 200
    assert status(api, "example.org") == status(api, "evilexample.org") == status(api, "a.example.org.evil") == 400


def test_a_star_stands_for_every_name(api_for: Callable[..., TestClient]) -> None:
    """Behind a proxy that checks names itself, all hosts can be allowed."""
    api = api_for("*")

    assert {status(api, host) for host in [*OURS, *OTHERS]} == {200}


OTHER_SITES = ["https://evil.example", "null", "http://localhost.evil.example:8000", "https://evil.example:127.0.0.1"]


@pytest.mark.parametrize("origin", OTHER_SITES)
def test_a_page_of_another_site_changes_nothing_here(shared_api: TestClient, origin: str) -> None:
    """A browser sends a request without a body unasked, but names the origin of the page."""
    headers = {"origin": origin}

    assert problem(shared_api.post("/models/cnn/champion/rollback", headers=headers), 403)
    assert problem(shared_api.post("/predict", content=BLANK, headers=headers), 403)
    assert shared_api.get("/livez", headers=headers).status_code == 200


@pytest.mark.parametrize("origin", ["http://127.0.0.1", "http://localhost:8000", None])
def test_our_own_page_and_those_that_are_no_page_do(shared_api: TestClient, origin: str | None) -> None:
    """Requests of our own page are allowed, and those of commands, which have no origin."""
    headers = {} if origin is None else {"origin": origin}

    assert shared_api.post("/models/cnn/champion/rollback", headers=headers).status_code == 404
