"""The client, against a real uvicorn."""

import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from support.worker_tools import Work

from api.client import Chiffre
from api.connection import ApiError, with_commands
from api.http.errors import WAYS_OUT
from ml.records import TrialState
from tests.api.conftest import serving
from tests.api.tools import BLANK, TUNE, insert, publish
from worker.errors import Fact
from worker.local import free_port


@pytest.fixture
def client(url: str) -> Iterator[Chiffre]:
    """Yield a client of the test's API."""
    with Chiffre(url) as client:
        yield client


class Stranger(BaseHTTPRequestHandler):
    """Another service: it answers a page to GET and an error to POST."""

    page = b"<h1>It works!</h1>"

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.page)

    def do_POST(self) -> None:
        self.send_response(502)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def stranger() -> Iterator[str]:
    """Yield the URL of a web server that is not Chiffre."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def trial(number: int) -> dict[str, Any]:
    """Return a trial as a row."""
    return {"number": number, "state": TrialState.COMPLETED, "created_at": 1e9, "value": number / 10}


def test_a_job_is_posted_shown_listed_and_cancelled(client: Chiffre) -> None:
    """Each method returns the job as the API shows it."""
    tuned, trained = client.tune(TUNE), client.train({"model": "cnn"})

    assert (tuned["kind"], trained["kind"]) == ("tune", "train")
    assert client.job(tuned["id"]) == tuned
    assert [job["id"] for job in client.jobs()] == [trained["id"], tuned["id"]]
    assert [job["id"] for job in client.jobs(limit=1)] == [trained["id"]]
    assert client.cancel(tuned["id"])["state"] == "cancelled"


def test_a_job_and_its_trials_are_controlled(client: Chiffre) -> None:
    """Every control of the API has its method; a post with a key creates one job."""
    job_id = client.tune(TUNE, key="mine")["id"]

    assert client.tune(TUNE, key="mine")["id"] == job_id
    assert client.pause(job_id)["state"] == "paused"
    assert client.resume(job_id)["state"] == "queued"
    assert client.extend(job_id, trials=9, seconds=60)["trial_limit"] == 9
    assert client.enqueue(job_id, {}, key="a")["number"] == client.enqueue(job_id, {}, key="a")["number"] == 0
    assert client.cancel_trial(job_id, 0)["state"] == "cancelled"
    with pytest.raises(ApiError, match="only a failed trial"):
        client.retry(job_id, 0)


def test_trials_come_page_by_page(client: Chiffre, work: Work) -> None:
    """All trials come in the requested order, for any length of page."""
    job_id = client.tune(TUNE)["id"]
    insert(work, job_id, [trial(n) for n in range(5)])

    assert [row["number"] for row in client.trials(job_id, limit=2)] == [0, 1, 2, 3, 4]
    assert [row["number"] for row in client.trials(job_id, limit=2, order_by="-value")] == [4, 3, 2, 1, 0]
    assert list(client.trials(job_id, state="failed")) == []


def test_a_job_is_validated_and_not_posted(client: Chiffre) -> None:
    """Defaults are filled in, mistakes are reported, and no job is posted."""
    found = client.validate(TUNE)
    with pytest.raises(ApiError, match="#/seed"):
        client.validate({"model": "cnn", "seed": -1}, "train")

    assert found["spec"]["sampler"]["name"] == "tpe"
    assert found["trial_limit"] == TUNE["budget"]["trials"]
    assert client.jobs() == []


def test_curves_and_what_can_be_chosen_are_read(client: Chiffre, work: Work) -> None:
    """They are those of the API: one curve per trial, every network, and the readiness."""
    job_id = client.tune(TUNE)["id"]
    claim = work.leases.claim()
    assert claim is not None
    work.run_trial(claim, 0.5, TrialState.COMPLETED)

    assert [curve["number"] for curve in client.curves(job_id)] == [0]
    assert "cnn" in client.catalog()["networks"]
    assert client.ready()["status"] == "ready"
    assert len(client.random_image("digits")["pixels"]) == 784


def test_what_a_version_gets_wrong_is_read(client: Chiffre, work: Work, environment: Path) -> None:
    """A cell of the confusion matrix and its images are returned."""
    publish(work, environment, "shallow", dataset="digits", seed=1)
    matrix = client.validation("shallow", 1)["confusion_matrix"]
    row, column = next((i, j) for i in range(10) for j in range(10) if i != j and matrix[i][j])

    assert client.mistakes("shallow", 1, str(row), str(column))["count"] == matrix[row][column]


def test_following_a_job_ends_with_it(client: Chiffre) -> None:
    """The last answer is the final state of the job."""
    job_id = client.tune(TUNE)["id"]
    followed = client.follow(job_id, every=0)
    states = [next(followed)["state"], next(followed)["state"]]
    client.cancel(job_id)

    assert states == ["queued", "queued"]
    assert [job["state"] for job in followed] == ["cancelled"]


def scripted(*answers: Response) -> FastAPI:
    """Return a service that gives these answers, one per request."""
    left = iter(answers)
    service = FastAPI()
    service.add_route("/{rest:path}", lambda request: next(left))
    return service


@pytest.mark.parametrize("follow", [Chiffre.follow, Chiffre.follow_group])
def test_following_outlasts_an_api_that_is_away(follow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it starts, or while a proxy answers for it, the client tries again with longer and longer pauses."""
    pauses: list[float] = []
    monkeypatch.setattr("api.client.sleep", pauses.append)
    running, ended = JSONResponse({"state": "running"}), JSONResponse({"state": "completed"})
    starting, proxy = JSONResponse({"detail": "not yet"}, 503), PlainTextResponse("Bad Gateway", 502)
    with serving(scripted(running, starting, proxy, running, starting, ended)) as url, Chiffre(url) as client:
        states = [found["state"] for found in follow(client, "0123456789ab", every=7)]

    assert states == ["running", "running", "completed"]
    assert pauses == [7, 0.1, 0.2, 7, 0.1]


@pytest.mark.parametrize("follow", [Chiffre.follow, Chiffre.follow_group])
def test_following_ends_where_asking_again_is_of_no_use(follow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job is gone, the API never answered, or it has been away for too long."""
    monkeypatch.setattr("api.client.AWAY_SECONDS", 0)
    running, gone = JSONResponse({"state": "running"}), JSONResponse({"detail": "gone"}, 404)
    with serving(scripted(running, gone, JSONResponse({"detail": "not yet"}, 503), running)) as url:
        client = Chiffre(url)
        for expected in ("gone", "not yet"):
            with pytest.raises(ApiError, match=expected):
                list(follow(client, "0123456789ab", every=0))
        followed = follow(client, "0123456789ab", every=0)
        next(followed)
    with client, pytest.raises(ApiError, match="does not answer"):
        next(followed)


def test_versions_are_listed_and_asked(client: Chiffre, work: Work, environment: Path) -> None:
    """All models, one model and a prediction are returned."""
    version = publish(work, environment, "shallow")
    answer = client.predict(BLANK, model="shallow", dataset=None)

    assert [model["model"] for model in client.models()] == ["shallow"]
    assert client.model("shallow")["versions"][0]["job_id"] == version.job.id
    assert answer["job_id"] == version.job.id


def test_a_refusal_is_told_in_words(client: Chiffre) -> None:
    """The error has the status, every pointer and the allowed values."""
    with pytest.raises(ApiError, match="see errors") as caught:
        client.tune({"model": "cnn", "seed": -1, "budget": {"trials": 0}})

    assert caught.value.status == 422
    assert "#/seed: too small; give 0 or more" in str(caught.value)
    assert "#/budget/trials" in str(caught.value)


def test_what_is_not_there_is_not_found(client: Chiffre) -> None:
    """The error has status 404, and names a command instead of the route."""
    for ask in (lambda: client.job("none"), lambda: client.cancel("none"), lambda: list(client.trials("none"))):
        with pytest.raises(ApiError, match="`chiffre jobs` lists them") as caught:
            ask()

        assert caught.value.status == 404


@pytest.mark.parametrize("fact", Fact)
def test_a_way_out_names_a_command_instead_of_a_route(fact: Fact) -> None:
    """The API knows a route for every fact about a refused request, and the client a command for every such route."""
    way_out = WAYS_OUT[fact].format(job_id="4f2a", model="cnn")

    assert re.match("[A-Z]+ /", way_out)
    assert re.match("`chiffre [a-z-]+( 4f2a| cnn)?` ", with_commands(way_out))


def test_versions_are_shown_promoted_and_rolled_back(client: Chiffre, work: Work, environment: Path) -> None:
    """Each method returns the API's answer; the history has both changes, newest first."""
    for value in (0.9, 0.8):
        publish(work, environment, "shallow", value)
    promoted = client.promote("shallow", 2, dataset="mnist", reason="why not")
    back = client.rollback("shallow")

    assert client.version("shallow", 2) == client.model("shallow")["versions"][0]
    assert (promoted["version"], back["version"]) == (2, 1)
    assert client.model("shallow")["champions"] == [back]
    assert [move["by"] for move in client.moves("shallow", "mnist")] == ["rollback", "hand", "rule"]
    assert [move["reason"] for move in client.moves("shallow")][1] == "why not"
    assert client.card("shallow", 2).startswith("# `shallow`, version 2\n")


def test_files_of_a_version_are_downloaded_as_they_lie_in_storage(
    client: Chiffre, work: Work, environment: Path
) -> None:
    """The checkpoint is the default; a missing file is an error with its status."""
    job_id = publish(work, environment).job.id
    lying = {path.suffix: path.read_bytes() for path in (environment / job_id).iterdir()}
    with pytest.raises(ApiError, match="`chiffre models` lists") as caught:
        client.download("perceptron", 2)

    assert client.download("perceptron", 1) == lying[".safetensors"]
    assert client.download("perceptron", 1, "onnx") == lying[".onnx"]
    assert caught.value.status == 404


@pytest.fixture
def forger() -> Iterator[str]:
    """Yield the URL of a server whose files do not match their ETags."""

    class Forger(Stranger):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/octet-stream")
            self.send_header("etag", '"' + "0" * 64 + '"')
            self.end_headers()
            self.wfile.write(b"weights")

    with ThreadingHTTPServer(("127.0.0.1", 0), Forger) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_file_that_changed_on_its_way_is_refused(forger: str, stranger: str) -> None:
    """Its hash must match its ETag; a page of another service is neither a file nor a card."""
    with Chiffre(forger) as client, pytest.raises(ApiError, match="ETag"):
        client.download("perceptron", 1)
    with Chiffre(stranger) as client:
        for ask in (client.card, client.download):
            with pytest.raises(ApiError, match="names a Chiffre API"):
                ask("perceptron", 1)


@pytest.mark.parametrize("answer", ["{}", "[]", "1", "null", '{"items": [{}], "best": {}}'])
def test_another_services_json_is_an_error_of_ours(answer: str, stranger: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No exception of a library gets through, nor a KeyError for a missing member."""
    monkeypatch.setattr(Stranger, "page", answer.encode())
    with Chiffre(stranger) as client:
        for ask in (lambda: client.jobs()[0]["id"], lambda: client.job("1")["best"]["trial"]):
            with pytest.raises(ApiError):
                ask()
        with pytest.raises(ApiError):
            list(client.trials("1"))


@pytest.mark.parametrize("suffix", ["/trials", "?limit=1", "#1", "/../../catalog"])
def test_an_id_is_an_id_whatever_it_holds(client: Chiffre, suffix: str) -> None:
    """Slashes and question marks do not lead to another route."""
    job_id = client.tune(TUNE)["id"]

    with pytest.raises(ApiError):
        client.job(job_id + suffix)


@pytest.mark.parametrize("job_id", ["", "a\nb", "x" * 70_000, "\ud800"])
def test_an_id_that_fits_no_url_is_an_error_of_ours(client: Chiffre, job_id: str) -> None:
    """No exception of a library gets through."""
    with pytest.raises(ApiError):
        client.job(job_id)


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), "\ud800"], ids=repr)
def test_a_spec_that_is_no_json_is_an_error_of_ours(client: Chiffre, odd: Any) -> None:
    """It is refused with an explanation, before it is sent."""
    with pytest.raises(ApiError):
        client.tune({"model": "cnn", "search_space": {"learning_rate": odd}})


def test_an_api_that_is_down_is_told_with_what_to_do() -> None:
    """The error names the address and the command that starts the API."""
    url = f"http://127.0.0.1:{free_port()}"

    with pytest.raises(ApiError, match="chiffre up") as caught, Chiffre(url) as client:
        client.jobs()

    assert url in str(caught.value)
    assert caught.value.status is None


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1", "http://127.0.0.1:1:1", "http://", "http://[::1", "\0"])
def test_a_url_that_is_none_is_an_error_of_ours(url: str) -> None:
    """A typing mistake in CHIFFRE_URL is explained."""
    with pytest.raises(ApiError), Chiffre(url) as client:
        client.jobs()


def test_another_service_is_not_taken_for_chiffre(stranger: str) -> None:
    """An answer that is no JSON is reported with its status."""
    with Chiffre(stranger) as client:
        with pytest.raises(ApiError, match="answered 200 without Chiffre's JSON"):
            client.jobs()
        with pytest.raises(ApiError, match="answered 502"):
            client.tune(TUNE)


def test_the_environment_names_the_api(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """CHIFFRE_URL is the default URL, with or without a slash at its end."""
    monkeypatch.setenv("CHIFFRE_URL", f"{url}/")
    with Chiffre() as client:
        assert client.url == url
        assert client.jobs() == []
