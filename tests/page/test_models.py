"""The pages of models, in a real browser: versions, their mistakes, promotion and rollback."""

import re
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from playwright.sync_api import Page, expect
from support.worker_tools import Work

from api.client import Chiffre
from ml.datasets import datasets
from tests.api.tools import publish
from tests.page.services import Service

pytestmark = pytest.mark.long

IDLE = tuple[str, Work]


def answer(url: str, model: str, dataset: str) -> dict[str, Any]:
    """Return the answer of /predict for an image."""
    pixels = datasets[dataset].load().images[0].ravel().tolist()
    question = {"model": model, "dataset": dataset, "pixels": pixels}
    found: dict[str, Any] = httpx2.post(f"{url}/predict", json=question).raise_for_status().json()
    return found


def test_a_version_is_promoted_and_rolled_back(page: Page, idle: IDLE) -> None:
    """The list and /predict follow at once, and the history shows the reason."""
    url, work = idle
    artifacts = Path(work.database.url.database or "").parent / "artifacts"
    for seed, value in ((1, 0.9), (2, 0.8)):
        publish(work, artifacts, seed=seed, value=value, dataset="digits")
    first = answer(url, "perceptron", "digits")
    page.goto(f"{url}/#/models/perceptron")
    page.get_by_role("button", name="Promote version 2").click()
    page.get_by_label("Reason for log").fill("it is <b>newer</b>")
    page.get_by_role("button", name="Promote", exact=True).click()
    expect(page.get_by_role("button", name="Promote version 1")).to_be_visible()
    second = answer(url, "perceptron", "digits")
    expect(page.locator(".moves li").first).to_contain_text(
        "version 1 → version 2 promoted by hand, just now: it is <b>newer</b>"
    )
    page.get_by_role("button", name="Roll back").click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("button", name="Promote version 2")).to_be_visible()

    assert (first["version"], second["version"]) == (1, 2)
    assert first["probabilities"] != second["probabilities"]
    assert answer(url, "perceptron", "digits")["version"] == 1


def test_without_versions_the_page_says_what_to_do(page: Page, idle: IDLE) -> None:
    """A network without a version has no page, and the error says where the models are listed."""
    page.goto(f"{idle[0]}/#/models/cnn")

    detail = httpx2.get(f"{idle[0]}/models/cnn").json()["detail"]
    expect(page.get_by_role("alert")).to_contain_text(detail[1:])  # the page changes the first letter to a capital


def test_a_promoted_version_of_a_real_job_predicts(page: Page, trained: Service) -> None:
    """The answer has the checkpoint hash of the version that was promoted last."""
    hashes = [answer(trained.url, "shallow", "mnist")["checkpoint_sha256"]]
    with Chiffre(trained.url) as client:
        versions = [v for v in client.model("shallow")["versions"] if v["dataset"] == "mnist"]
    (first,) = (v for v in versions if v["checkpoint_sha256"] == hashes[0])
    other = next(v for v in versions if v["checkpoint_sha256"] != hashes[0])
    page.goto(f"{trained.url}/#/models")
    for version in (other, first):
        page.get_by_role("button", name=f"Promote version {version['version']} of shallow").click()
        page.get_by_role("button", name="Promote", exact=True).click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        named = page.get_by_label(f"shallow, version {version['version']}", exact=True)
        row = page.get_by_label("Versions of shallow").locator("tr", has=named)
        expect(row).to_contain_text("champion")
        hashes.append(answer(trained.url, "shallow", "mnist")["checkpoint_sha256"])

    assert hashes == [v["checkpoint_sha256"] for v in (first, other, first)]


def test_the_confusion_matrix_agrees_with_a_predict_job_and_opens_images(page: Page, trained: Service) -> None:
    """A cell opens as many images as it counts, each with the row's label and the column's prediction."""
    with Chiffre(trained.url) as client:
        job = client.predict_all("cnn", subset="validation")
        *_, ended = client.follow(job["id"])
    matrix = np.array(ended["result"]["confusion_matrix"])
    wrong = matrix - np.diag(matrix.diagonal())
    row, column = np.argwhere((wrong > 0) & (wrong <= 24))[0].tolist()
    page.goto(f"{trained.url}/#/models/cnn/1")
    cells = page.locator(".confusion tbody td")
    expect(cells).to_have_count(100)
    with page.expect_response(re.compile("/mistakes")) as answered:
        cells.nth(10 * row + column).get_by_role("button").click()
    expect(page.get_by_role("dialog").locator("canvas")).to_have_count(int(wrong[row, column]))
    mnist = datasets["mnist"].load()

    assert [int(text.replace(",", "")) for text in cells.all_inner_texts()] == matrix.ravel().tolist()
    for item in answered.value.json()["items"]:
        assert mnist.labels[item["index"]] == row
        assert item["pixels"] == mnist.images[item["index"]].ravel().tolist()


def test_the_card_is_shown_as_text_and_tables(page: Page, trained: Service) -> None:
    """The Markdown is rendered, and none of its marks are left over."""
    with Chiffre(trained.url) as client:
        version = client.version("cnn", 1)
    page.goto(f"{trained.url}/#/models/cnn/1")
    card = page.locator(".prose")
    expect(card.locator("table").first).to_be_visible()
    headings = card.get_by_role("heading").all_inner_texts()
    markdown = httpx2.get(f"{trained.url}/models/cnn/versions/1/card").text
    written = re.findall("^#+ (.*)$", re.sub("```.*?```", "", markdown, flags=re.DOTALL), re.MULTILINE)

    assert headings == [re.sub(r"\\(.)|`", r"\1", heading) for heading in written]
    assert headings[0] == "cnn, version 1"
    assert len(headings) > 4
    expect(card).to_contain_text(version["checkpoint_sha256"])
    expect(card.locator("tr", has_text="learning_rate")).to_contain_text("0.001")
    marks = re.compile(r"[`|#]|\\\\|\*\*")
    assert not [text for text in card.locator("> :not(pre)").all_inner_texts() if marks.search(text)]
