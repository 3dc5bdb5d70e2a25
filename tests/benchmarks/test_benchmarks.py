"""The benchmarks: their quick forms end in time and print their rows, and their baselines train like plain torch."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from threading import Thread

import psutil
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.lanes.baselines import CarefulBaseline, ReportBaseline, batches_of
from benchmarks.lanes.workloads import WORKLOADS
from benchmarks.serving.load import WRK, LoadError, load
from benchmarks.serving.rows import single_row, verdicts
from benchmarks.serving.servers import FOLDER
from ml.datasets import datasets
from ml.network.evaluate import scaled
from ml.networks import networks
from ml.optimizers import Adam, Optimizer, Sgd
from ml.training.lane import TrainingData

ROOT = Path(__file__).parents[2]
WORKS = [
    "perceptron, batch 3",
    "perceptron, batch 100",
    "shallow 128, batch 3",
    "shallow 128, batch 32",
    "shallow 512, SGD, batch 10",
    "shallow 1685, batch 10",
    "CNN, batch 3",
    "CNN, batch 32",
    "CNN, batch 100",
]


@pytest.fixture(scope="module")
def digits_data() -> TrainingData:
    """Return the small data set, split for training."""
    return TrainingData.load(datasets["digits"], "random", 0)


def last_line(program: str) -> list[dict]:
    """Run the quick form of a program, and return the rows of its last line."""
    command = [sys.executable, "-m", f"benchmarks.{program}", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["rows"]


@pytest.mark.soak
def test_lanes_are_measured_on_every_workload() -> None:
    """The quick form ends with a row of finite, positive figures for each workload."""
    rows = last_line("lanes")

    assert [row["work"] for row in rows] == WORKS
    for found in rows:
        for name in ("ratio_core", "ratio_core_flush", "ratio_a", "ratio_b", "roofline"):
            assert 0 < found[name] < float("inf"), (found["work"], name)


@pytest.mark.soak
def test_packs_are_compared_with_one_trial_at_a_time() -> None:
    """The quick form ends with a row for each search, in which both sides are clearly better than chance."""
    rows = last_line("packs")

    assert [row["n"] for row in rows] == [2, 2]
    assert all(0.3 < at[name] < 1 for row in rows for at in row["at"] for name in ("alone", "together"))


@pytest.mark.soak
def test_calibration_and_rejection_are_measured_for_both_networks() -> None:
    """The quick form ends with a row for the test images of each network and one for every kind of other image."""
    rows = last_line("calibration")
    of_tests = [row for row in rows if "ece" in row]

    assert [row["work"] for row in of_tests] == ["CNN, test images", "shallow, test images"]
    assert all(row["n"] == 7000 and 0 < row["ece"] < 0.1 and row["abstained"] < 0.03 for row in of_tests)
    assert {row["work"] for row in rows} >= {"CNN, garments", "shallow, garments", "CNN, blocks", "shallow, scribbles"}
    assert all(0 <= row[name] <= 1 for row in rows if "group" in row for name in ("rejected", "rejected_softmax"))


@pytest.mark.soak
def test_the_gain_of_the_canonicaliser_is_measured_for_both_networks() -> None:
    """The quick form ends with a row for each family of images, and one for the gain over all distorted images."""
    rows = last_line("canonical")
    works = [row["work"] for row in rows]

    assert (works[0], works[-1]) == ("untouched", "all distorted")
    assert {"shifted", "inverted", "photographs", "pen strokes", "fonts"} <= set(works)
    assert all(rows[-1][network]["gain"] > 10 for network in ("cnn", "shallow"))


@pytest.mark.soak
def test_serving_is_compared_with_the_limit_and_a_hand_written_endpoint() -> None:
    """The quick form ends with a row for each concurrency and one for batches, and leaves no server running."""
    rows = last_line("serving")

    *singles, batch = rows
    assert [found["concurrency"] for found in singles] == [64, 16, 1]
    for found in singles:
        for name in ("ratio_limit", "ratio_cpu", "ratio_p50", "ratio_handwritten"):
            assert 0 < found[name] < float("inf"), (found["work"], name)
        assert found["ratio_litserve"] is None
    assert 0 < batch["ratio_model"] < float("inf")
    commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if str(FOLDER) in command]


def test_ratios_compare_requests_with_the_faster_endpoint_of_each_rival() -> None:
    """Half the requests of the limit is a ratio of 0.5, and missed goals are named."""
    found = single_row(
        "shallow",
        64,
        {
            "limit": figures(requests=1000, p50=1e-3, cpu=1e-3),
            "chiffre": figures(requests=500, p50=2e-3, cpu=2e-3),
            "handwritten": figures(requests=50),
            "bentoml": figures(requests=10),
            "bentoml batched": figures(requests=20),
        },
        n=3,
    )

    ratios = ("limit", "cpu", "p50", "handwritten", "litserve", "bentoml")
    assert [found[f"ratio_{name}"] for name in ratios] == [0.5, 0.5, 2, 10, None, 25]
    assert [line.partition(" ")[0] for line in verdicts(found) if line.endswith("MISSED")] == ["ratio_limit"]


def figures(requests: float, p50: float = 1.0, cpu: float = 1.0) -> dict[str, float]:
    """Return the measurements of one server."""
    return {"requests": requests, "p50": p50, "p99": 2 * p50, "cpu": cpu, "resident": 2**20}


@contextmanager
def answering(status: int) -> Iterator[tuple[str, list[bytes]]]:
    """Run a server that answers every request with `status`; yield its address and the bodies that it gets."""
    got: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/predict?top_k=1", got
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("tool", sorted({None, WRK}, key=str))
def test_the_load_posts_its_bodies_in_turn_and_counts_the_answers(
    tool: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both wrk, if installed, and the client that replaces it count the requests that arrive in time."""
    monkeypatch.setattr("benchmarks.serving.load.WRK", tool)
    core = min(os.sched_getaffinity(0))
    with answering(200) as (url, got):
        found = load(url, [b"[0]", b"[255]"], "application/json", connections=2, seconds=1, core=core)

    assert set(got) == {b"[0]", b"[255]"}
    assert 0 <= len(got) - found.requests <= 2
    assert 0 < found.p50 <= found.p99 <= found.seconds


@pytest.mark.parametrize("tool", sorted({None, WRK}, key=str))
def test_a_refused_request_is_an_error(tool: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that quickly answers 503 must not count as fast."""
    monkeypatch.setattr("benchmarks.serving.load.WRK", tool)
    with answering(503) as (url, _), pytest.raises(LoadError, match="failed"):
        load(url, [b"{}"], "application/json", connections=2, seconds=1, core=min(os.sched_getaffinity(0)))


@pytest.mark.parametrize("optimizer", [Adam(), Sgd(momentum=0.9)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_careful_baseline_trains_like_plain_torch(
    optimizer: Optimizer, channels_last: bool, digits_data: TrainingData
) -> None:
    """After six steps its weights equal those of a loop that is written out in the test."""
    network = networks["cnn"]
    layers = network.layers((1, 28, 28), 10, network.params())
    pixels, labels = scaled(digits_data.train.images), digits_data.train.labels
    batches = list(islice(batches_of(len(labels), 8, seed=5), 6))
    torch.manual_seed(0)
    plain = nn.Sequential(*(getattr(nn, type(layer).__name__)(**vars(layer)) for layer in layers))
    kind = torch.optim.Adam if isinstance(optimizer, Adam) else torch.optim.SGD
    stepped = kind(plain.parameters(), **optimizer.arguments())

    careful = CarefulBaseline(layers, optimizer, pixels, labels, iter(batches), seed=0, channels_last=channels_last)
    for batch in batches:
        careful.step()
        stepped.zero_grad()
        cross_entropy(plain(pixels[batch]), labels[batch]).backward()
        stepped.step()

    for weight, expected in zip(careful.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(weight.contiguous(), expected, rtol=1e-4, atol=1e-5)


def test_the_reports_baseline_learns(digits_data: TrainingData) -> None:
    """Its loss falls from one epoch to the next, and single steps continue into the next epoch."""
    network = networks["perceptron"]
    layers = network.layers((1, 28, 28), 10, network.params())
    loop = ReportBaseline(layers, Adam(), scaled(digits_data.train.images), digits_data.train.labels, 100)

    before, after = loop.epoch(), loop.epoch()
    for _ in range(2 * len(loop.loader) + 1):
        loop.step()

    assert after < before
    assert loop.epoch() < after


def test_the_operations_and_bytes_of_a_step_equal_a_count_by_hand() -> None:
    """The test multiplies them out for a perceptron and for the CNN."""
    perceptron, cnn = WORKLOADS[1], WORKLOADS[-1]
    first, others = 2 * 6 * 24 * 24 * 25, 2 * (16 * 8 * 8 * 6 * 25 + 256 * 120 + 120 * 84 + 84 * 10)

    assert perceptron.flops == 100 * 2 * (2 * 784 * 10)
    assert perceptron.traffic == 24 * 7850
    assert cnn.flops == 100 * (2 * first + 3 * others)
    assert cnn.traffic == 24 * 44_426
