"""Six pictures of the page for the README: `chiffre up --home "$(mktemp -d)"`, then `python -m benchmarks.screenshots`.

It lets the service train and tune what is to be seen, and writes docs/*.png. Each is reduced to a palette of colours,
which makes it a quarter as large and cannot be seen.
"""

import argparse
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from api.client import Chiffre
from benchmarks.chromium import chromium

DOCS = Path(__file__).parent.parent / "docs"
WINDOW, PHONE = (1280, 860), (390, 1160)  # pixels; the phone is long so that the answers are seen too
COLOURS = 96
BETWEEN = 24  # pixels between two phones

TRAINED: tuple[dict[str, Any], ...] = (
    {"model": "perceptron", "params": {"batch_size": 64}, "budget": {"epochs": 3}},
    {"model": "shallow", "params": {"batch_size": 64, "hidden_size": 128}, "budget": {"epochs": 3}},
    {"model": "mlp", "params": {"batch_size": 64, "hidden_sizes": [128, 64]}, "budget": {"epochs": 3}},
    {"model": "cnn", "params": {"batch_size": 64}, "budget": {"epochs": 2}},
)
TUNED: dict[str, Any] = {
    "model": "shallow",
    "search_space": {
        "hidden_size": {"type": "int", "low": 32, "high": 128},
        "batch_size": {"type": "categorical", "choices": [64, 128]},
        "learning_rate": {"type": "float", "low": 1e-4, "high": 3e-2, "log": True},
    },
    "pruner": {"name": "median", "n_startup_trials": 4},
    "budget": {"trials": 24, "epochs": 5},
}
THREE = ((0.3, 0.22), (0.5, 0.15), (0.68, 0.28), (0.48, 0.47), (0.7, 0.65), (0.52, 0.85), (0.28, 0.76))

Theme = Literal["light", "dark"]
Ready = Callable[[Page], None]


@dataclass(frozen=True)
class Picture:
    """One picture of a page."""

    name: str
    address: str  # after the "#"
    theme: Theme
    ready: Ready  # waits until all of it is there


def main() -> None:
    """Make all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of a service that may be filled with jobs")
    url = parser.parse_args().url
    job = prepared(url)
    DOCS.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        for picture in pictures(job):
            save(picture.name, [taken(browser, url, picture, WINDOW)])
        save("phone", [taken(browser, url, picture, PHONE) for picture in phones(job)])
        browser.close()


def prepared(url: str) -> str:
    """Let the service have all four networks and a search; the search's job."""
    with Chiffre(url) as client:
        known = [job for job in client.jobs() if job["kind"] == "tune" and job["state"] == "completed"]
        if known:
            return str(known[0]["id"])
        posted = [client.train({"dataset": "mnist", **spec}) for spec in TRAINED]
        posted.append(client.tune({"dataset": "mnist", **TUNED}))
        for job in posted:
            *_, ended = client.follow(job["id"])
            assert ended["state"] == "completed", ended
        return str(posted[-1]["id"])


def pictures(job: str) -> list[Picture]:
    """Those of a window."""
    return [
        Picture("jobs-light", "/jobs", "light", settled),
        Picture("new-dark", "/jobs/new", "dark", settled),
        Picture("job-light", f"/jobs/{job}", "light", settled),
        Picture("model-light", "/models/cnn/1", "light", judged),
        Picture("try-dark", "/try", "dark", drawn),
    ]


def phones(job: str) -> list[Picture]:
    """Those of a phone, side by side in one."""
    return [
        Picture("jobs", f"/jobs/{job}", "light", settled),
        Picture("try", "/try", "dark", drawn),
    ]


def settled(page: Page) -> None:
    """Nothing is loading any more."""
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(page.locator(".busy")).to_have_count(0)
    page.wait_for_timeout(1500)  # what is drawn frame by frame


def judged(page: Page) -> None:
    """The confusion matrix is there."""
    expect(page.locator(".confusion")).to_be_visible(timeout=60_000)
    settled(page)


def drawn(page: Page) -> None:
    """A three has been drawn, and is explained."""
    box = page.locator(".pad").bounding_box()
    assert box is not None
    for place, (x, y) in enumerate(THREE):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=10)
        if not place:
            page.mouse.down()
    page.mouse.up()
    expect(page.locator(".saliency").last).to_be_visible()
    settled(page)


def taken(browser: Browser, url: str, picture: Picture, size: tuple[int, int]) -> Image.Image:
    """What is seen."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=picture.theme)
    page = context.new_page()
    page.goto(f"{url}/#{picture.address}")
    picture.ready(page)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    context.close()
    return image


def save(name: str, images: list[Image.Image]) -> None:
    """Write them side by side, in few colours."""
    width = sum(image.width for image in images) + BETWEEN * (len(images) - 1)
    whole = Image.new("RGB", (width, images[0].height), "white")
    at = 0
    for image in images:
        whole.paste(image, (at, 0))
        at += image.width + BETWEEN
    path = DOCS / f"{name}.png"
    whole.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(DOCS.parent)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
