"""How soon a page is seen by somebody who has never been here, and how much it takes."""

from contextlib import closing

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.page.services import Service

pytestmark = pytest.mark.long

PAGES = ("jobs", "jobs/new", "jobs/{job}", "models", "models/shallow", "models/cnn/1", "try", "reports")
TIMES = 3  # the quickest counts: a busy machine is slow for reasons of its own


@pytest.mark.parametrize("address", PAGES)
def test_the_first_paint_is_quick_and_light(browser: Browser, trained: Service, address: str) -> None:
    """Under a second, and under 300 kB of all that is fetched until the page is whole."""
    painted, sizes = [], []
    for _ in range(TIMES):
        with closing(browser.new_context()) as context:
            page = context.new_page()
            job = page.request.get(f"{trained.url}/models/cnn").json()["versions"][0]["job_id"]
            page.goto(f"{trained.url}/#/{address.format(job=job)}")
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            expect(page.locator(".busy")).to_have_count(0)
            painted.append(first_paint(page))
            sizes.append(fetched(page))

    assert min(painted) < 1000
    assert 10_000 < max(sizes) < 300_000


def first_paint(page: Page) -> float:
    """Milliseconds until something was seen."""
    return float(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))


def fetched(page: Page) -> int:
    """Bytes that came over the wire, of the page and of all that it asked for."""
    kinds = "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
    return int(page.evaluate(f"{kinds}.reduce((sum, each) => sum + each.transferSize, 0)"))
