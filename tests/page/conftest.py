"""What the tests of the page share: a browser, a page that must stay without errors, and services to look at."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.acceptance.services import Up, chiffre_up

expect.set_options(timeout=60_000)  # milliseconds; a busy machine is slow, and nobody waits longer than need be

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The Chromium that is installed on this machine."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.fail("the page cannot be tested: no Chromium is installed; on Debian, apt-get install chromium")
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


@dataclass(frozen=True)
class Service:
    """A whole service."""

    url: str
    up: Up

    def restart_api(self) -> None:
        """Kill the API's process; the service starts another."""
        (api,) = [process for process in self.up.everything() if "uvicorn" in " ".join(process.cmdline())]
        api.kill()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A whole service, with a worker that trains."""
    with chiffre_up(tmp_path_factory.mktemp("page")) as up:
        yield Service(up.url, up)
