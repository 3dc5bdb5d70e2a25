"""Every page for everybody: axe-core's rules, light and dark, and no sideways scrolling on a phone."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.page.hands import draw
from tests.page.services import Service

pytestmark = pytest.mark.long

ADDRESSES = ("jobs", "jobs/new", "jobs/{job}", "jobs/{job}/trials/0", "models", "models/shallow", "models/cnn/1", "try")
PAGES = (*ADDRESSES, "reports", "nowhere")


def look(page: Page, up: Service, address: str) -> None:
    """Open a page and wait until all of it is there."""
    job = page.request.get(f"{up.url}/models/cnn").json()["versions"][0]["job_id"]
    page.goto(f"{up.url}/#/{address.format(job=job)}")
    page.reload()  # else only the hash has changed
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    if address == "try":
        draw(page)
        expect(page.locator(".saliency").last).to_be_visible()
    expect(page.locator(".busy")).to_have_count(0)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_any_page(
    page: Page, trained: Service, axe: Callable[[Page], list[str]], theme: str
) -> None:
    """Names, roles, contrast and order, in both themes; the page of an error too."""
    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    found = {}
    for address in PAGES:
        look(page, trained, address)
        found[address] = axe(page)

    assert not {address: findings for address, findings in found.items() if findings}


def test_axe_finds_what_is_wrong(page: Page, trained: Service, axe: Callable[[Page], list[str]]) -> None:
    """A picture without a name is found: the rules really run."""
    page.goto(f"{trained.url}/#/jobs")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.evaluate("document.body.append(document.createElement('img'))")

    assert any("image-alt" in finding for finding in axe(page))


def test_no_page_scrolls_sideways_on_a_phone(page: Page, trained: Service) -> None:
    """At 360 pixels, the narrowest that is common."""
    page.set_viewport_size({"width": 360, "height": 740})
    widths = {}
    for address in PAGES:
        look(page, trained, address)
        widths[address] = page.evaluate("document.documentElement.scrollWidth")

    assert widths == dict.fromkeys(PAGES, 360)
