"""What the tests of the page share: a browser, a page that must stay without errors, and services to look at."""

import shutil
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright
from support.worker_tools import Work

from api.client import Chiffre
from benchmarks.chromium import NoChromium, chromium
from tests.acceptance.services import chiffre_up
from tests.api.tools import uvicorn_process
from tests.page.services import Service
from worker.database.engine import Database
from worker.ledger.leases import Leases
from worker.ledger.ledger import Ledger

expect.set_options(timeout=60_000)  # milliseconds; a busy machine is slow, and nobody waits longer than need be

# A few seconds' training each: good enough to know a seven, and bad enough to make mistakes.
TRAINED: tuple[dict[str, Any], ...] = (
    {"model": "shallow", "params": {"batch_size": 64, "hidden_size": 128}, "budget": {"epochs": 2}},
    {"model": "shallow", "params": {"batch_size": 500, "hidden_size": 16}, "budget": {"epochs": 1}},
    {"model": "perceptron", "params": {"batch_size": 64}, "budget": {"epochs": 1}},
    {"model": "mlp", "params": {"batch_size": 64, "hidden_sizes": [128, 64]}, "budget": {"epochs": 1}},
    {"model": "cnn", "params": {"batch_size": 64}, "budget": {"epochs": 1}},
)


@pytest.fixture(scope="module")  # its loop runs until it ends, and others' tests on this worker have loops too
def browser() -> Iterator[Browser]:
    """A Chromium; without one the tests fail, as nobody shall think that the page was tested."""
    try:
        found = chromium()
    except NoChromium as error:
        pytest.fail(str(error), pytrace=False)
    with sync_playwright() as playwright:
        # Its sandbox does not run as root.
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of its own; at the end of the test there must have been no error and no request to another host."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    wrong: list[str] = []
    hosts: set[str] = set()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if _is_error(message) else None)
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname or ""))
    yield page
    context.close()

    assert not wrong
    assert hosts <= {"127.0.0.1", ""}  # without a host: what the page made itself


def _is_error(message: ConsoleMessage) -> bool:
    """Whether the console tells of a mistake; that an answer was 422 is told to the person, by the page."""
    return message.type == "error" and not message.text.startswith("Failed to load resource")


@pytest.fixture
def axe() -> Callable[[Page], list[str]]:
    """What axe-core finds on a page that is serious or worse, in words."""
    source = files("axe_playwright_python").joinpath("axe.min.js").read_text()

    def findings(page: Page) -> list[str]:
        page.evaluate(source)
        found = page.evaluate("axe.run()")
        return [
            f"{rule['impact']} {rule['id']}: {rule['help']}: {node['html'][:200]}"
            for rule in found["violations"]
            if rule["impact"] in ("serious", "critical")
            for node in rule["nodes"]
        ]

    return findings


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A whole service, with a worker that trains."""
    with chiffre_up(tmp_path_factory.mktemp("page")) as up:
        yield Service(up.url, up)


@pytest.fixture(scope="session")
def trained(service: Service) -> Service:
    """The same service with all four networks, trained on MNIST by real jobs, the shallow one twice."""
    with Chiffre(service.url) as client:
        jobs = [client.train({"dataset": "mnist", **spec})["id"] for spec in TRAINED]
        states = [list(client.follow(job))[-1]["state"] for job in jobs]
    assert states == ["completed"] * len(jobs)
    return service


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[tuple[str, Work]]:
    """The URL of an API that no worker works for, and its database, to write into."""
    home = tmp_path_factory.mktemp("idle")
    shutil.copy(sqlite_template, home / "chiffre.db")
    database = Database(f"sqlite:///{home / 'chiffre.db'}")
    work = Work(database, Ledger(database), Leases(database, "one", 60), Leases(database, "two", 60))
    with uvicorn_process(CHIFFRE_HOME=str(home), CHIFFRE_DATABASE_URL=f"sqlite:///{home / 'chiffre.db'}") as url:
        yield url, work
    database.close()
