"""The command as a client of the API, against a real uvicorn."""

import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

import numpy as np
import pytest
import typer
from click.testing import Result
from PIL import Image
from pydantic import BaseModel, ValidationError, model_validator
from rich.console import Console
from support.worker_tools import Work
from typer.testing import CliRunner

from api.cli.app import app
from api.cli.output.display import result_view
from api.cli.output.terminal import err, out, reporting_errors
from api.client import Chiffre
from ml.datasets import datasets
from ml.records import TrialState
from tests.api.tools import TUNE, Version, insert, publish
from worker.local import free_port
from worker.settings import Settings

Run = Callable[..., Result]
PIXELS = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
NOT_IMAGES = {
    "text": b"no image",
    "empty": b"",
    "cut": b"\x89PNG\r\n\x1a\n",
    "a header that lies": b"P5\n2x 28\n255\n" + bytes(784),
    "a palette that lies": b"BM" + b"\xff" * 60,
    "a short chunk": b"\x89PNG\r\n\x1a\n\0\0\0\1IHDR\0\x1b\x3e\xe4\x2c",
}


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal wide enough that no line wraps; the tests may run in a narrow one."""
    for console in (out, err):
        monkeypatch.setattr(console, "width", 1000)


@pytest.fixture
def _narrow(_wide: None) -> None:
    """A terminal of 80 columns, the default for a pipe too."""
    out.width = err.width = 80


def runner(url: str) -> Run:
    """Return a function that runs the command against an API."""

    def run(*arguments: object, **options: Any) -> Result:
        environment = {"CHIFFRE_URL": url, "CHIFFRE_BROKER_URL": None}
        return CliRunner(env=environment).invoke(app, [str(argument) for argument in arguments], **options)

    return run


@pytest.fixture
def run(url: str) -> Run:
    """Run the command against the test's API."""
    return runner(url)


@pytest.fixture
def client(url: str) -> Iterator[Chiffre]:
    """A client of the test's API."""
    with Chiffre(url) as client:
        yield client


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A tuning job in a file."""
    path = tmp_path / "tune.json"
    path.write_text(json.dumps(TUNE))
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A PNG of 28×28 grey pixels."""
    path = tmp_path / "digit.png"
    Image.fromarray(PIXELS).save(path)
    return path


def fine(result: Result) -> str:
    """The output of a command that must succeed."""
    assert result.exit_code == 0, result.output
    return result.stdout


def said(result: Result) -> Any:
    """The JSON that a command printed."""
    return json.loads(fine(result))


def refusal(result: Result, status: int = 1) -> str:
    """The message of a command that must fail: no traceback, and nothing on standard output."""
    assert result.exit_code == status, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("chiffre: ")
    assert "Traceback" not in result.output
    assert result.stdout == ""
    return " ".join(result.stderr.split())


@contextmanager
def working(work: Work, state: TrialState) -> Iterator[None]:
    """A worker thread that ends every trial in the same state."""
    ended = Event()

    def claim_and_run() -> None:
        while not ended.is_set():
            claim = work.leases.claim()
            if claim is not None:
                work.run_trial(claim, None, state)

    thread = Thread(target=claim_and_run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


# --- jobs


@pytest.mark.parametrize("kind", ["tune", "train"])
def test_a_job_is_posted_from_a_file(run: Run, client: Chiffre, tmp_path: Path, kind: str) -> None:
    """The command prints the job that the API accepted."""
    path = tmp_path / "spec.json"
    path.write_text('{"model": "shallow", "dataset": "digits"}')
    posted = said(run(kind, path, "--json"))

    assert posted == client.job(posted["id"])
    assert (posted["kind"], posted["model"], posted["state"]) == (kind, "shallow", "queued")


@pytest.mark.parametrize("kind", ["tune", "train"])
def test_a_job_is_checked_and_not_posted(run: Run, client: Chiffre, tmp_path: Path, kind: str) -> None:
    """The command prints the result as text or JSON, and there is no job afterwards."""
    path = tmp_path / "spec.json"
    path.write_text('{"model": "shallow", "dataset": "digits"}')
    printed = fine(run(kind, path, "--check"))
    found = said(run(kind, path, "--check", "--json"))

    assert "The specification is valid" in printed
    assert found["spec"]["dataset"] == "digits"
    assert client.jobs() == []


def test_a_job_is_posted_from_standard_input(run: Run, client: Chiffre) -> None:
    """A dash stands for standard input."""
    posted = said(run("tune", "-", "--json", input=json.dumps(TUNE)))

    assert [job["id"] for job in client.jobs()] == [posted["id"]]


def test_a_posted_job_is_shown(run: Run, spec: Path, client: Chiffre) -> None:
    """Without --json the command prints a table with the job's id, network and progress."""
    printed = fine(run("tune", spec))
    (job,) = client.jobs()

    for text in (job["id"], "queued", "perceptron", "digits", "0/2"):
        assert text in printed


def test_jobs_are_listed(run: Run, client: Chiffre) -> None:
    """Jobs come newest first, as many as requested, each with its whole id."""
    ids = [client.tune(TUNE)["id"] for _ in range(3)]
    printed = fine(run("jobs"))

    assert said(run("jobs", "--json")) == client.jobs()
    assert [job["id"] for job in said(run("jobs", "--limit", 2, "--json"))] == ids[:0:-1]
    assert printed.index(ids[2]) < printed.index(ids[1]) < printed.index(ids[0])


def test_a_job_is_shown(run: Run, client: Chiffre) -> None:
    """The output is a table, or the API's JSON."""
    job = client.tune(TUNE)

    assert said(run("job", job["id"], "--json")) == job
    assert job["id"] in fine(run("job", job["id"]))


def test_a_job_that_has_failed_says_why(run: Run, client: Chiffre, work: Work) -> None:
    """The error stands below the job's row; the JSON is the API's."""
    job_id = client.tune(TUNE)["id"]
    for _ in range(2):
        claim = work.leases.claim()
        assert claim is not None
        work.run_trial(claim, None, TrialState.DIVERGED)
    job = client.job(job_id)

    assert job["state"] == "failed"
    assert job["error"] in fine(run("job", job_id))
    assert said(run("job", job_id, "--json")) == job


def test_a_job_is_cancelled(run: Run, client: Chiffre) -> None:
    """The answer is the cancelled job, even if the command is repeated."""
    ids = [client.tune(TUNE)["id"] for _ in range(2)]
    first = said(run("cancel", ids[0], "--json"))

    assert first["state"] == "cancelled"
    assert "cancelled" in fine(run("cancel", ids[1]))
    assert said(run("cancel", ids[0], "--json")) == first


def test_a_job_is_paused_resumed_and_extended(run: Run, client: Chiffre) -> None:
    """Each command shows the job as it is then."""
    job_id = client.tune(TUNE)["id"]

    assert said(run("pause", job_id, "--json"))["state"] == "paused"
    assert "queued" in fine(run("resume", job_id))
    assert said(run("extend", job_id, "--trials", "7", "--json"))["trial_limit"] == 7


def test_trials_are_shown(run: Run, client: Chiffre, work: Work) -> None:
    """Trials have the requested order and state; the best one is marked."""
    job_id = client.tune({**TUNE, "budget": {"trials": 3}})["id"]
    for value, state in ((0.5, TrialState.COMPLETED), (0.75, TrialState.COMPLETED), (None, TrialState.DIVERGED)):
        claim = work.leases.claim()
        assert claim is not None
        work.run_trial(claim, value, state)
    printed = fine(run("trials", job_id))
    ordered = said(run("trials", job_id, "--order-by", "-value", "--state", "completed", "--json"))

    assert [trial["number"] for trial in ordered] == [1, 0]
    assert said(run("trials", job_id, "--json")) == list(client.trials(job_id))
    assert "1 *" in printed
    assert "0 *" not in printed
    assert "75.00 %" in printed
    assert "diverged" in printed


def test_more_trials_than_a_page_are_shown(run: Run, client: Chiffre, work: Work) -> None:
    """The command reads all pages."""
    job_id = client.tune(TUNE)["id"]
    insert(work, job_id, [{"number": n, "state": TrialState.FAILED, "created_at": 1.0} for n in range(1001)])

    assert len(said(run("trials", job_id, "--json"))) == 1001


@pytest.mark.parametrize("as_json", [False, True])
def test_a_job_that_fails_while_it_is_followed_is_an_error(run: Run, spec: Path, work: Work, as_json: bool) -> None:
    """The command waits for the end, prints the error, and leaves only JSON on standard output."""
    with working(work, TrialState.DIVERGED):
        result = run("tune", spec, "--follow", *(["--json"] if as_json else []))

    assert result.exit_code == 1
    assert "2 diverged" in result.stderr
    assert not as_json or json.loads(result.stdout)["state"] == "failed"


@pytest.mark.usefixtures("_narrow")
@pytest.mark.parametrize("command", ["jobs", "models"])
def test_ids_are_whole_on_a_terminal_of_80_columns(run: Run, work: Work, environment: Path, command: str) -> None:
    """Ids can be copied from a terminal of usual width and from a pipe."""
    version = publish(work, environment, "perceptron", 0.987654)

    assert version.job.id in fine(run(command))


# --- versions and prediction


@pytest.fixture
def version(work: Work, environment: Path) -> Version:
    """A published version."""
    return publish(work, environment, "shallow")


def test_models_are_listed(run: Run, client: Chiffre, version: Version) -> None:
    """Every version has its accuracies and its job; the champion has a star."""
    printed = fine(run("models"))

    assert said(run("models", "--json")) == client.models()
    for text in ("shallow *", "90.00 %", "89.00 %", version.job.id):
        assert text in printed


def test_without_versions_the_list_is_empty(run: Run) -> None:
    """An empty list is no error."""
    assert said(run("models", "--json")) == []
    assert fine(run("models"))


def test_versions_are_promoted_and_rolled_back(
    run: Run, client: Chiffre, work: Work, environment: Path, version: Version
) -> None:
    """The output is a sentence or the API's JSON; the history has the reason."""
    publish(work, environment, "shallow", 0.8)
    promoted = fine(run("promote", "shallow", 2, "--reason", "why not"))
    rolled_back = fine(run("rollback", "shallow", "--dataset", "mnist"))
    as_json = said(run("promote", "shallow", 2, "--dataset", "mnist", "--json"))

    assert promoted == "shallow version 2 serves mnist\n"
    assert rolled_back == "shallow version 1 serves mnist\n"
    assert client.model("shallow")["champions"] == [as_json]
    assert said(run("rollback", "shallow", "--json"))["version"] == 1
    assert "why not" in [move["reason"] for move in client.moves("shallow")]


def test_a_card_is_printed_as_it_is(run: Run, client: Chiffre, version: Version) -> None:
    """The output is the API's Markdown; with --json it is the version."""
    assert fine(run("card", "shallow", 1)) == client.card("shallow", 1)
    assert said(run("card", "shallow", 1, "--json")) == client.version("shallow", 1)


def test_files_are_downloaded(
    run: Run, client: Chiffre, version: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file may have any name; by default it is named after the version, in this folder."""
    monkeypatch.chdir(tmp_path)
    chosen = said(run("download", "shallow", 1, "--onnx", "-o", "graph", "--json"))
    printed = fine(run("download", "shallow", 1))
    lying = client.version("shallow", 1)

    assert chosen == {"file": "graph", "bytes": lying["onnx_bytes"], "sha256": lying["onnx_sha256"]}
    assert hashlib.sha256((tmp_path / "graph").read_bytes()).hexdigest() == lying["onnx_sha256"]
    assert hashlib.sha256((tmp_path / "shallow-1.safetensors").read_bytes()).hexdigest() == version.checkpoint_sha256
    assert version.checkpoint_sha256 in printed


COMMANDS = ["promote shallow 9", "rollback shallow", "rollback cnn", "card cnn 1", "download shallow 9 -o FILE"]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_cannot_be_done_to_a_version_is_told(run: Run, version: Version, tmp_path: Path, command: str) -> None:
    """The message is the API's, with a command that helps; no file is left behind."""
    sentence = refusal(run(*command.replace("FILE", str(tmp_path / "file")).split()))

    assert "`chiffre models`" in sentence or "`chiffre promote shallow`" in sentence
    assert not (tmp_path / "file").exists()


def test_a_file_that_cannot_be_written_is_told(run: Run, version: Version, tmp_path: Path) -> None:
    """A folder has the file's name."""
    assert f"{tmp_path} cannot be written" in refusal(run("download", "shallow", 1, "-o", tmp_path))


def test_an_image_is_asked_about(run: Run, version: Version, picture: Path) -> None:
    """With --as-it-is the network gets the file's own pixels, 0 to 255."""
    answer = said(run("predict", picture, "--as-it-is", "--json"))
    expected = version.answer([float(value) for value in PIXELS.ravel()], 255)

    assert answer["probabilities"] == pytest.approx(expected, abs=1e-5)
    assert (answer["scale"], answer["job_id"]) == (255, version.job.id)


@pytest.mark.parametrize("form", ["png", "jpeg", "bmp", "webp"])
def test_a_picture_of_dark_ink_is_brought_to_the_data_sets_form(
    run: Run, url: str, version: Version, tmp_path: Path, form: str
) -> None:
    """The output is the input in fourteen lines of characters, light on dark, then the label and the version."""
    digit = datasets["mnist"].load().images[0, 0]
    large = Image.fromarray(255 - digit).resize((280, 280), Image.Resampling.BICUBIC)
    large.save(tmp_path / f"digit.{form}")
    asked = ["predict", tmp_path / f"digit.{form}", "--model", "shallow", "--version", 1]
    *drawn, sentence = fine(run(*asked)).splitlines()
    answer = said(run(*asked, "--json"))
    fed = np.array(answer["input_report"]["pixels"])

    assert np.corrcoef(fed.ravel(), digit.ravel())[0, 1] > 0.8
    assert [len(line) for line in drawn] == [28] * 14
    assert drawn[0].isspace()
    assert f"shallow version 1, job {version.job.id}" in sentence
    assert ("abstains: " in sentence) == answer["abstained"]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "I;16"])
def test_an_image_may_have_any_mode(run: Run, version: Version, tmp_path: Path, mode: str) -> None:
    """Every PNG mode gives the same grey values."""
    grey = Image.fromarray(PIXELS)
    image = Image.fromarray(PIXELS.astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    image.save(tmp_path / "image.png")
    answer = said(run("predict", tmp_path / "image.png", "--as-it-is", "--json"))
    expected = version.answer([float(value) for value in PIXELS.ravel()], 255)

    assert answer["probabilities"] == pytest.approx(expected, abs=1e-3)


def test_an_image_of_another_size_is_scaled(run: Run, version: Version, tmp_path: Path) -> None:
    """An image with each pixel as a block of 10×10 gives the same answer."""
    Image.fromarray(np.kron(PIXELS, np.ones((10, 10), np.uint8))).save(tmp_path / "large.png")
    answer = said(run("predict", tmp_path / "large.png", "--as-it-is", "--json"))

    assert answer["probabilities"] == pytest.approx(version.answer([float(v) for v in PIXELS.ravel()], 255), abs=1e-5)


# --- errors


@pytest.mark.parametrize("command", ["jobs", "models", "job x", "trials x", "cancel x", "tune SPEC", "predict PICTURE"])
@pytest.mark.parametrize("as_json", [False, True])
def test_an_api_that_is_down_is_told(spec: Path, picture: Path, command: str, as_json: bool) -> None:
    """Every command names the address that does not answer and how to start the API; the status is 3."""
    url = f"http://127.0.0.1:{free_port()}"
    words = command.replace("SPEC", str(spec)).replace("PICTURE", str(picture)).split()
    sentence = refusal(runner(url)(*words, *(["--json"] if as_json else [])), status=3)

    assert url in sentence
    assert "chiffre up" in sentence


SPECS = {
    "no JSON": b"{'model': 'cnn'}",
    "empty": b"",
    "no object": b"[]",
    "a number": b"3",
    "no text": b"\xff\xfe\x00",
    "NaN": b'{"model": "cnn", "search_space": {"learning_rate": NaN}}',
    "Infinity": b'{"model": "cnn", "budget": {"seconds": Infinity}}',
    "a lone surrogate": b'{"model": "\\ud800"}',
    "a number of 5,000 digits": b'{"model": "cnn", "seed": ' + b"1" * 5000 + b"}",
    "10,000 levels": b'{"model": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "2 MB": b'{"model": "' + b"x" * 2_000_000 + b'"}',
}


@pytest.mark.parametrize("content", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("kind", ["tune", "train"])
def test_a_spec_that_is_none_is_told(run: Run, tmp_path: Path, kind: str, content: bytes) -> None:
    """For any content the command ends with a short message."""
    path = tmp_path / "spec.json"
    path.write_bytes(content)

    assert len(refusal(run(kind, path))) < 1000


def test_a_spec_that_is_none_on_standard_input_is_told(run: Run) -> None:
    """Standard input is checked as a file is."""
    assert "not valid JSON" in refusal(run("tune", "-", input="{"))


@pytest.mark.parametrize("command", ["tune", "train", "predict"])
def test_a_file_that_is_not_there_is_told(run: Run, tmp_path: Path, command: str) -> None:
    """Covers a missing file and a folder."""
    assert "nowhere.file" in refusal(run(command, tmp_path / "nowhere.file"))
    assert str(tmp_path) in refusal(run(command, tmp_path))


@pytest.mark.usefixtures("_narrow")
def test_a_path_is_told_in_one_piece(tmp_path: Path) -> None:
    """A narrow terminal wraps by itself; a line break inside a path would spoil copying."""
    path = tmp_path / ("long" * 30)

    assert str(path) in runner("")("tune", path).stderr


def test_a_refused_spec_is_told_field_by_field(run: Run, tmp_path: Path) -> None:
    """The message has pointers and the allowed values."""
    path = tmp_path / "spec.json"
    path.write_text('{"model": "resnet", "seed": -1, "dataset": "mnist"}')
    sentence = refusal(run("tune", path, "--json"))

    assert "#/seed" in sentence
    assert "give 0 or more" in sentence


@pytest.mark.parametrize("content", NOT_IMAGES.values(), ids=NOT_IMAGES)
def test_a_file_that_is_no_image_is_told(run: Run, tmp_path: Path, content: bytes) -> None:
    """The command names the file if Pillow cannot read it; else it prints the API's message."""
    path = tmp_path / "digit.png"
    path.write_bytes(content)
    sentence = refusal(run("predict", path))

    assert f"{path} cannot be read as an image" in sentence or "not a readable PNG" in sentence


def test_an_enormous_image_is_told(run: Run, tmp_path: Path) -> None:
    """A small file that would unpack to more than 100 million pixels is not unpacked."""
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 6_000)).save(path)

    assert "cannot be read as an image" in refusal(run("predict", path))


def test_what_is_not_there_is_told(run: Run, picture: Path) -> None:
    """Covers missing jobs, trials and versions."""
    for words in (["job", "none"], ["trials", "none"], ["cancel", "none"]):
        assert "`chiffre jobs` lists them" in refusal(run(*words))
    assert "`chiffre tune` makes one" in refusal(run("predict", picture))
    assert "use one of" in refusal(run("predict", picture, "--model", "resnet"))


def test_a_bad_filter_is_told(run: Run, client: Chiffre) -> None:
    """The API's message lists the allowed values."""
    job_id = client.tune(TUNE)["id"]

    assert "'running', 'completed'" in refusal(run("trials", job_id, "--state", "asleep"))
    assert "val_accuracy" in refusal(run("trials", job_id, "--order-by", "colour"))


def test_a_worker_without_a_broker_is_told_what_to_set() -> None:
    """The message names both variables, and the command that needs neither."""
    sentence = refusal(runner("")("worker"))

    for text in ("CHIFFRE_BROKER_URL", "CHIFFRE_DATABASE_URL", "chiffre up"):
        assert text in sentence


def test_a_setting_that_cannot_be_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typo in the environment gives no traceback."""
    monkeypatch.setenv("CHIFFRE_TRAINERS", "many")

    assert "TRAINERS" in refusal(runner("")("worker")).upper()


def test_wrong_usage_is_told_with_status_2(run: Run) -> None:
    """Covers an unknown command, a missing argument, and a limit out of range."""
    for words in (["launch"], ["jobs", "--limit", "0"], ["jobs", "--limit", "many"], ["tune"], ["job"]):
        assert run(*words).exit_code == 2


NONSENSE = {
    "extend 0123456789ab": "--trials",
    "export 0123456789ab": "--tensorboard",
    "experiments mnist-report --scale 0": "--scale",
    "predict-all cnn --file x.npy --subset test": "--subset",
    "predict-all cnn --file x.txt": ".npy",
    "datasets add x file.txt": ".npz",
}


@pytest.mark.parametrize("command", NONSENSE)
def test_options_that_do_not_go_together_are_told_with_status_2(command: str) -> None:
    """The API is not contacted."""
    done = runner(f"http://127.0.0.1:{free_port()}")(*command.split())

    assert done.exit_code == 2
    assert NONSENSE[command] in done.stderr


def test_the_installed_command_answers_in_a_process_of_its_own() -> None:
    """Its message is on standard error, and its status is 3 if the API does not answer."""
    command = [str(Path(sys.executable).parent / "chiffre"), "jobs"]
    url = f"http://127.0.0.1:{free_port()}"
    done = subprocess.run(command, env={"CHIFFRE_URL": url, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("chiffre: ")
    assert "Traceback" not in done.stderr


def test_a_class_may_be_called_whatever_looks_like_markup() -> None:
    """The name is shown unchanged."""
    result = {"images": 2, "unusable": 0, "abstained": 0, "labelled": 2, "accuracy": 1.0, "interval": [0.3, 1.0]}
    console = Console(width=80, file=io.StringIO())
    console.print(result_view({**result, "classes": ["[/b]", "[red]"], "confusion_matrix": [[1, 0], [0, 1]]}))

    assert "[/b]" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_setting_that_is_wrong_as_a_whole_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """An error of pydantic about several settings has no location."""

    class Together(BaseModel):
        @model_validator(mode="after")
        def _never(self) -> Self:
            raise ValueError("they do not go together")

    with pytest.raises(typer.Exit), reporting_errors():
        Together()

    assert capsys.readouterr().err == "chiffre: the environment: they do not go together\n"


def test_a_specification_of_a_newer_service_cannot_be_replayed(
    run: Run, client: Chiffre, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is about the job, not about this machine's environment."""
    job_id = client.tune(TUNE)["id"]
    claim = work.leases.claim()
    assert claim is not None
    work.run_trial(claim, 0.5, TrialState.COMPLETED)
    newer = client.job(job_id)
    newer["spec"]["novelty"] = True
    monkeypatch.setattr(Chiffre, "job", lambda self, job_id: newer)
    sentence = refusal(run("replay", job_id, 0))

    assert "this release of chiffre cannot read the job's specification" in sentence
    assert "novelty" in sentence
    assert "CHIFFRE_" not in sentence


@pytest.mark.parametrize(
    "address", ["nonsense", "mysql://u@h/d", "postgresql://u:p@h:port/d", "postgresql+nodriver://h/d"]
)
@pytest.mark.parametrize("command", ["migrate", "doctor"])
def test_a_database_that_nobody_can_open_is_told_in_a_sentence(run: Run, command: str, address: str) -> None:
    """The message names the variable and gives an example, but not the value, which may hold a password."""
    result = run(command, env={"CHIFFRE_DATABASE_URL": address})

    assert result.exit_code == 1
    assert result.stderr.startswith("chiffre: CHIFFRE_DATABASE_URL: not a supported database URL")
    assert address not in result.stderr


def test_what_a_process_says_of_a_setting_does_not_tell_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services log the error, and the value may hold a password."""
    monkeypatch.setenv("CHIFFRE_DATABASE_URL", "postgresql://u:secret@h:port/d")
    with pytest.raises(ValidationError) as raised:
        Settings()

    assert "database_url" in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("address", ["postgresql://u:secret@127.0.0.1:1/d", "sqlite:////dev/null/chiffre.db"])
def test_a_database_that_is_away_cannot_be_brought_up_to_date(run: Run, address: str) -> None:
    """The message says so and where to look."""
    result = run("migrate", env={"CHIFFRE_DATABASE_URL": address})

    assert result.exit_code == 1
    assert "the database cannot be brought up to date" in result.stderr
    assert "chiffre doctor" in result.stderr
    assert "secret" not in result.stderr
