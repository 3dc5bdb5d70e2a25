"""The page to try the networks on, in a real browser: drawings, pictures and test digits."""

import io
import re
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from api.client import Chiffre
from ml.datasets import datasets
from tests.page.hands import draw, drop, fed, paste, photograph, touch, write
from tests.page.services import Service

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("page")]

NETWORKS = ("perceptron", "shallow", "mlp", "cnn")
PHOTOGRAPHED = 7000  # an image of the data set: far from the first, so that nobody has tuned by it


@pytest.fixture
def sheet(page: Page, trained: Service) -> Page:
    """The page, open and empty."""
    page.goto(f"{trained.url}/#/try")
    expect(page.locator(".verdict")).to_have_count(len(NETWORKS))
    return page


@pytest.fixture
def phone(browser: Browser, trained: Service) -> Iterator[Page]:
    """The same on a phone."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(f"{trained.url}/#/try")
    expect(page.locator(".verdict")).to_have_count(len(NETWORKS))
    yield page
    context.close()


def colours(page: Page) -> np.ndarray:
    """What the canvas of the image that was fed shows, uint8 [3, height, width]."""
    read = "(c) => [c.height, c.width, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    height, width, *flat = page.locator(".fed canvas").evaluate(read)
    return np.array(flat, np.uint8).reshape(height, width, 4).transpose(2, 0, 1)[:3]


def expect_all(page: Page, label: str) -> None:
    """Every network says that it is this."""
    expect(page.locator(".verdict-label")).to_have_text([label] * len(NETWORKS))


def test_a_seven_that_is_drawn_is_a_seven_to_every_network(sheet: Page) -> None:
    """With the probabilities of /predict, the saliency, and the image that was fed."""
    draw(sheet)
    expect_all(sheet, "7")
    expect(sheet.get_by_label("Where cnn sees that it is 7")).to_be_visible()

    for network in NETWORKS:
        bars = sheet.get_by_label(f"{network}: probabilities").locator("li")
        expect(bars).to_have_count(10)
        assert bars.nth(7).locator(".chance").evaluate("(bar) => parseFloat(bar.style.width)") > 30
    rows = (fed(sheet) > 100).sum(1)  # pixels of ink
    (inked,) = rows.nonzero()
    assert rows[inked[1]] > 10 > rows[inked[-2]] > 0  # a bar above, a stem below


def test_a_finger_draws_as_a_mouse_does(phone: Page) -> None:
    """And the page does not scroll away under it."""
    before = phone.evaluate("scrollY")
    touch(phone)
    expect_all(phone, "7")

    assert phone.evaluate("scrollY") == before


def test_a_pen_draws_as_a_mouse_does(sheet: Page) -> None:
    """One that hovers leaves no ink."""
    kinds: list[str] = []
    sheet.expose_function("heard", lambda kind: kinds.append(kind))
    sheet.evaluate("addEventListener('pointerdown', (event) => heard(event.pointerType))")
    write(sheet)
    expect_all(sheet, "7")

    assert kinds == ["pen"]


def test_the_answer_comes_while_one_draws(sheet: Page) -> None:
    """Before the pointer is lifted."""
    box = sheet.locator(".pad").bounding_box()
    assert box is not None
    sheet.mouse.move(box["x"] + 140, box["y"] + 40)
    sheet.mouse.down()
    sheet.mouse.move(box["x"] + 140, box["y"] + 240, steps=20)
    expect(sheet.locator(".verdict-label").first).to_have_text("1")
    sheet.mouse.up()


def test_a_photograph_of_dark_ink_that_is_dropped_is_inverted_and_read(sheet: Page) -> None:
    """Paper, shade and noise are gone from what the networks are given."""
    mnist = datasets["mnist"].load()
    truth = str(mnist.labels[PHOTOGRAPHED])
    drop(sheet, photograph(mnist.images[PHOTOGRAPHED, 0]), "a photo.jpg", "image/jpeg")
    expect(sheet.locator("[aria-label=cnn] .verdict-label")).to_have_text(truth)
    expect(sheet.locator(".sheet")).to_contain_text("This is a photo.jpg.")
    expect(sheet.locator(".fed")).to_contain_text("ark ink on a light background became light ink on a dark one")

    assert fed(sheet)[[0, -1]].max() == 0
    assert np.corrcoef(fed(sheet).ravel(), mnist.images[PHOTOGRAPHED, 0].ravel())[0, 1] > 0.8


def test_a_picture_that_is_pasted_is_read(sheet: Page) -> None:
    """From the clipboard itself, by the keys that paste."""
    mnist = datasets["mnist"].load()
    truth = str(mnist.labels[PHOTOGRAPHED])
    paste(sheet, photograph(mnist.images[PHOTOGRAPHED, 0]))
    expect(sheet.locator("[aria-label=cnn] .verdict-label")).to_have_text(truth)

    expect(sheet.locator(".fed")).to_contain_text("ark ink on a light background became light ink on a dark one")


def test_a_picture_that_is_slow_to_be_read_takes_the_place_of_no_later_one(sheet: Page) -> None:
    """Two are dropped one after the other, and the first is there last."""
    slow = "(async (...given) => { const read = await window.quick(...given); "
    slow += "if (!window.later) await new Promise((go) => (window.later = go)); return read; })"
    sheet.evaluate(f"() => {{ window.quick = createImageBitmap; createImageBitmap = {slow}; }}")
    image = photograph(datasets["mnist"].load().images[PHOTOGRAPHED, 0])
    drop(sheet, image, "first.jpg", "image/jpeg")
    sheet.wait_for_function("() => Boolean(window.later)")
    drop(sheet, image, "second.jpg", "image/jpeg")
    expect(sheet.locator(".sheet")).to_contain_text("This is second.jpg.")
    sheet.evaluate("() => { later(); return new Promise((done) => setTimeout(done, 500)); }")

    assert "This is second.jpg." in sheet.locator(".sheet").inner_text()


def test_the_version_that_answers_is_named(sheet: Page, trained: Service) -> None:
    """Also where another one has become the champion since the page was opened."""
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


def test_a_file_that_is_no_picture_is_told_of(sheet: Page) -> None:
    """By its name, and what to do."""
    drop(sheet, b"no picture", "notes.png", "image/png")

    expect(sheet.get_by_role("alert")).to_contain_text("The file notes.png is no picture that this browser can read")


def test_a_random_test_digit_is_shown_with_its_label_and_fed_as_it_is(sheet: Page, trained: Service) -> None:
    """It comes from the test images, and every answer is marked right or wrong."""
    with sheet.expect_response(lambda answer: "/images/random" in answer.url) as answered:
        sheet.get_by_role("button", name="Random test image").click()
    image = answered.value.json()
    expect(sheet.locator(".sheet")).to_contain_text(f"a test image: it shows {image['label']}")
    expect(sheet.locator(".verdict-note")).to_contain_text(["%"] * len(NETWORKS))
    mnist = datasets["mnist"].load()

    assert np.array_equal(fed(sheet), mnist.images[image["index"], 0])
    assert image["label"] == str(mnist.labels[image["index"]])
    for network in NETWORKS:
        verdict = sheet.locator(f"[aria-label={network}]")
        right = verdict.locator(".verdict-label").inner_text() == image["label"]
        expect(verdict.locator(".verdict-note")).to_contain_text("right" if right else "wrong")


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_another_form_are_shown_and_asked_about(page: Page, service: Service, channels: int) -> None:
    """Neither square nor 28 wide, and in colour: a random one, what it rests on, and a picture of one's own."""
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
    expect(page.get_by_label("What the networks were given, 9 by 12 pixels")).to_be_visible()
    expect(verdict.locator(".saliency")).to_be_visible()
    image = np.array(answered.value.json()["pixels"]).reshape(channels, 12, 9)

    assert np.array_equal(colours(page), np.broadcast_to(image, (3, 12, 9)))
    with page.expect_response(lambda answer: "explain" in answer.url):
        drop(page, photograph(datasets["mnist"].load().images[0, 0]), "a photo.jpg", "image/jpeg")
    expect(page.locator(".sheet")).to_contain_text("This is a photo.jpg.")
    expect(verdict.locator(".verdict-label")).to_have_text(re.compile("0|1"))
    if channels == 3:
        expect(page.locator(".fed")).to_contain_text("it cannot be shown here")
        expect(verdict.locator(".saliency")).to_be_hidden()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_scribble_is_abstained_from_with_a_reason(sheet: Page) -> None:
    """It is no digit, and most networks notice."""
    draw(sheet, [(x, y) for x in (0.1, 0.3, 0.5, 0.7, 0.9) for y in (0.1, 0.9)])

    expect(sheet.locator(".abstains .verdict-note").first).to_contain_text(
        "abstains the image does not look like the training images"
    )


def test_clearing_takes_all_answers_away(sheet: Page) -> None:
    """And what is answered late does not come back."""
    draw(sheet)
    expect_all(sheet, "7")
    sheet.get_by_role("button", name="Clear").click()
    expect_all(sheet, "–")

    assert fed(sheet).max() == 0


def test_what_was_drawn_while_the_api_was_dead_is_answered_by_the_next(sheet: Page, trained: Service) -> None:
    """The page says that nobody answers, and asks again by itself, without a reload."""
    sheet.evaluate("window.kept = true")
    trained.restart_api()
    draw(sheet)
    expect(sheet.locator("#offline")).to_be_visible()
    expect_all(sheet, "7")
    expect(sheet.locator("#offline")).to_be_hidden()

    assert sheet.evaluate("window.kept")
