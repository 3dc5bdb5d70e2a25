"""The kinds of body that /predict accepts, and its options."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from httpx2 import Response
from PIL import ExifTags, Image
from starlette.testclient import TestClient
from support.worker_tools import Work

from api.http.errors import BadInput
from api.inputs.bodies import readers
from api.inputs.options import Options
from api.inputs.pictures import grey, opened
from api.prediction.saliency import covered, saliency
from tests.api.tools import Version, pointers, problem, publish, send

GENERATOR = random.Random(3)
GREYS = [[GENERATOR.randrange(256) for _ in range(784)] for _ in range(3)]
FLAT = "canonical=false"


@pytest.fixture(scope="module")
def cnn(shared_work: Work, shared_artifacts: Path) -> Version:
    """Return a version of the CNN in the module's database."""
    return publish(shared_work, shared_artifacts, "cnn", 0.99)


@pytest.fixture
def api(cnn: Version, shared_api: TestClient) -> TestClient:
    """Return the module's API, with a version of the CNN."""
    return shared_api


def give(api: TestClient, kind: str, content: bytes, query: str = "") -> Response:
    """POST a body of a content type."""
    return api.post(f"/predict?{query}", content=content, headers={"content-type": kind})


def answered(response: Response) -> dict[str, Any]:
    """Return the JSON of an answer, which must be 200."""
    assert response.status_code == 200, response.text[:500]
    found: dict[str, Any] = response.json()
    return found


def npy(array: np.ndarray) -> bytes:
    """Return an array as numpy.save writes it."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def picture(values: list[int], form: str = "PNG", **options: Any) -> bytes:
    """Return 28 by 28 pixels as a picture."""
    file = io.BytesIO()
    Image.fromarray(np.array(values, np.uint8).reshape(28, 28)).save(file, form, **options)
    return file.getvalue()


# --- one image, in any form

ONE: dict[str, Callable[[list[int]], tuple[str, bytes, str]]] = {
    "bytes": lambda grey: ("application/octet-stream", bytes(grey), ""),
    "npy uint8": lambda grey: ("application/x-npy", npy(np.array(grey, np.uint8)), ""),
    "npy square": lambda grey: ("application/x-npy", npy(np.array(grey, np.uint8).reshape(28, 28)), ""),
    "npy fortran": lambda grey: (
        "application/x-npy",
        npy(np.asfortranarray(np.array(grey, np.uint8).reshape(28, 28))),
        "",
    ),
    "npy float32 in 0..1": lambda grey: ("application/x-npy", npy(np.array(grey, np.float32) / 255), ""),
    "npy float64 in 0..255": lambda grey: ("application/x-npy", npy(np.array(grey, np.float64)), ""),
    "npy big-endian": lambda grey: ("application/x-npy", npy(np.array(grey, ">i4")), ""),
    "PNG": lambda grey: ("image/png", picture(grey), FLAT),
    "upper case with a charset": lambda grey: ("Image/PNG; charset=binary", picture(grey), FLAT),
    "PNG in colours": lambda grey: (
        "image/png",
        _saved(Image.fromarray(np.array(grey, np.uint8).reshape(28, 28)).convert("RGB")),
        FLAT,
    ),
    "PNG of 16 bits": lambda grey: (
        "image/png",
        _saved(Image.fromarray((np.array(grey, np.uint16) * 257).reshape(28, 28))),
        FLAT,
    ),
}


def _saved(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("way", ONE.values(), ids=ONE)
def test_one_image_gets_the_same_answer_in_every_form(
    api: TestClient, cnn: Version, way: Callable[[list[int]], tuple[str, bytes, str]]
) -> None:
    """The answer is torch's for bytes, for arrays of any dtype and order, and for pictures."""
    for values in GREYS:
        found = answered(give(api, *way(values)))

        assert found["probabilities"] == pytest.approx(cnn.answer([float(v) for v in values], 255), abs=1e-5)
        assert found["job_id"] == cnn.job.id


def test_an_image_may_be_nested_rows(api: TestClient) -> None:
    """An image may be 28 rows of 28 values."""
    rows = [GREYS[0][28 * i : 28 * i + 28] for i in range(28)]
    flat = answered(api.post("/predict", json={"pixels": GREYS[0]}))

    assert answered(api.post("/predict", json={"pixels": rows})) == flat


def test_a_jpeg_is_accepted(api: TestClient, cnn: Version) -> None:
    """The answer is only close to that for the same pixels, because JPEG is lossy."""
    smooth = [int(127 + 120 * np.sin(i / 90)) for i in range(784)]
    found = answered(give(api, "image/jpeg", picture(smooth, "JPEG", quality=100), FLAT))

    assert found["probabilities"] == pytest.approx(cnn.answer([float(v) for v in smooth], 255), abs=0.02)


def test_a_transparent_drawing_is_read_as_ink_on_paper(api: TestClient) -> None:
    """A drawing pad sends black or white ink without a background; each gets paper of the opposite tone."""
    shape = np.array(GREYS[0], np.uint8).reshape(28, 28) // 255 * 255
    for ink, paper in ((0, 255), (255, 0)):
        pad = Image.fromarray(np.dstack([np.full_like(shape, ink), shape]), "LA")
        drawn = np.where(shape == 255, ink, paper).astype(np.uint8)
        pad_answer = answered(give(api, "image/png", _saved(pad), FLAT))
        paper_answer = answered(give(api, "image/png", _saved(Image.fromarray(drawn)), FLAT))

        assert pad_answer["probabilities"] == paper_answer["probabilities"]


def test_the_surroundings_of_a_cut_out_are_read_as_paper() -> None:
    """The surroundings of the cut-out sheet and its shadow get the tone of the sheet's paper."""
    digit = np.zeros((60, 60), bool)
    digit[20:40, 28:31] = True
    for ink, paper in ((10, 240), (250, 20)):
        sheet = np.where(digit, ink, paper).astype(np.uint8)
        opacity = np.zeros((80, 80), np.uint8)
        opacity[8:72, 8:72], opacity[10:70, 10:70] = 90, 255
        cut_out = np.zeros((80, 80), np.uint8)
        cut_out[10:70, 10:70] = sheet
        whole = np.full((80, 80), paper, np.uint8)
        whole[10:70, 10:70] = sheet

        found = grey(opened(_saved(Image.fromarray(np.dstack([cut_out, opacity]), "LA")), "PNG"))

        assert np.array_equal(found, whole)


def test_a_picture_with_unreadable_orientation_is_not_rotated(api: TestClient) -> None:
    """Only the record of the rotation is damaged, so the pixels are used as they are."""
    damaged = picture(GREYS[0], exif=b"no EXIF data")
    found, plain = (answered(give(api, "image/png", body, FLAT)) for body in (damaged, picture(GREYS[0])))

    assert found == plain


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_picture_is_rotated_by_its_recorded_orientation(orientation: int) -> None:
    """Cameras record in EXIF how they were held."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    quarters = {1: 0, 3: 2, 6: -1}[orientation]  # counter-clockwise

    found = grey(opened(picture(GREYS[0], exif=exif), "PNG"))

    assert np.array_equal(found, np.rot90(np.array(GREYS[0]).reshape(28, 28), quarters))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "PNG with transparency"])
def test_a_colour_network_gets_the_colours_of_a_picture(form: str) -> None:
    """Red, green and blue are each resized to the network's shape."""
    colours = [(200, 30, 40), (10, 180, 90)]
    image = Image.new("RGB", (40, 20), colours[0])
    image.paste(colours[1], (20, 0, 40, 20))
    if "transparency" in form:
        image.putalpha(255)
    file = io.BytesIO()
    image.save(file, form[:4].strip(), **({"quality": 100, "subsampling": 0} if form == "JPEG" else {}))
    asked = readers["image/jpeg" if form == "JPEG" else "image/png"](file.getvalue(), Options())

    found = asked.images((3, 2, 2))

    assert found.pixels.shape == (1, 3, 2, 2)
    expected = np.array([colours, colours]).transpose(2, 0, 1)
    assert np.abs(found.pixels[0].astype(int) - expected).max() <= (3 if form == "JPEG" else 0)
    assert found.reports is None


def test_a_colour_network_gets_a_grey_picture_in_every_channel() -> None:
    """Each channel holds the grey levels of the picture."""
    (found,) = readers["image/png"](picture(GREYS[0]), Options()).images((3, 28, 28)).pixels

    assert np.array_equal(found, np.broadcast_to(np.array(GREYS[0]).reshape(28, 28), (3, 28, 28)))


def test_a_network_of_four_channels_takes_no_picture() -> None:
    """The order of the channels is unknown; the error says what to send instead."""
    with pytest.raises(BadInput, match="application/x-npy"):
        readers["image/png"](picture(GREYS[0]), Options()).images((4, 28, 28))


def test_too_many_pixels_waiting_to_be_decoded_are_refused(api: TestClient) -> None:
    """The answer is 503 with a Retry-After; every picture frees its place in the queue, even a damaged one."""
    pictures = api.app.plain["/predict"].app.app.pictures  # type: ignore[attr-defined]
    for body, status in ((picture(GREYS[0]), 200), (picture(GREYS[0])[:-100], 422)):
        assert give(api, "image/png", body).status_code == status
        assert pictures.waiting == 0
    pictures.enter(pictures.limit - 783)
    refused = give(api, "image/png", picture(GREYS[0]))
    array = give(api, "application/x-npy", npy(np.zeros(784, np.uint8)))
    pictures.leave(pictures.limit - 783)

    assert "pixels" in problem(refused, 503)["detail"]
    assert int(refused.headers["retry-after"]) > 0
    assert array.status_code == 200
    assert give(api, "image/png", picture(GREYS[0])).status_code == 200


# --- several images


def test_several_images_are_answered_in_order(api: TestClient, cnn: Version) -> None:
    """JSON, bytes and an array of images get the answers that each image gets alone."""
    alone = [answered(api.post("/predict", json={"pixels": grey}))["probabilities"] for grey in GREYS]
    array = np.array(GREYS, np.uint8)
    for response in (
        api.post("/predict", json={"images": GREYS}),
        give(api, "application/octet-stream", array.tobytes()),
        give(api, "application/x-npy", npy(array)),
        give(api, "application/x-npy", npy(array.reshape(3, 28, 28))),
        give(api, "application/x-npy", npy(array.reshape(3, 1, 28, 28))),
    ):
        found = answered(response)

        assert [p["probabilities"] for p in found["predictions"]] == [pytest.approx(p, abs=2e-6) for p in alone]
        assert found["checkpoint_sha256"] == cnn.checkpoint_sha256


def test_an_unusable_image_does_not_affect_the_others(api: TestClient) -> None:
    """The place of an unusable image holds an error; the other places hold predictions."""
    bad: list[Any] = [[0] * 783, [0] * 783 + [True], "image", None, [0] * 783 + [256], [[0] * 28] * 27, [-0.5] * 784]
    images = [value for pair in zip(bad, GREYS * 3, strict=False) for value in pair]
    found = answered(send(api, "/predict", {"images": images}))["predictions"]

    assert ["error" in each for each in found] == [True, False] * len(bad)
    assert [each["label"] for each in found[1::2]] == [
        answered(api.post("/predict", json={"pixels": grey}))["label"] for grey in (GREYS * 3)[: len(bad)]
    ]
    assert found[0]["error"] == "#/images/0: 784 numbers are needed, not 783"
    assert "#/images/2/783" in found[2]["error"]


def test_a_list_of_unusable_images_is_answered_with_errors(api: TestClient) -> None:
    """No network runs, and each place holds an error."""
    found = answered(send(api, "/predict", {"images": [[], "x"]}))["predictions"]

    assert ["error" in each for each in found] == [True, True]


def test_1024_images_are_answered_and_1025_refused(api: TestClient) -> None:
    """The limit holds for every form that takes a list."""
    image = bytes(GREYS[0])
    found = answered(give(api, "application/octet-stream", image * 1024, "top_k=1"))["predictions"]

    assert len(found) == 1024
    assert {each["label"] for each in found} == {found[0]["label"]}
    assert problem(give(api, "application/octet-stream", image * 1025), 422)
    assert problem(give(api, "application/x-npy", npy(np.zeros((1025, 784), np.uint8))), 422)
    assert "#/images" in pointers(send(api, "/predict", {"images": [[0]] * 1025}))


# --- options of a prediction


def test_top_k_returns_only_the_best_labels(api: TestClient) -> None:
    """The answer has the requested number of labels, most probable first, instead of all probabilities."""
    whole = answered(api.post("/predict", json={"pixels": GREYS[0]}))
    found = answered(api.post("/predict?top_k=3", json={"pixels": GREYS[0]}))
    best = sorted(enumerate(whole["probabilities"]), key=lambda pair: -pair[1])[:3]

    assert [(each["label"], each["probability"]) for each in found["top"]] == [(str(i), p) for i, p in best]
    assert found["label"] == found["top"][0]["label"]
    assert found["confidence"] == found["top"][0]["probability"]
    assert "probabilities" not in found


def test_a_version_can_be_chosen_by_number(api: TestClient, shared_work: Work, shared_artifacts: Path) -> None:
    """A version before the champion can be chosen; one that does not exist is a 404."""
    old = publish(shared_work, shared_artifacts, "shallow", 0.7, seed=1)
    new = publish(shared_work, shared_artifacts, "shallow", 0.8, seed=2)
    for number, version in ((1, old), (2, new), (1, old)):
        found = answered(api.post(f"/predict?model=shallow&version={number}", json={"pixels": GREYS[0]}))

        assert (found["version"], found["job_id"]) == (number, version.job.id)
        assert found["probabilities"] == pytest.approx(version.answer([float(g) for g in GREYS[0]], 255), abs=1e-5)
    assert (
        "GET /models/shallow"
        in problem(api.post("/predict?model=shallow&version=3", json={"pixels": GREYS[0]}), 404)["detail"]
    )
    assert problem(api.post("/predict?model=shallow&version=1&dataset=digits", json={"pixels": [0] * 64}), 404)


def test_an_explanation_is_the_mean_fall_of_the_probability_per_pixel(api: TestClient, cnn: Version) -> None:
    """Each of 28 by 28 values is the mean fall of the label's probability over the patches that cover the pixel."""
    found = answered(api.post("/predict?explain=true", json={"pixels": GREYS[0]}))
    saliency = np.array(found["saliency"])
    pixels = np.array(GREYS[0], float).reshape(28, 28)
    falls = []
    for top in range(8, 14, 2):  # the patches that cover the pixel in row 13, column 15
        for left in range(10, 16, 2):
            covered = pixels.copy()
            covered[top : top + 6, left : left + 6] = 0
            answer = cnn.answer(covered.ravel().tolist(), 255)
            falls.append(found["confidence"] - answer[int(found["label"])])

    assert saliency.shape == (28, 28)
    assert saliency[13, 15] == pytest.approx(np.mean(falls), abs=2e-4)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (1, 180, 180), (3, 500, 30), (1, 1, 2000)])
def test_explaining_a_large_image_needs_no_more_copies_than_a_small_one(shape: tuple[int, ...]) -> None:
    """The patches grow in proportion, nine of them cover each pixel, and few copies are made at once."""
    image = np.ones(shape, np.float32)
    batches = list(covered(image))
    copies = np.concatenate(batches)
    fallen = saliency(shape, 1.0, np.full(len(copies), 0.25))

    assert len(copies) <= 256
    assert all(batch.nbytes <= 1 << 22 for batch in batches)
    assert np.array_equal((copies == 0).sum(axis=0), np.full(shape, 9))
    assert np.array_equal(fallen, np.full(shape[-2:], 0.75))


QUERIES = {
    "top_k=0": "?top_k",
    "top_k=x": "?top_k",
    "top_k=1.5": "?top_k",
    "version=0&model=cnn": "?version",
    "version=1": "?version",
    "version=99999999999999999999999&model=cnn": "?version",
    "explain=perhaps": "?explain",
    "canonical=": "?canonical",
    "scale=2": "?scale",
    "model=resnet": "?model",
    "dataset=imagenet": "?dataset",
    "modell=cnn": "?modell",
    "model=%00": "?model",
    "model=" + "x" * 300: "?model",
}


@pytest.mark.parametrize(("query", "pointer"), QUERIES.items())
def test_an_invalid_option_is_named(api: TestClient, query: str, pointer: str) -> None:
    """The error points to the option in the query."""
    assert pointers(api.post(f"/predict?{query}", json={"pixels": GREYS[0]})).keys() == {pointer}


def test_an_option_in_the_body_overrides_the_query(api: TestClient) -> None:
    """An option in the body takes precedence over one in the query."""
    found = answered(api.post("/predict?top_k=3", json={"pixels": GREYS[0], "top_k": 2}))

    assert len(found["top"]) == 2


# --- unreadable bodies


def header(shape: str, descr: str = "'|u1'", order: str = "False") -> bytes:
    """Return the header of an npy file with a shape, type and order."""
    return head(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}")


def head(text: str) -> bytes:
    """Return the header of an npy file with any text."""
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """Return a PNG that declares this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


UNREADABLE: dict[str, tuple[str, bytes]] = {
    "no bytes": ("application/octet-stream", b""),
    "783 bytes": ("application/octet-stream", bytes(783)),
    "785 bytes": ("application/octet-stream", bytes(785)),
    "no npy": ("application/x-npy", b"\x93NUMPX" + bytes(100)),
    "an empty npy": ("application/x-npy", b""),
    "npy version 9": ("application/x-npy", b"\x93NUMPY\x09\x00" + bytes(900)),
    "npy without its end": ("application/x-npy", npy(np.zeros(784, np.uint8))[:-1]),
    "npy with more than its end": ("application/x-npy", npy(np.zeros(784, np.uint8)) + b"\0"),
    "npy of objects": ("application/x-npy", npy(np.array([{"a": 1}] * 784, object))),
    "npy of texts": ("application/x-npy", npy(np.array(["a"] * 784))),
    "npy of times": ("application/x-npy", npy(np.zeros(784, "M8[s]"))),
    "npy of complex numbers": ("application/x-npy", npy(np.zeros(784, complex))),
    "npy of records": ("application/x-npy", npy(np.zeros(784, [("a", "u1")]))),
    "npy that says it is huge": ("application/x-npy", header("(1000000000000, 784)") + bytes(784)),
    "npy of negative size": ("application/x-npy", header("(-1, -784)") + bytes(784)),
    "npy of no size": ("application/x-npy", header("(0, 784)")),
    "npy with code in its head": ("application/x-npy", header("(__import__('os').abort(),)") + bytes(784)),
    "npy with a head of a megabyte": (
        "application/x-npy",
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 20) + b"(" * (1 << 20),
    ),
    "npy whose head is open": ("application/x-npy", head("{") + bytes(784)),
    "npy whose head has no name": ("application/x-npy", head("{[]: 1}") + bytes(784)),
    "npy whose head has a number for a name": ("application/x-npy", head("{1: 1, 'shape': (784,)}") + bytes(784)),
    "npy of no type": (
        "application/x-npy",
        head("{'descr': (), 'fortran_order': False, 'shape': (784,)}") + bytes(784),
    ),
    "npy of 70 dimensions": ("application/x-npy", header(str((1,) * 69 + (784,))) + bytes(784)),
    "npy with NaN": ("application/x-npy", npy(np.full(784, np.nan))),
    "npy with infinity": ("application/x-npy", npy(np.full(784, np.inf, np.float32))),
    "npy below 0": ("application/x-npy", npy(np.full(784, -1))),
    "npz": ("application/x-npy", b"PK\x03\x04" + bytes(1000)),
    "no PNG": ("image/png", b"not a picture"),
    "an empty PNG": ("image/png", b""),
    "half a PNG": ("image/png", picture(GREYS[0])[:200]),
    "a JPEG that says it is a PNG": ("image/png", picture(GREYS[0], "JPEG")),
    "a GIF that says it is a PNG": ("image/png", b"GIF89a" + bytes(100)),
    "half a JPEG": ("image/jpeg", picture(GREYS[0], "JPEG")[:150]),
    "a PNG of 900 megapixels": ("image/png", png(30_000, 30_000, zlib.compress(bytes(1 << 20)))),
    "a PNG of no pixel": ("image/png", png(0, 0)),
}


@pytest.mark.parametrize(("kind", "content"), UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("query", ["", "canonical=false", "canonical=true"])
def test_an_unreadable_body_is_refused(api: TestClient, kind: str, content: bytes, query: str) -> None:
    """The answer is 422 with the whole body as its pointer, never 500."""
    assert pointers(give(api, kind, content, query)).keys() == {"#"}


def test_the_error_for_an_unsupported_type_lists_the_supported_types(api: TestClient) -> None:
    """The answer is 415; a compressed body is not unpacked, as its full size is unknown."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "image/gif", "application/zip", ""):
        assert "image/png" in problem(give(api, kind, b"x"), 415)["detail"]
    headers = {"content-type": "application/json", "content-encoding": "gzip"}

    assert "Content-Encoding" in problem(api.post("/predict", content=b"x", headers=headers), 415)["detail"]


def test_only_post_is_allowed(api: TestClient) -> None:
    """The answer is 405 with the allowed method."""
    response = api.get("/predict")

    problem(response, 405)
    assert response.headers["allow"] == "POST"


def test_a_body_that_is_too_large_is_refused_before_it_is_read(api: TestClient) -> None:
    """The answer is 413 and names the setting."""
    assert "CHIFFRE_MAX_IMAGE_BYTES" in problem(give(api, "image/png", bytes((16 << 20) + 1)), 413)["detail"]


def test_unreadable_bodies_leave_no_memory_behind(api: TestClient) -> None:
    """After twenty of each kind of unreadable body the process has grown by less than 20 MB."""
    for kind, content in UNREADABLE.values():
        give(api, kind, content)
    before = psutil.Process().memory_info().rss
    for _ in range(20):
        for kind, content in UNREADABLE.values():
            give(api, kind, content)

    assert psutil.Process().memory_info().rss - before < 20 << 20
    assert answered(give(api, "application/octet-stream", bytes(784)))
