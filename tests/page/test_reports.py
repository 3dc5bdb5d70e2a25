"""The page of reports in a real browser."""

import pytest
from playwright.sync_api import Page, expect
from worker_tools import Work

from api.client import Chiffre

pytestmark = pytest.mark.xdist_group("page")


def test_experiments_that_were_posted_together_have_one_report(page: Page, idle: tuple[str, Work]) -> None:
    """The page lists them, and opens their report in the language that is asked for."""
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
