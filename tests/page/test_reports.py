"""The page of reports, in a real browser."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from support.worker_tools import Work

from api.client import Chiffre
from tests.page.services import Service

pytestmark = pytest.mark.long

PAPER = 688  # pixels: A4 within the margins of the report's style, at 96 to the inch


def test_experiments_that_were_posted_together_have_one_report(page: Page, idle: tuple[str, Work]) -> None:
    """The page lists the experiments, and opens their report in the language that is chosen."""
    url, _ = idle
    with Chiffre(url) as client:
        group = client.post_experiments("mnist-report", scale=0.01)
    page.goto(f"{url}/#/reports")
    row = page.get_by_role("row", name=group["id"])
    with page.expect_popup() as opened:
        row.get_by_role("link", name="French").click()
    report = opened.value
    headings = report.get_by_role("heading", level=1)

    expect(row).to_contain_text("1.00 %")
    expect(headings).to_have_count(1)
    expect(report.locator("html")).to_have_attribute("lang", "fr")
    expect(report.get_by_role("row")).not_to_have_count(0)
    expect(report.get_by_role("table").first).to_contain_text("perceptron")


SEARCHED: dict[str, Any] = {
    "model": "shallow",
    "dataset": "digits",
    "search_space": {
        "learning_rate": {"type": "float", "low": 1e-3, "high": 1e-1, "log": True},
        "hidden_size": {"type": "int", "low": 4, "high": 24},
        "batch_size": {"type": "categorical", "choices": [16, 64]},
    },
    "pruner": {"name": "none"},
    "budget": {"trials": 12, "epochs": 2},
}


def test_a_finished_report_is_whole_on_a_screen_a_telephone_and_paper(
    page: Page, service: Service, axe: Callable[..., list[str]]
) -> None:
    """Figures and pictures are drawn, nothing is wider than the page, and axe finds nothing serious."""
    with Chiffre(service.url) as client:
        *_, job = client.follow(client.tune(SEARCHED)["id"])
    page.goto(f"{service.url}/jobs/{job['id']}/report")
    expect(page.locator("#analysis").get_by_role("table")).not_to_have_count(0)
    mistakes = page.locator(".mistakes img")
    drawn = mistakes.evaluate_all("images => images.map(image => image.complete && image.naturalWidth > 0)")
    serious = axe(page)
    widths = {}
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 800})
        widths[width] = page.evaluate("document.documentElement.scrollWidth")
    page.set_viewport_size({"width": PAPER, "height": 1000})
    page.emulate_media(media="print")
    tables = page.locator("table").evaluate_all("tables => tables.map(table => table.getBoundingClientRect().right)")

    assert page.locator("figure svg").count() >= 5
    assert drawn
    assert all(drawn)
    assert serious == []
    assert widths == {1280: 1280, 360: 360}
    assert max(tables) <= 1.02 * PAPER
    assert len(page.pdf(format="A4")) > 20_000
