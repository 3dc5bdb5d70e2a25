"""Prediction: which version predicts, how pixels are read, and how champions change."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.worker_tools import Work

from api.inputs.options import Options
from api.prediction.roster import Roster
from ml.networks import networks
from tests.api.tools import BLANK, Version, eventually, pointers, problem, publish, send

GREY = [random.Random(n).randrange(256) for n in range(784)]
FAINT = [value / 255 for value in GREY]


@pytest.fixture(scope="module")
def published(shared_work: Work, shared_artifacts: Path) -> dict[str, Version]:
    """Return a version of every network in the module's database; the CNN is the best on validation."""
    values = {"perceptron": 0.91, "shallow": 0.97, "mlp": 0.98, "cnn": 0.99}
    return {name: publish(shared_work, shared_artifacts, name, value) for name, value in values.items()}


@pytest.fixture
def api_with_all(published: dict[str, Version], shared_api: TestClient) -> TestClient:
    """Return the module's API with a version of every network."""
    return shared_api


def ask(api: TestClient, pixels: list[Any] = GREY, **fields: Any) -> dict[str, Any]:
    """Return the prediction for an image."""
    response = api.post("/predict", json={"pixels": pixels, **fields})
    assert response.status_code == 200, response.text[:500]
    answer: dict[str, Any] = response.json()
    return answer


def roster(api: TestClient) -> Roster:
    """Return the roster of an API."""
    found: Roster = api.app.state.roster  # type: ignore[attr-defined]
    return found


# --- the answer


@pytest.mark.parametrize("model", networks)
@pytest.mark.parametrize(("pixels", "scale"), [(GREY, 255), (FAINT, 1), (BLANK, 1)], ids=["grey", "faint", "blank"])
def test_the_answer_is_torchs_softmax(
    api_with_all: TestClient, published: dict[str, Version], model: str, pixels: list[float], scale: int
) -> None:
    """For every network the probabilities are those of the torch module that was published, to 1e-5."""
    answer = ask(api_with_all, pixels, model=model)
    expected = published[model].answer(pixels, scale)

    assert answer["probabilities"] == pytest.approx(expected, abs=1e-5)
    assert answer["label"] == str(expected.index(max(expected)))
    assert answer["digit"] == int(answer["label"])


@pytest.mark.parametrize("model", networks)
def test_the_answer_names_the_version_and_its_origin(
    api_with_all: TestClient, published: dict[str, Version], model: str
) -> None:
    """The answer has the network, data set, version, job, trial and the hash of the weights."""
    answer = ask(api_with_all, model=model)
    version = published[model]
    origin = {name: answer[name] for name in ("model", "dataset", "version", "job_id", "trial", "checkpoint_sha256")}

    assert origin == {
        "model": model,
        "dataset": "mnist",
        "version": 1,
        "job_id": version.job.id,
        "trial": 0,
        "checkpoint_sha256": version.checkpoint_sha256,
    }


def test_without_a_model_the_best_network_predicts(api_with_all: TestClient) -> None:
    """The network with the highest validation accuracy on the data set predicts."""
    assert ask(api_with_all)["model"] == "cnn"
    assert ask(api_with_all, dataset="mnist", model=None)["model"] == "cnn"


def test_the_best_network_is_chosen_on_the_named_data_set(api: TestClient, work: Work, environment: Path) -> None:
    """A network that is better on another data set does not count."""
    publish(work, environment, "cnn", 0.99)
    publish(work, environment, "shallow", 0.95, dataset="digits")

    assert ask(api, dataset="digits")["model"] == "shallow"
    assert ask(api)["model"] == "cnn"
    assert problem(api.post("/predict", json={"pixels": GREY, "model": "cnn", "dataset": "digits"}), 404)


def test_a_network_measured_on_few_images_is_used_only_if_there_is_no_other(
    api: TestClient, work: Work, environment: Path
) -> None:
    """Accuracy on few images says little. If all networks used few images, the one with the most images predicts."""
    publish(work, environment, "shallow", 1.0, images=200)
    publish(work, environment, "mlp", 0.9, images=300)
    of_few = eventually(lambda: ask(api)["model"] == "mlp")
    publish(work, environment, "cnn", 0.8)

    assert of_few
    assert eventually(lambda: ask(api)["model"] == "cnn")
    assert ask(api, model="shallow")["model"] == "shallow"


# --- the scale


@pytest.mark.parametrize(
    ("pixels", "scale", "used"),
    [
        ([0] * 784, None, 1),
        ([1] * 784, None, 1),
        ([0.5] * 784, None, 1),
        ([1] * 783 + [1.0001], None, 255),
        ([0] * 783 + [2], None, 255),
        ([255] * 784, None, 255),
        ([1] * 784, 255, 255),
        ([0.5] * 784, 255, 255),
        ([1] * 784, 1, 1),
        ([255] * 784, 255, 255),
    ],
)
def test_the_scale_follows_the_largest_value_or_the_request(
    api_with_all: TestClient, published: dict[str, Version], pixels: list[float], scale: int | None, used: int
) -> None:
    """The scale is 1 if no value exceeds 1, else 255. A request can force 255, and the answer has the scale."""
    answer = ask(api_with_all, pixels, model="shallow", scale=scale)

    assert answer["scale"] == used
    assert answer["probabilities"] == pytest.approx(published["shallow"].answer(pixels, used), abs=1e-5)


@pytest.mark.parametrize("largest", [1.0001, 2, 255])
def test_a_value_above_the_scale_is_refused(api_with_all: TestClient, largest: float) -> None:
    """With scale 1 no value may exceed 1; the error says what to do."""
    response = api_with_all.post("/predict", json={"pixels": [0] * 783 + [largest], "scale": 1})

    assert "255" in pointers(response)["#/pixels"]


# --- what is refused

SCALES: list[Any] = [0, 2, 254, -1, 1.5, "1", "auto", True, [], {}, float("nan")]
PIXELS: list[tuple[Any, str, str]] = [
    ([], "#/pixels", "784 numbers are needed, not 0"),
    ([0] * 783, "#/pixels", "784 numbers are needed, not 783"),
    ([0] * 785, "#/pixels", "784 numbers are needed, not 785"),
    ([0] * 65537, "#/pixels", "784 numbers are needed, not 65537"),
    ([[0] * 28] * 27, "#/pixels", "784 numbers are needed, not 27"),
    ([[0] * 28] * 27 + [[0] * 27], "#/pixels/27", "28 numbers are needed, not 27"),
    ([[0] * 28] * 27 + [0], "#/pixels", "784 numbers are needed, not 28"),
    ([[0]] * 784, "#/pixels/0", "number"),
    (None, "#/pixels", "missing"),
    ("0" * 784, "#/pixels", "list"),
    (0, "#/pixels", "list"),
    ({"0": 0}, "#/pixels", "list"),
]
VALUES: list[Any] = [
    float("nan"),
    float("inf"),
    float("-inf"),
    -1,
    -1e-9,
    255.001,
    256,
    10**400,
    -(10**400),
    "12",
    "",
    "NaN",
    True,
    False,
    None,
    [1],
    {},
    {"value": 1},
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_a_pixel_that_is_not_a_number_from_0_to_255_is_refused(api_with_all: TestClient, value: Any) -> None:
    """One wrong value among 784 is named by its place."""
    pixels = [*BLANK[:300], value, *BLANK[301:]]

    assert pointers(send(api_with_all, "/predict", {"pixels": pixels})).keys() == {"#/pixels/300"}


@pytest.mark.parametrize(("pixels", "pointer", "words"), PIXELS, ids=lambda value: repr(value)[:20])
def test_pixels_that_do_not_form_an_image_are_refused(
    api_with_all: TestClient, pixels: Any, pointer: str, words: str
) -> None:
    """The pixels are too few, too many, wrongly nested or not a list; the error says what is needed."""
    assert words in pointers(send(api_with_all, "/predict", {"pixels": pixels}))[pointer]


@pytest.mark.parametrize("scale", SCALES, ids=lambda value: repr(value)[:20])
def test_only_scales_1_and_255_are_accepted(api_with_all: TestClient, scale: Any) -> None:
    """Every other value is refused."""
    found = pointers(send(api_with_all, "/predict", {"pixels": BLANK, "scale": scale}))

    assert found.keys() == {"#/scale"}
    assert "1 or 255" in found["#/scale"]


def test_784_bad_pixels_give_at_most_20_errors(api_with_all: TestClient) -> None:
    """At most 20 errors are listed, and no value is echoed."""
    response = send(api_with_all, "/predict", {"pixels": ["unmistakable"] * 784})

    assert len(problem(response, 422)["errors"]) == 20
    assert "unmistakable" not in response.text
    assert len(response.content) < 4000


# --- the version that predicts


def test_without_a_version_the_error_says_what_to_do(api: TestClient) -> None:
    """The answer is 404 and names the way to a first version."""
    whole = problem(api.post("/predict", json={"pixels": BLANK}), 404)["detail"]
    one = problem(api.post("/predict", json={"pixels": BLANK, "model": "cnn"}), 404)["detail"]

    assert "POST /jobs/tune" in whole
    assert "cnn" in one


def test_the_first_version_predicts_at_once(api: TestClient, work: Work, environment: Path) -> None:
    """The first request after the first publication is answered without waiting for the next refresh."""
    problem(api.post("/predict", json={"pixels": BLANK}), 404)
    version = publish(work, environment)

    assert ask(api)["job_id"] == version.job.id


def test_a_new_champion_predicts_without_a_restart(api: TestClient, work: Work, environment: Path) -> None:
    """A better version predicts within five seconds of its publication."""
    old = publish(work, environment, value=0.9, seed=1)
    before = ask(api)
    new = publish(work, environment, value=0.95, seed=2)
    changed = eventually(lambda: ask(api)["version"] == 2)
    after = ask(api)

    assert (before["version"], before["job_id"]) == (1, old.job.id)
    assert changed
    assert (after["job_id"], after["checkpoint_sha256"]) == (new.job.id, new.checkpoint_sha256)
    assert after["probabilities"] == pytest.approx(new.answer(GREY, 255), abs=1e-5)


@pytest.mark.parametrize("value", [0.89, 0.9])
def test_a_version_that_is_not_better_does_not_replace_the_champion(
    api: TestClient, work: Work, environment: Path, value: float
) -> None:
    """After a worse or equal version is published, the old one still predicts."""
    publish(work, environment, value=0.9)
    before = ask(api)
    publish(work, environment, value=value, seed=2)
    roster(api).refresh()

    assert ask(api) == before
    assert len(api.get("/models/perceptron").json()["versions"]) == 2


SPOILS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "one byte": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
    "missing": Path.unlink,
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_a_version_with_a_damaged_graph_does_not_replace_the_old_one(
    api: TestClient, work: Work, environment: Path, spoil: Callable[[Path], object]
) -> None:
    """A new champion whose file is damaged or missing is not served; the previous one still predicts."""
    publish(work, environment, value=0.9, seed=1)
    before = ask(api)
    publish(work, environment, value=0.95, seed=2, spoil=spoil)
    roster(api).refresh()

    assert ask(api) == before
    assert [version["champion"] for version in api.get("/models/perceptron").json()["versions"]] == [True, False]


def test_an_intact_version_after_a_damaged_one_predicts(api: TestClient, work: Work, environment: Path) -> None:
    """The next champion is served as usual."""
    publish(work, environment, value=0.9, spoil=Path.unlink)
    whole = problem(api.post("/predict", json={"pixels": GREY}), 503)["detail"]
    publish(work, environment, value=0.95)

    assert "version 1: " in whole
    assert ask(api)["version"] == 2


def test_an_invalid_graph_does_not_affect_other_networks(api: TestClient, work: Work, environment: Path) -> None:
    """A version whose file has the right hash but is not a graph fails, and the other networks still predict."""
    publish(work, environment, "shallow", 0.9, graph=b"not a graph")
    publish(work, environment, "cnn", 0.95)

    assert ask(api, model="cnn")["version"] == 1
    problem(api.post("/predict", json={"pixels": GREY, "model": "shallow"}), 503)


def test_only_the_first_20_unknown_fields_are_reported(api_with_all: TestClient) -> None:
    """A body with a hundred thousand unknown fields is refused like one with twenty."""
    body = {"pixels": [0] * 784} | {f"f{n:06}": 0 for n in range(100_000)}
    response = api_with_all.post("/predict", json=body)

    assert list(pointers(response, 422)) == [f"#/f{n:06}" for n in range(20)]


@pytest.mark.parametrize("name", ["2024", "true"])
def test_a_data_set_name_in_a_query_is_always_text(name: str) -> None:
    """A name that looks like a number or a boolean stays text in a query."""
    options = Options.of_query(f"dataset={name}&top_k=3&explain=true".encode())

    assert (options.dataset, options.top_k, options.explain) == (name, 3, True)
