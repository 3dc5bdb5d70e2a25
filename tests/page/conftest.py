"""Fixtures of the page's tests: a browser, a page that must have no errors, and running services."""

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

expect.set_options(timeout=60_000)  # milliseconds, for a busy machine; a test continues as soon as its condition holds

# A few seconds of training each: good enough to recognise a seven, and bad enough to make mistakes.
TRAINED: tuple[dict[str, Any], ...] = (
    {"model": "shallow", "params": {"batch_size": 64, "hidden_size": 128}, "budget": {"epochs": 2}},
    {"model": "shallow", "params": {"batch_size": 500, "hidden_size": 16}, "budget": {"epochs": 1}},
    {"model": "perceptron", "params": {"batch_size": 64}, "budget": {"epochs": 1}},
    {"model": "mlp", "params": {"batch_size": 64, "hidden_sizes": [128, 64]}, "budget": {"epochs": 1}},
    {"model": "cnn", "images": 21_000, "params": {"batch_size": 64}, "budget": {"epochs": 1}},
)


@pytest.fixture(scope="module")  # Playwright's event loop blocks others, and other modules' tests use loops too
def browser() -> Iterator[Browser]:
    """Start Chromium, which takes about a second. Without Chromium the tests fail instead of being skipped."""
    try:
        found = chromium()
    except NoChromium as error:
        pytest.fail(str(error), pytrace=False)
    with sync_playwright() as playwright:
        # Chromium's sandbox does not run as root.
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Open a new page, and check at the end that it had no error and made no request to another host."""
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
    assert hosts <= {"127.0.0.1", ""}  # an empty host is data that the page made itself


def _is_error(message: ConsoleMessage) -> bool:
    """Return whether a console message is an error of the page; failed requests are shown to the reader instead."""
    return message.type == "error" and not message.text.startswith("Failed to load resource")


@pytest.fixture
def axe() -> Callable[..., list[str]]:
    """Return a function that lists serious and critical violations on a page, of all rules of axe-core or of some."""
    source = files("axe_playwright_python").joinpath("axe.min.js").read_text()

    def findings(page: Page, *rules: str) -> list[str]:
        page.evaluate(source)
        # What passes is not listed, which saves most of the time.
        options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
        found = page.evaluate("options => axe.run(options)", options)
        return [
            f"{rule['impact']} {rule['id']}: {rule['help']}: {node['html'][:200]}"
            for rule in found["violations"]
            if rule["impact"] in ("serious", "critical")
            for node in rule["nodes"]
        ]

    return findings


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Start a whole service, with a worker that trains."""
    with chiffre_up(tmp_path_factory.mktemp("page")) as up:
        yield Service(up.url, up)


@pytest.fixture(scope="session")
def trained(service: Service) -> Service:
    """Train all four networks on MNIST by real jobs of the service; the shallow network is trained twice."""
    with Chiffre(service.url) as client:
        jobs = [client.train({"dataset": "mnist", **spec})["id"] for spec in TRAINED]
        states = [list(client.follow(job))[-1]["state"] for job in jobs]
    assert states == ["completed"] * len(jobs)
    return service


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[tuple[str, Work]]:
    """Start an API without a worker, and yield its URL and its database with a ledger."""
    home = tmp_path_factory.mktemp("idle")
    shutil.copy(sqlite_template, home / "chiffre.db")
    database = Database(f"sqlite:///{home / 'chiffre.db'}")
    work = Work(database, Ledger(database), Leases(database, "one", 60), Leases(database, "two", 60))
    with uvicorn_process(CHIFFRE_HOME=str(home), CHIFFRE_DATABASE_URL=f"sqlite:///{home / 'chiffre.db'}") as url:
        yield url, work
    database.close()
