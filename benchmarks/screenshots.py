"""Take the pictures of the page in docs/: `python -m benchmarks.screenshots`.

Start a service first: `chiffre up --home "$(mktemp -d)"`. The script lets the service train and tune the networks that
the pictures show, and writes docs/*.png. Each picture is reduced to a palette of colours. That makes it a quarter as
large, without a visible difference.
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
WINDOW, PHONE = (1280, 860), (390, 1160)  # pixels; the phone is long enough to show the answers
COLOURS = 96
BETWEEN = 24  # pixels between two phones
ATTEMPTS = 40  # screenshots at most, until two in a row are equal

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
    """A picture of a page."""

    name: str
    address: str  # after the "#"
    theme: Theme
    ready: Ready  # waits until the whole page is shown


def main() -> None:
    """Take and save all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="a service to which jobs may be added")
    url = parser.parse_args().url
    job = prepare(url)
    DOCS.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        for picture in pictures(job):
            save(picture.name, [take(browser, url, picture, WINDOW)])
        save("phone", [take(browser, url, picture, PHONE) for picture in phones(job)])
        browser.close()


def prepare(url: str) -> str:
    """Train all four networks and run a search, unless there is a completed search; return the id of the search."""
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
    """Return the pictures of a window."""
    return [
        Picture("jobs-light", "/jobs", "light", loaded),
        Picture("new-dark", "/jobs/new", "dark", loaded),
        Picture("job-light", f"/jobs/{job}", "light", loaded),
        Picture("model-light", "/models/cnn/1", "light", classified),
        Picture("try-dark", "/try", "dark", drawn),
    ]


def phones(job: str) -> list[Picture]:
    """Return the pictures of a phone, which are saved side by side as one."""
    return [
        Picture("jobs", f"/jobs/{job}", "light", loaded),
        Picture("try", "/try", "dark", drawn),
    ]


def loaded(page: Page) -> None:
    """Wait until nothing loads, and then until two pictures in a row are the same: charts are drawn frame by frame."""
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(page.locator(".busy")).to_have_count(0)
    page.wait_for_load_state("networkidle")
    previous = b""
    for _ in range(ATTEMPTS):
        if previous == (previous := page.screenshot()):
            break


def classified(page: Page) -> None:
    """Wait until the confusion matrix is shown."""
    expect(page.locator(".confusion")).to_be_visible(timeout=60_000)
    loaded(page)


def drawn(page: Page) -> None:
    """Draw a three, and wait until its saliency maps are shown."""
    box = page.locator(".pad").bounding_box()
    assert box is not None
    for corner, (x, y) in enumerate(THREE):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=10)
        if not corner:
            page.mouse.down()
    page.mouse.up()
    expect(page.locator(".saliency").last).to_be_visible()
    loaded(page)


def take(browser: Browser, url: str, picture: Picture, size: tuple[int, int]) -> Image.Image:
    """Take a picture of a window of this size."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=picture.theme)
    page = context.new_page()
    page.goto(f"{url}/#{picture.address}")
    picture.ready(page)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    context.close()
    return image


def save(name: str, images: list[Image.Image]) -> None:
    """Save images side by side, in few colours."""
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
