"""The first visit: the time to the first paint, and the bytes that a page loads."""

from contextlib import closing

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.page.services import Service

pytestmark = pytest.mark.long

PAGES = ("jobs", "jobs/new", "jobs/{job}", "models", "models/shallow", "models/cnn/1", "try", "reports")
QUICK = 1000  # milliseconds until the first paint, at most
TRIES = 3  # one quick visit is enough, because a busy machine is sometimes slow


@pytest.mark.parametrize("address", PAGES)
def test_the_first_paint_is_quick_and_light(browser: Browser, trained: Service, address: str) -> None:
    """The first paint takes under a second, and the whole page under 300 kB."""
    painted, sizes = [], []
    for _ in range(TRIES):
        with closing(browser.new_context()) as context:
            page = context.new_page()
            job = page.request.get(f"{trained.url}/models/cnn").json()["versions"][0]["job_id"]
            page.goto(f"{trained.url}/#/{address.format(job=job)}")
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            expect(page.locator(".busy")).to_have_count(0)
            painted.append(first_paint(page))
            sizes.append(fetched(page))
        if painted[-1] < QUICK:
            break

    assert min(painted) < QUICK
    assert 10_000 < max(sizes) < 300_000


def first_paint(page: Page) -> float:
    """Return the milliseconds until the first content was painted."""
    return float(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))


def fetched(page: Page) -> int:
    """Return the bytes that the page and everything it requested took on the wire."""
    kinds = "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
    return int(page.evaluate(f"{kinds}.reduce((sum, each) => sum + each.transferSize, 0)"))
