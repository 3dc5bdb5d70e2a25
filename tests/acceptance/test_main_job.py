"""The main use of Chiffre end to end: a tuning job, its version and predictions."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from acceptance.services import Up, chiffre_up, run_command
from PIL import Image
from sklearn.metrics import accuracy_score

from api.client import Chiffre
from ml.datasets import Arrays, data_split, datasets

pytestmark = pytest.mark.long  # all tests together take a quarter of a minute

SPEC = {
    "model": "shallow",
    "dataset": "mnist",
    "search_space": {
        "hidden_size": {"type": "int", "low": 32, "high": 64},
        "batch_size": 100,
        "learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True},
    },
    "pruner": {"name": "median", "n_startup_trials": 2},
    "budget": {"trials": 4, "epochs": 2},
}
SERVED = 1000  # test images sent to /predict one by one; the trainer evaluates all 7,000


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Start and yield the embedded services, with a trainer for each of two cores."""
    with chiffre_up(tmp_path_factory.mktemp("up") / "home", CHIFFRE_TRAINERS="2") as services:
        yield services


@pytest.fixture(scope="module")
def client(up: Up) -> Iterator[Chiffre]:
    """Yield a client of the services."""
    with Chiffre(up.url) as client:
        yield client


@pytest.fixture(scope="module")
def job(client: Chiffre) -> dict[str, Any]:
    """Return a completed tuning job on MNIST."""
    posted = client.tune(SPEC)
    *_, ended = client.follow(posted["id"])
    return ended


def test_images(name: str) -> Arrays:
    """Return the test images of a data set."""
    dataset = datasets[name]
    arrays = dataset.load()
    return arrays.take(data_split(len(arrays), dataset.official_test, "random", seed=0).test)


test_images.__test__ = False  # type: ignore[attr-defined]


def served_labels(client: Chiffre, images: np.ndarray, **options: Any) -> list[int]:
    """Return the labels from /predict, one request per image."""
    return [client.predict([float(p) for p in image.ravel()], **options)["digit"] for image in images]


def test_the_job_completes_with_exactly_its_budget(job: dict[str, Any], client: Chiffre) -> None:
    """Exactly the four requested trials have run, each with recorded parameters."""
    trials = list(client.trials(job["id"]))

    assert (job["state"], job["stop_reason"], job["error"]) == ("completed", "trials", None)
    assert [trial["number"] for trial in trials] == [0, 1, 2, 3]
    assert all(32 <= trial["params"]["hidden_size"] <= 64 for trial in trials)
    assert {trial["state"] for trial in trials} <= {"completed", "pruned"}


def test_the_history_of_the_job_lists_its_states(job: dict[str, Any]) -> None:
    """The states are queued, running, stopping and completed."""
    assert [step["state"] for step in job["history"]] == ["queued", "running", "stopping", "completed"]


def test_every_epoch_is_recorded(job: dict[str, Any], client: Chiffre) -> None:
    """The epochs of the winner have losses and seconds, and its value is the best accuracy among them."""
    best = httpx2.get(f"{client.url}/jobs/{job['id']}/trials/{job['best']['trial']}").json()
    epochs = best["measurements"]

    assert [epoch["epoch"] for epoch in epochs] == [1.0, 2.0]
    assert all(epoch["train_loss"] > 0 and epoch["val_loss"] > 0 and epoch["seconds"] > 0 for epoch in epochs)
    assert best["value"] == max(epoch["val_accuracy"] for epoch in epochs) == job["best"]["value"]


def test_the_csv_has_every_trial(job: dict[str, Any], client: Chiffre) -> None:
    """With `Accept: text/csv` the answer has one row per trial, with parameters and results."""
    answer = httpx2.get(f"{client.url}/jobs/{job['id']}/trials", headers={"Accept": "text/csv"})
    rows = list(csv.DictReader(io.StringIO(answer.text)))

    assert [int(row["number"]) for row in rows] == [0, 1, 2, 3]
    assert max(float(row["val_accuracy"]) for row in rows) == job["best"]["value"]


def test_predictions_come_from_the_winner_with_its_test_accuracy(job: dict[str, Any], client: Chiffre) -> None:
    """The accuracy of the served answers, by scikit-learn, agrees with the test accuracy of the version."""
    test = test_images("mnist")
    version = client.version("shallow", job["version"]["version"])
    answer = client.predict([float(p) for p in test.images[0].ravel()], model="shallow")
    served = served_labels(client, test.images[:SERVED], model="shallow")
    accuracy = accuracy_score(test.labels[:SERVED], served)
    deviation = np.sqrt(version["test_accuracy"] * (1 - version["test_accuracy"]) / SERVED)

    assert (answer["job_id"], answer["trial"], answer["version"]) == (job["id"], job["best"]["trial"], 1)
    assert answer["checkpoint_sha256"] == version["checkpoint_sha256"]
    assert len(test) == 7000
    assert abs(accuracy - version["test_accuracy"]) < 4 * deviation


def test_the_served_accuracy_on_a_small_data_set_equals_the_recorded_one(client: Chiffre) -> None:
    """Sending every test image of the digits one by one gives the accuracy that the trainer recorded."""
    posted = client.train({"model": "perceptron", "dataset": "digits", "budget": {"epochs": 5}})
    *_, ended = client.follow(posted["id"])
    version = client.model("perceptron")["versions"][0]
    test = test_images("digits")
    served = served_labels(client, test.images, model="perceptron", dataset="digits")

    assert ended["state"] == "completed"
    assert accuracy_score(test.labels, served) == pytest.approx(version["test_accuracy"], abs=1e-12)


def test_a_trial_that_joined_a_pack_later_can_be_replayed(up: Up, client: Chiffre) -> None:
    """`chiffre replay` needs only the answers of the API, and reproduces the record."""
    space = {"learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True}, "batch_size": 32}
    spec = {"model": "shallow", "dataset": "digits", "search_space": space, "pruner": {"name": "none"}, "lanes": 2}
    posted = client.tune({**spec, "budget": {"trials": 8, "epochs": 2}})
    *_, ended = client.follow(posted["id"])
    late = max((client.trial(ended["id"], number) for number in range(8)), key=lambda trial: trial["start_step"])
    replayed = run_command(up, "replay", ended["id"], str(late["number"]), "--json")
    rungs = json.loads(replayed.stdout)

    assert late["start_step"] > 0
    assert [rung["epoch"] for rung in rungs] == [measured["epoch"] for measured in late["measurements"]] == [1.0, 2.0]
    assert all(rung["found_loss"] == pytest.approx(rung["recorded_loss"], rel=1e-3) for rung in rungs)
    assert all(abs(rung["found_accuracy"] - rung["recorded_accuracy"]) <= 1 / 323 for rung in rungs)


def test_the_command_follows_a_job_and_shows_its_trials(up: Up, tmp_path: Path) -> None:
    """`chiffre tune --follow` ends when the job does, and `chiffre trials` shows its trials."""
    file = tmp_path / "spec.json"
    file.write_text(
        json.dumps({**SPEC, "model": "perceptron", "search_space": {}, "budget": {"trials": 2, "epochs": 1}})
    )
    followed = run_command(up, "tune", str(file), "--follow", "--json")
    job = json.loads(followed.stdout)
    listed = run_command(up, "trials", job["id"])

    assert job["state"] == "completed"
    assert "accuracy" in listed.stdout
    assert listed.returncode == 0


def test_the_command_reads_an_image_file(job: dict[str, Any], up: Up, tmp_path: Path) -> None:
    """`chiffre predict image.png` gives the answer of /predict for the same pixels: a test image is not changed."""
    image = test_images("mnist").images[0, 0]
    file = tmp_path / "digit.png"
    Image.fromarray(image).save(file)
    answered = json.loads(run_command(up, "predict", str(file), "--model", "shallow", "--json").stdout)
    with Chiffre(up.url) as client:
        expected = client.predict([float(p) for p in image.ravel()], model="shallow")

    assert job["state"] == "completed"
    assert answered.pop("input_report")["pixels"] == image.tolist()
    assert answered == expected
