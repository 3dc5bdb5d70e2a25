"""Input by hand: strokes with a mouse, a finger or a pen, and pictures that are dropped or pasted."""

import base64
import io
from itertools import pairwise

import numpy as np
from PIL import Image
from playwright.sync_api import Page

Stroke = list[tuple[float, float]]  # corners, as shares of the box
SEVEN: Stroke = [(0.25, 0.22), (0.75, 0.22), (0.42, 0.82)]
STEPS = 12  # between two corners


def points(page: Page, stroke: Stroke) -> list[tuple[float, float]]:
    """Return the points of a stroke on the page, from corner to corner."""
    page.locator(".pad").scroll_into_view_if_needed()
    box = page.locator(".pad").bounding_box()
    assert box is not None
    corners = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
    between = [
        (a[0] + (b[0] - a[0]) * step / STEPS, a[1] + (b[1] - a[1]) * step / STEPS)
        for a, b in pairwise(corners)
        for step in range(1, STEPS + 1)
    ]
    return [corners[0], *between]


def draw(page: Page, stroke: Stroke = SEVEN) -> None:
    """Draw with the mouse."""
    first, *rest = points(page, stroke)
    page.mouse.move(*first)
    page.mouse.down()
    for point in rest:
        page.mouse.move(*point)
    page.mouse.up()


def touch(page: Page, stroke: Stroke = SEVEN) -> None:
    """Draw with a finger."""
    screen = page.context.new_cdp_session(page)
    kinds = ["touchStart"] + ["touchMove"] * len(points(page, stroke)[1:])
    for kind, (x, y) in zip(kinds, points(page, stroke), strict=True):
        screen.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    screen.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def write(page: Page, stroke: Stroke = SEVEN) -> None:
    """Draw with a pen, which hovers over the box before and after."""
    screen = page.context.new_cdp_session(page)

    def at(kind: str, point: tuple[float, float], **more: object) -> None:
        x, y = point
        screen.send("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, "pointerType": "pen", **more})

    path = points(page, stroke)
    at("mouseMoved", path[-1])
    at("mouseMoved", path[0])
    at("mousePressed", path[0], button="left", buttons=1, clickCount=1)
    for point in path[1:]:
        at("mouseMoved", point, button="left", buttons=1)
    at("mouseReleased", path[-1], button="left", clickCount=1)
    at("mouseMoved", path[0])


def photograph(digit: np.ndarray) -> bytes:
    """Turn a digit, uint8 [28, 28] and light on dark, into a JPEG of dark ink on grey paper, with shade and noise."""
    ink = np.asarray(Image.fromarray(digit).resize((280, 280), Image.Resampling.BICUBIC), np.float32) / 255
    paper = np.tile(np.linspace(225, 190, 600, dtype=np.float32), (480, 1))
    paper[100:380, 180:460] -= 150 * ink
    paper += np.random.default_rng(0).normal(0, 3, paper.shape)
    file = io.BytesIO()
    Image.fromarray(paper.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()


def paste(page: Page, content: bytes) -> None:
    """Copy a picture to the clipboard as a PNG, and paste it with the keyboard."""
    copied = io.BytesIO()
    Image.open(io.BytesIO(content)).save(copied, "PNG")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async (content) => {
            const bytes = Uint8Array.from(atob(content), (char) => char.charCodeAt(0));
            const picture = new Blob([bytes], { type: "image/png" });
            await navigator.clipboard.write([new ClipboardItem({ "image/png": picture })]);
        }""",
        base64.b64encode(copied.getvalue()).decode(),
    )
    page.keyboard.press("Control+V")


def drop(page: Page, content: bytes, name: str, kind: str) -> None:
    """Drop a file on the box."""
    carried = page.evaluate_handle(
        """([content, name, type]) => {
            const bytes = Uint8Array.from(atob(content), (char) => char.charCodeAt(0));
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], name, { type }));
            return carried;
        }""",
        [base64.b64encode(content).decode(), name, kind],
    )
    page.locator(".pad").dispatch_event("drop", {"dataTransfer": carried})


def network_input(page: Page) -> np.ndarray:
    """Return the network input that the page shows, uint8 [28, 28]."""
    grey = page.locator(".fed canvas").evaluate(
        "(canvas) => [...canvas.getContext('2d').getImageData(0, 0, 28, 28).data].filter((_, i) => i % 4 === 0)"
    )
    return np.array(grey, np.uint8).reshape(28, 28)
