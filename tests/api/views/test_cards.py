"""Model cards agree with the rows, and their snippets work."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from scipy.stats import binomtest
from starlette.testclient import TestClient
from support.worker_tools import Work

from api.views import markdown
from api.views.cards import Subject, card
from tests.api.tools import publish
from worker.database.tables import Artifact, ModelVersion, UsedDataset

CALIBRATION = {
    "temperature": 1.25,
    "images": 12600,
    "ece": 0.0042,
    "ece_uncalibrated": 0.011,
    "novelty_limit": 3.5,
    "confidence_limit": 0.6,
    "abstained": 0.001,
    "test_images": 7000,
    "test_ece": 0.0051,
    "test_ece_uncalibrated": 0.0123,
    "test_abstained": 0.002,
}
MEASURED = {"calibration": CALIBRATION, "latency_seconds": 0.000123}


def shown(api: TestClient, model: str = "perceptron", version: int = 1) -> str:
    """A version's card."""
    response = api.get(f"/models/{model}/versions/{version}/card")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/markdown; charset=utf-8"
    return response.text


def rows(text: str) -> dict[str, list[str]]:
    """The rows of all tables of a rendered card, by their first cell."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    found: dict[str, list[str]] = {}
    row: list[str] = []
    for token in tokens:
        if token.type == "tr_open":
            row = []
        elif token.type == "inline" and token.level > 3:
            row.append("".join(child.content for child in token.children or []))
        elif token.type == "tr_close":
            found[row[0]] = row[1:]
    return found


def test_a_card_says_what_the_rows_say(api: TestClient, work: Work, environment: Path) -> None:
    """Lineage, hyper-parameters, results with their n, calibration, sizes and latency."""
    publish(work, environment, "shallow", measured=MEASURED)
    version, text = api.get("/models/shallow/versions/1").json(), shown(api, "shallow")
    table = rows(text)
    low, high = binomtest(round(0.89 * 7000), 7000).proportion_ci(method="wilson")

    assert text.startswith("# `shallow`, version 1\n")
    assert table["job"] == [f"{version['job_id']}, run 1, trial 0"]
    assert table["data set"] == [f"mnist, 70,000 images, SHA-256 {version['dataset_sha256']}"]
    assert table["split"] == ["random: 50,400 train, 12,600 validation, 7,000 test images"]
    assert table["chosen by"] == ["val_accuracy = 0.9 on validation"]
    assert {name: json.loads(table[name][0]) for name in ("hidden_size", "batch_size")} == {
        name: version["params"][name] for name in ("hidden_size", "batch_size")
    }
    assert "| validation | 12,600 | 90.00 % (11,340 of 12,600) | – | 0.1 |" in text
    assert f"| test | 7,000 | 89.00 % (6,230 of 7,000) | {100 * low:.2f} % to {100 * high:.2f} % | 0.25 |" in text
    assert "This was the first use of this test set." in text
    assert "a temperature of 1.25" in text
    assert "| validation | 12,600 | 0.42 % | 1.10 % | 0.10 % |" in text
    assert "| test | 7,000 | 0.51 % | 1.23 % | 0.20 % |" in text
    assert "It abstains if an image's novelty exceeds 3.5 or if its confidence is below 60.00 %." in text
    assert table["weights"] == [f"{version['weights']:,}"]
    assert table["latency"] == ["0.123 ms (median, one image, one core)"]
    assert table["ONNX graph"] == [f"{version['onnx_bytes']:,} bytes"]
    assert f"SHA-256 `{version['checkpoint_sha256']}`" in text
    assert "CC BY" in text.partition("## Data and licence")[2]


def test_every_hyper_parameter_stands_in_the_card(api: TestClient, work: Work, environment: Path) -> None:
    """Each value is JSON, except for texts."""
    publish(work, environment, "mlp")
    params, table = api.get("/models/mlp/versions/1").json()["params"], rows(shown(api, "mlp"))

    assert params
    assert {name: table[name][0] for name in params} == {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in params.items()
    }


def test_what_was_not_measured_is_said_to_be_missing(api: TestClient, work: Work, environment: Path) -> None:
    """Neither calibration nor latency is invented."""
    publish(work, environment)
    text = shown(api)

    assert rows(text)["latency"] == ["not measured"]
    assert "Not calibrated" in text
    assert "temperature" not in text


def test_a_card_is_the_same_every_time(api: TestClient, work: Work, environment: Path) -> None:
    """Later publications, promotions and openings do not change it."""
    publish(work, environment, measured=MEASURED)
    before = shown(api)
    publish(work, environment, value=0.95)
    api.post("/models/perceptron/champion/rollback")

    assert shown(api) == before
    assert "This was opening 2 of this test set." in shown(api, version=2)


def test_openings_count_for_each_data_set_and_split(api: TestClient, work: Work, environment: Path) -> None:
    """Other test images are another test set; the counts are those of the version's split."""
    publish(work, environment)
    publish(work, environment, split="official")
    text = shown(api, version=2)

    assert "This was the first use of this test set." in text
    assert rows(text)["split"] == ["official: 49,200 train, 10,800 validation, 10,000 test images"]


def test_of_an_uploaded_data_set_the_card_says_what_its_sender_said(
    api: TestClient, work: Work, environment: Path
) -> None:
    """It shows the description; without one it refers to the owner."""
    archive, letters = io.BytesIO(), {"search_space": {"learning_rate": 0.01}}
    np.savez_compressed(archive, images=np.arange(400).astype(np.uint8).reshape(100, 2, 2), labels=np.arange(100) % 2)
    zipped = {"Content-Type": "application/zip"}
    for name, said in (("letters", "My *own* letters, CC0."), ("silent", "")):
        sent = {"name": name, "description": said}
        api.post("/datasets", params=sent, content=archive.getvalue(), headers=zipped).raise_for_status()
        publish(work, environment, dataset=name, **letters)

    assert r"The data: My \*own\* letters, CC0. Chiffre is under Apache-2.0." in shown(api)
    assert "The data: `silent@1`, uploaded without a description; ask its owner." in shown(api, version=2)


def execute(command: list[str], folder: Path, **environment: str) -> str:
    """Run a program that must succeed; return its output."""
    variables = {**os.environ, **environment}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def code(text: str, language: str) -> list[str]:
    """The code blocks of a card in a language."""
    return [token.content for token in MarkdownIt().parse(text) if token.type == "fence" and token.info == language]


def test_what_a_card_tells_to_type_works(url: str, work: Work, environment: Path, tmp_path: Path) -> None:
    """Curl fetches both files and their hashes match; the graph gives torch's outputs, and the weights are torch's."""
    published = publish(work, environment, "shallow", measured=MEASURED)
    text = httpx2.get(f"{url}/models/shallow/versions/1/card").text
    (fetch,), (run, read) = code(text, "sh"), code(text, "python")
    fetched = execute(["bash", "-euo", "pipefail", "-c", fetch], tmp_path, CHIFFRE_URL=url)
    label, probability = execute([sys.executable, "-c", run], tmp_path).split()
    keep = "\nnp.savez('weights.npz', **weights)\nopen('card.json', 'w').write(card)"
    execute([sys.executable, "-c", f"import numpy as np\n{read}{keep}"], tmp_path)
    with torch.inference_mode():
        expected = (published.module(torch.zeros(1, 1, 28, 28)) / CALIBRATION["temperature"]).softmax(1)[0]
    weights, state = np.load(tmp_path / "weights.npz"), published.module.state_dict()

    assert fetched.splitlines() == ["shallow-1.onnx: OK", "shallow-1.safetensors: OK"]
    assert label == str(int(expected.argmax()))
    assert float(probability) == pytest.approx(float(expected.max()), abs=1e-5)
    assert set(weights.files) == state.keys()
    assert all(np.array_equal(weights[name], tensor.numpy()) for name, tensor in state.items())
    assert [kind for kind, *_ in json.loads((tmp_path / "card.json").read_text())["layers"]]


# --- texts with special characters


def version(**fields: Any) -> ModelVersion:
    """A version row that is not in the database."""
    known: dict[str, Any] = {
        "id": 1,
        "model": "cnn",
        "version": 3,
        "dataset": "mnist",
        "dataset_sha256": "ab" * 32,
        "split": "official",
        "objective": "val_accuracy",
        "value": 0.5,
        "job_id": "0123456789ab",
        "run": 1,
        "trial": 0,
        "params": {},
        "shape": [1, 28, 28],
        "classes": ["a", "b"],
        "weights": 10,
        "val_loss": 1.0,
        "val_accuracy": 0.5,
        "test_loss": None,
        "test_accuracy": 0.5,
        "code_version": "0.1.0",
        "created_at": 1e9,
    }
    return ModelVersion(**known | fields)


def subject(**fields: Any) -> Subject:
    """A version of a data set that this release does not have."""
    file = Artifact(job_id="0123456789ab", trial=0, kind="onnx", path="x", sha256="cd" * 32, size=1000, created_at=1e9)
    dataset = UsedDataset(sha256="ab" * 32, name="mnist", images=100, shape=[1, 28, 28], classes=["a", "b"])
    return Subject(version(**fields), file, file, dataset, None, None)


def test_of_a_data_set_that_is_gone_no_count_is_made_up() -> None:
    """The number of official test images is unknown, so there is no n, no interval, no licence."""
    text = card(subject())

    assert rows(text)["split"] == ["official"]
    assert "| test | – | 50.00 % | not computed: n is unknown | – |" in text
    assert "This was" not in text
    assert "ask its owner" in text


def test_of_images_that_nobody_counted_no_error_is_told() -> None:
    """Without calibration on test images there is no row for them; without limits the version never abstains."""
    text = card(subject(calibration={"temperature": 1.5, "images": 100, "ece": 0.01, "ece_uncalibrated": 0.03}))
    calibration = text.partition("## Calibration")[2].partition("##")[0]

    assert "| validation | 100 | 1.00 % | 3.00 % | 0.00 % |" in calibration
    assert "| test |" not in calibration
    assert "It never abstains." in calibration


ODD = st.text(max_size=30) | st.sampled_from(
    [
        "a|b",
        "`x`",
        "``|``",
        "<b>x</b>",
        "[x](http://x)",
        "![x](y)",
        "*x*",
        "# x",
        "a\nb",
        "\\",
        "\\|",
        "&amp;",
        "- x",
        "1. x",
    ]
)


@given(value=ODD)
@settings(deadline=None)
def test_a_text_is_shown_as_it_is(value: str) -> None:
    """It shows as text or inline code in a single cell; white space becomes a blank."""
    plain = markdown.NO_TEXT.sub(" ", value).strip()
    cells = [[markdown.text(value), markdown.code(value), "end"]]
    tokens = MarkdownIt("gfm-like").disable("linkify").parse(markdown.table("xyz", cells))
    found = [token.children or [] for token in tokens if token.type == "inline"][3:]

    assert {child.type for cell in found for child in cell} <= {"text", "text_special", "code_inline"}
    assert ["".join(child.content for child in cell) for cell in found] == [plain, plain, "end"]


@given(name=ODD, value=ODD, label=ODD)
@settings(deadline=None)
def test_no_text_changes_a_card_around_it(name: str, value: str, label: str) -> None:
    """Headings and snippets stay the same for any name of a network, a parameter or a class."""
    odd = card(subject(model=name, params={name: value}, classes=[label, "b"]))
    plain = card(subject(params={"x": "y"}))

    assert shape(odd) == shape(plain)
    (run,) = (block for block in code(odd, "python") if "classes" in block)
    assert f"classes = {json.dumps([label, 'b'])}" in run
    compile(run, "card", "exec")


def shape(text: str) -> list[str]:
    """The structure of a card without its texts."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    return [token.type + token.info for token in tokens if token.type != "inline"]
