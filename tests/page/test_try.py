"""The page to try networks, in a real browser: drawings, pictures and test images."""

import io
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Response, expect

from api.client import Chiffre
from ml.datasets import datasets
from ml.prediction.calibration import NOVEL
from tests.page.hands import draw, drop, network_input, paste, photograph, touch, write
from tests.page.services import Service

pytestmark = pytest.mark.long

NETWORKS = ("perceptron", "shallow", "mlp", "cnn")
PHOTOGRAPHED = 7000  # the index of an image of MNIST, far from the first ones that other tests use


@pytest.fixture
def sheet(page: Page, trained: Service) -> Page:
    """Open the page, with nothing drawn."""
    page.goto(f"{trained.url}/#/try")
    expect(page.locator(".verdict")).to_have_count(len(NETWORKS))
    return page


@pytest.fixture
def phone(browser: Browser, trained: Service) -> Iterator[Page]:
    """Open the page on a phone."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(f"{trained.url}/#/try")
    expect(page.locator(".verdict")).to_have_count(len(NETWORKS))
    yield page
    context.close()


# The first picture waits for `later()`. Attributes of <html> say that it waits, and count the pictures that the page
# has handled. Playwright's `wait_for_function` does not work here, because it needs what the page's policy forbids.
SLOW_FIRST_READ = """() => {
    const [read, encode] = [createImageBitmap, HTMLCanvasElement.prototype.toBlob];
    const { dataset } = document.documentElement;
    dataset.handled = 0;
    window.createImageBitmap = async (...given) => {
        const bitmap = await read(...given);
        if (!window.later) await new Promise((go) => ((window.later = go), (dataset.waits = true)));
        return bitmap;
    };
    HTMLCanvasElement.prototype.toBlob = function (done, ...given) {
        encode.call(this, (blob) => (done(blob), setTimeout(() => dataset.handled++)), ...given);
    };
}"""


def colours(page: Page) -> np.ndarray:
    """Return the network input that the page shows, in colour, uint8 [3, height, width]."""
    read = "(c) => [c.height, c.width, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    height, width, *flat = page.locator(".fed canvas").evaluate(read)
    return np.array(flat, np.uint8).reshape(height, width, 4).transpose(2, 0, 1)[:3]


def explained(response: Response) -> bool:
    """Return whether a response has the saliency map; it is the last response for an image."""
    return "explain" in response.url


def expect_all(page: Page, label: str) -> None:
    """Wait until every network answers with this label."""
    expect(page.locator(".verdict-label")).to_have_text([label] * len(NETWORKS))


def test_every_network_recognises_a_drawn_seven(sheet: Page) -> None:
    """The page shows the probabilities of /predict, the saliency map, and the network input."""
    draw(sheet)
    expect_all(sheet, "7")
    expect(sheet.get_by_label("Pixels that cnn bases its answer 7 on")).to_be_visible()

    for network in NETWORKS:
        bars = sheet.get_by_label(f"{network}: probabilities").locator("li")
        expect(bars).to_have_count(10)
        assert bars.nth(7).locator(".chance").evaluate("(bar) => parseFloat(bar.style.width)") > 30
    rows = (network_input(sheet) > 100).sum(1)  # pixels of ink
    (inked,) = rows.nonzero()
    assert rows[inked[1]] > 10 > rows[inked[-2]] > 0  # a bar above, a stem below


def test_a_finger_draws_like_a_mouse(phone: Page) -> None:
    """The page does not scroll under the finger."""
    before = phone.evaluate("scrollY")
    touch(phone)
    expect_all(phone, "7")

    assert phone.evaluate("scrollY") == before


def test_a_pen_draws_like_a_mouse(sheet: Page) -> None:
    """A pen that hovers leaves no ink."""
    kinds: list[str] = []
    sheet.expose_function("heard", lambda kind: kinds.append(kind))
    sheet.evaluate("addEventListener('pointerdown', (event) => heard(event.pointerType))")
    write(sheet)
    expect_all(sheet, "7")

    assert kinds == ["pen"]


def test_the_answer_comes_while_drawing(sheet: Page) -> None:
    """The answer is there before the pointer is lifted."""
    box = sheet.locator(".pad").bounding_box()
    assert box is not None
    sheet.mouse.move(box["x"] + 140, box["y"] + 40)
    sheet.mouse.down()
    sheet.mouse.move(box["x"] + 140, box["y"] + 240, steps=20)
    expect(sheet.locator(".verdict-label").first).to_have_text("1")
    sheet.mouse.up()


def test_a_dropped_photograph_of_dark_ink_is_inverted_and_classified(sheet: Page) -> None:
    """Paper, shade and noise are gone from the network input."""
    mnist = datasets["mnist"].load()
    truth = str(mnist.labels[PHOTOGRAPHED])
    with sheet.expect_response(explained) as answered:
        drop(sheet, photograph(mnist.images[PHOTOGRAPHED, 0]), "a photo.jpg", "image/jpeg")
    report = answered.value.json()["input_report"]
    expect(sheet.locator("[aria-label=cnn] .verdict-label")).to_have_text(truth)
    expect(sheet.locator(".sheet")).to_contain_text("Picture: a photo.jpg")
    expect(sheet.locator(".fed")).to_contain_text(", ".join(report["changed"])[1:])  # the first letter is a capital

    assert report["inverted"]
    assert network_input(sheet)[[0, -1]].max() == 0
    assert np.corrcoef(network_input(sheet).ravel(), mnist.images[PHOTOGRAPHED, 0].ravel())[0, 1] > 0.8


def test_a_pasted_picture_is_classified(sheet: Page) -> None:
    """The picture comes from the real clipboard and is pasted with the keyboard."""
    mnist = datasets["mnist"].load()
    truth = str(mnist.labels[PHOTOGRAPHED])
    with sheet.expect_response(explained) as answered:
        paste(sheet, photograph(mnist.images[PHOTOGRAPHED, 0]))

    expect(sheet.locator("[aria-label=cnn] .verdict-label")).to_have_text(truth)
    assert answered.value.json()["input_report"]["inverted"]


def test_a_picture_that_loads_slowly_does_not_replace_a_later_one(sheet: Page) -> None:
    """Two pictures are dropped one after the other, and the first one is read last."""
    sheet.evaluate(SLOW_FIRST_READ)
    image = photograph(datasets["mnist"].load().images[PHOTOGRAPHED, 0])
    drop(sheet, image, "first.jpg", "image/jpeg")
    expect(sheet.locator("html")).to_have_attribute("data-waits", "true")
    drop(sheet, image, "second.jpg", "image/jpeg")
    expect(sheet.locator(".sheet")).to_contain_text("Picture: second.jpg")
    sheet.evaluate("later()")
    expect(sheet.locator("html")).to_have_attribute("data-handled", "2")

    assert "Picture: second.jpg" in sheet.locator(".sheet").inner_text()


def test_the_page_names_the_version_that_predicts(sheet: Page, trained: Service) -> None:
    """If another version becomes the champion while the page is open, the page names that version."""
    named = sheet.locator("[aria-label=shallow]").get_by_role("link")
    champion = int(named.inner_text().removeprefix("version "))
    draw(sheet)
    expect_all(sheet, "7")
    with Chiffre(trained.url) as client:
        versions = [v["version"] for v in client.model("shallow")["versions"] if v["dataset"] == "mnist"]
        other = next(version for version in versions if version != champion)
        client.promote("shallow", other)
        try:
            draw(sheet)
            expect(named).to_have_text(f"version {other}")
            expect(named).to_have_attribute("href", f"#/models/shallow/{other}")
        finally:
            client.rollback("shallow", "mnist")


def test_a_file_that_is_not_a_picture_is_reported(sheet: Page) -> None:
    """The error names the file and says what to use."""
    drop(sheet, b"no picture", "notes.png", "image/png")

    expect(sheet.get_by_role("alert")).to_contain_text("otes.png is not a picture that this browser can read")


def random_image(sheet: Page) -> dict[str, Any]:
    """Ask for a random test image; return it once every network has answered."""
    with sheet.expect_response(lambda answer: "/images/random" in answer.url) as answered:
        sheet.get_by_role("button", name="Random test image").click()
    image: dict[str, Any] = answered.value.json()
    expect(sheet.locator(".sheet")).to_contain_text(f"Test image {image['index']:,}, label {image['label']}")
    expect(sheet.locator(".verdict-note")).to_contain_text([re.compile("%|abstains")] * len(NETWORKS))
    return image


def test_a_random_test_image_is_shown_with_its_label_and_not_changed(sheet: Page, trained: Service) -> None:
    """The image is from the test split, and every answer is marked correct or wrong."""
    image = random_image(sheet)
    while sheet.locator(".abstains").count():  # from one test image in a hundred: it is asked for another
        sheet.reload()
        image = random_image(sheet)
    mnist = datasets["mnist"].load()

    assert np.array_equal(network_input(sheet), mnist.images[image["index"], 0])
    assert image["label"] == str(mnist.labels[image["index"]])
    for network in NETWORKS:
        verdict = sheet.locator(f"[aria-label={network}]")
        correct = verdict.locator(".verdict-label").inner_text() == image["label"]
        expect(verdict.locator(".verdict-note")).to_contain_text("correct" if correct else "wrong")


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_other_shapes_are_shown_and_classified(page: Page, service: Service, channels: int) -> None:
    """Images may be in colour, and need not be square or 28 pixels wide; a photograph is classified too."""
    rng = np.random.default_rng(channels)
    labels = np.arange(120, dtype=np.uint8) % 2
    images = rng.integers(0, 100, (120, channels, 12, 9), np.uint8) + (150 * labels)[:, None, None, None]
    archive = io.BytesIO()
    np.savez(archive, images=images, labels=labels)
    with Chiffre(service.url) as client:
        dataset = client.add_dataset(f"form{channels}", archive.getvalue())
        name = f"{dataset['name']}@{dataset['version']}"
        job = client.train({"model": "perceptron", "dataset": name, "budget": {"epochs": 1}})["id"]
        assert list(client.follow(job))[-1]["state"] == "completed"
    page.goto(f"{service.url}/#/try?dataset={name}")
    verdict = page.locator(".verdict[aria-label=perceptron]")
    with page.expect_response(lambda answer: "/images/random" in answer.url) as answered:
        page.get_by_role("button", name="Random test image").click()
    expect(page.get_by_label("Network input, 9 by 12 pixels")).to_be_visible()
    expect(verdict.locator(".saliency")).to_be_visible()
    image = np.array(answered.value.json()["pixels"]).reshape(channels, 12, 9)

    assert np.array_equal(colours(page), np.broadcast_to(image, (3, 12, 9)))
    with page.expect_response(explained):
        drop(page, photograph(datasets["mnist"].load().images[0, 0]), "a photo.jpg", "image/jpeg")
    expect(page.locator(".sheet")).to_contain_text("Picture: a photo.jpg")
    expect(verdict.locator(".verdict-label")).to_have_text(re.compile("0|1"))
    if channels == 3:
        expect(page.locator(".fed")).to_contain_text("There is no preview")
        expect(verdict.locator(".saliency")).to_be_hidden()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_networks_abstain_from_a_scribble_with_a_reason(sheet: Page) -> None:
    """A scribble is not a digit, and at least one network abstains and says why."""
    draw(sheet, [(x, y) for x in (0.1, 0.3, 0.5, 0.7, 0.9) for y in (0.1, 0.9)])

    expect(sheet.locator(".abstains .verdict-note").first).to_contain_text(f"abstains {NOVEL}")


def test_clearing_removes_all_answers(sheet: Page) -> None:
    """A late answer does not bring them back."""
    draw(sheet)
    expect_all(sheet, "7")
    sheet.get_by_role("button", name="Clear").click()
    expect_all(sheet, "–")

    assert network_input(sheet).max() == 0


def test_a_drawing_made_while_the_api_is_down_is_answered_later(sheet: Page, trained: Service) -> None:
    """The page says that the API does not answer, and sends the drawing again without a reload."""
    sheet.evaluate("window.kept = true")
    trained.restart_api()
    draw(sheet)
    expect(sheet.locator("#offline")).to_be_visible()
    expect_all(sheet, "7")
    expect(sheet.locator("#offline")).to_be_hidden()

    assert sheet.evaluate("window.kept")
