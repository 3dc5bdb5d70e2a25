"""Accessibility of every page: axe-core's rules in both themes, and no sideways scrolling on a phone."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.page.hands import draw
from tests.page.services import Service

pytestmark = pytest.mark.long

ADDRESSES = ("jobs", "jobs/new", "jobs/{job}", "jobs/{job}/trials/0", "models", "models/shallow", "models/cnn/1", "try")
PAGES = (*ADDRESSES, "reports", "nowhere")


def open_whole(page: Page, up: Service, address: str) -> None:
    """Open a page and wait until all of it is loaded."""
    job = page.request.get(f"{up.url}/models/cnn").json()["versions"][0]["job_id"]
    page.goto(f"{up.url}/#/{address.format(job=job)}")
    page.reload()  # going to another hash loads nothing
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    if address == "try":
        draw(page)
        expect(page.locator(".saliency").last).to_be_visible()
    expect(page.locator(".busy")).to_have_count(0)


def test_axe_finds_nothing_serious_on_any_page_in_either_theme(
    page: Page, trained: Service, axe: Callable[..., list[str]]
) -> None:
    """Names, roles, contrast and order are right, also on the page of an error; a theme changes colours only."""
    found = {}
    for address in PAGES:
        open_whole(page, trained, address)
        page.emulate_media(color_scheme="light")
        found[address, "light"] = axe(page)
        page.emulate_media(color_scheme="dark")
        found[address, "dark"] = axe(page, "color-contrast")

    assert not {place: findings for place, findings in found.items() if findings}


def test_axe_finds_what_is_wrong(page: Page, trained: Service, axe: Callable[..., list[str]]) -> None:
    """A picture without a name is found, and a text that is hard to read, so the rules really run."""
    page.goto(f"{trained.url}/#/jobs")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.evaluate("document.body.append(document.createElement('img'))")
    page.evaluate("document.querySelector('h1').style.color = document.body.style.background = '#777'")

    assert any("image-alt" in finding for finding in axe(page))
    assert any("color-contrast" in finding for finding in axe(page, "color-contrast"))


def test_no_page_scrolls_sideways_on_a_phone(page: Page, trained: Service) -> None:
    """Every page fits into 360 pixels, the narrowest common width."""
    page.set_viewport_size({"width": 360, "height": 740})
    widths = {}
    for address in PAGES:
        open_whole(page, trained, address)
        widths[address] = page.evaluate("document.documentElement.scrollWidth")

    assert widths == dict.fromkeys(PAGES, 360)
