"""The report of a job and of a group: its bytes, its HTML, its numbers and its languages."""

import io
import os
import re
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import html5lib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats
from sklearn.metrics import confusion_matrix
from starlette.testclient import TestClient
from support.trained_tools import Training
from support.worker_tools import Work

from api.report.axes import objective_axis
from api.report.facts import Facts, facts_of
from api.report.page import page_of
from api.report.svg import linear_ticks, log_ticks
from api.report.winner import answered, answers_of, picture
from api.report.wording import FRENCH, Wording
from ml.analysis.observations import CHOSEN, LEARNED
from ml.datasets import data_split, datasets
from ml.prediction.calibration import Calibration, calibration_error
from ml.presets import collections
from ml.records import TrialState
from tests.api.tools import post, problem
from worker.artifacts.store import Store
from worker.database.tables import Job, JobState, StopReason
from worker.errors import StorageAway
from worker.publication.rows import ANSWERS

pytestmark = pytest.mark.long  # all tests together take a quarter of a minute

SOURCES = Path(__file__).parents[3] / "api" / "report"
REASONS = {LEARNED, CHOSEN}  # why there are no p-values; the analysis gives them
STATES = {*JobState, *TrialState, *StopReason}  # texts that a report shows, although its sources do not contain them
TITLES = {title for one in collections().values() for title in (one.title, *(e.title for e in one.experiments))}
english = Wording("en")
SPACE = {
    "batch_size": 32,
    "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "hidden_size": {"type": "int", "low": 4, "high": 24},
    "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
}


@pytest.fixture(scope="module")
def job(shared_work: Work, shared_api: TestClient) -> Job:
    """Return a tuning job that was really trained, with a run-off and a published version."""
    job = shared_work.accept(
        model="shallow",
        search_space=SPACE,
        sampler={"name": "random"},
        pruner={"name": "none"},
        budget={"trials": 6, "epochs": 2},
        run_off={"top": 3, "seeds": 2},
    )
    Training(shared_work).run()
    return shared_work.job(job)


@pytest.fixture(scope="module")
def reports(shared_api: TestClient, job: Job) -> dict[str, str]:
    """Return the job's report by language."""
    return {lang: page(shared_api, job.id, lang) for lang in ("en", "fr")}


@pytest.fixture(scope="module")
def group(shared_work: Work, shared_api: TestClient) -> dict[str, Any]:
    """Return a group with two experiments that were really trained, and one that is paused."""
    names = ["perceptron", "shallow-grid"]
    body = {"collection": "mnist-report", "scale": 1e-6, "only": [*names, "cnn-search"]}
    posted: dict[str, Any] = shared_api.post("/jobs/experiments", json=body).json()
    *_, waits = (member["job"]["id"] for member in posted["experiments"])
    shared_api.post(f"/jobs/{waits}/pause")
    Training(shared_work).run()
    found: dict[str, Any] = shared_api.get(f"/jobs/experiments/{posted['id']}").json()
    shared_api.post(f"/jobs/{waits}/cancel")
    return found


@pytest.fixture(scope="module")
def group_reports(shared_api: TestClient, group: dict[str, Any]) -> dict[str, str]:
    """Return the group's report by language."""
    return {lang: page(shared_api, f"experiments/{group['id']}", lang) for lang in ("en", "fr")}


@pytest.fixture(scope="module")
def member_reports(shared_api: TestClient, group: dict[str, Any]) -> dict[str, str]:
    """Return the report of each of the group's jobs, by the name of its experiment."""
    return {member["name"]: page(shared_api, member["job"]["id"]) for member in group["experiments"]}


def page(client: TestClient, path: str, lang: str = "en") -> str:
    """Return the HTML of a report; `path` is a job's id, or the path of a group below /jobs."""
    answer = client.get(f"/jobs/{path}/report", params={"lang": lang})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return answer.text


def tables(html: str) -> dict[str, pd.DataFrame]:
    """Return the tables of a report, by their first and last heading."""
    tree = html5lib.parse(html, namespaceHTMLElements=False)
    found: dict[str, pd.DataFrame] = {}
    for table in tree.iter("table"):
        head, *rows = [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")]
        found.setdefault(f"{head[0]} … {head[-1]}", pd.DataFrame(rows, columns=head))
    return found


def numbers(cells: pd.Series) -> list[int]:
    """Return the whole numbers in a column, without the commas between thousands."""
    return [int(cell.replace(",", "")) for cell in cells]


def trials(client: TestClient, job_id: str) -> pd.DataFrame:
    """Return the CSV of a job's trials."""
    answer = client.get(f"/jobs/{job_id}/trials", headers={"Accept": "text/csv"})
    return pd.read_csv(io.StringIO(answer.text))


def test_the_same_job_gives_the_same_bytes_in_another_process(reports: dict[str, str], job: Job) -> None:
    """The report does not depend on the clock or on the order of sets: another hash seed gives the same bytes."""
    command, seed = [sys.executable, "-m", "worker.start", "api.report", "job", job.id, "fr"], {"PYTHONHASHSEED": "1"}
    made = subprocess.run(command, env={**os.environ, **seed}, capture_output=True, check=True).stdout

    assert made.decode() == reports["fr"]


@pytest.mark.parametrize("lang", ["en", "fr"])
@pytest.mark.parametrize("kind", ["job", "group"])
def test_a_report_is_valid_html_without_external_files(
    kind: str, lang: str, reports: dict[str, str], group_reports: dict[str, str]
) -> None:
    """html5lib's strict parser accepts it; it loads nothing, has no script, and all links lead into it."""
    html = {"job": reports, "group": group_reports}[kind][lang]
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(html)
    anchors = {element.get("id") for element in tree.iter() if element.get("id")}
    links = [element.get("href") for element in tree.iter() if element.get("href")]
    sources = [element.get("src") for element in tree.iter() if element.get("src")]

    assert tree.get("lang") == lang
    assert not [element for element in tree.iter() if element.tag in ("script", "link", "iframe", "object", "base")]
    assert links
    assert {link.removeprefix("#") for link in links} <= anchors
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", html)


def test_the_numbers_of_the_search_agree_with_the_csv(
    reports: dict[str, str], shared_api: TestClient, job: Job
) -> None:
    """Pandas finds the same states, best trials and front of weights in the CSV and the JSON of the trials."""
    shown, csv = tables(reports["en"]), trials(shared_api, job.id)
    weights = {t["number"]: t["weights"] for t in shared_api.get(f"/jobs/{job.id}/trials").json()["items"]}
    csv["weights"] = csv["number"].map(weights)
    ordered = csv.sort_values(["val_accuracy", "number"], ascending=[False, True])
    by_size = csv.sort_values(["weights", "val_accuracy"], ascending=[True, False])
    front = by_size[by_size["val_accuracy"] > by_size["val_accuracy"].cummax().shift(fill_value=-1)]
    best = shown["trial … seconds"]

    assert (
        dict(zip(*map(shown["state … trials"].get, ("state", "trials")), strict=True))
        == csv["state"].value_counts().map(str).to_dict()
    )
    assert numbers(best["trial"]) == ordered["number"].tolist()
    assert best["validation accuracy"].tolist() == [f"{100 * a:.2f}\u00a0%" for a in ordered["val_accuracy"]]
    assert numbers(best["hidden_size"]) == ordered["hidden_size"].tolist()
    assert numbers(shown["trial … weights"]["trial"]) == front["number"].tolist()
    assert numbers(shown["trial … weights"]["weights"]) == front["weights"].tolist()
    searched = dict(zip(*map(tables(reports["fr"])["paramètre … valeurs"].get, ("paramètre", "valeurs")), strict=True))
    assert (searched["learning_rate"], searched["optimizer"]) == ("0,0001 – 0,1, log", "adam; sgd")


def test_the_front_of_latency_agrees_with_the_versions(
    reports: dict[str, str], shared_api: TestClient, job: Job
) -> None:
    """The front has the published trials with their latencies."""
    fronts = shared_api.get(f"/jobs/{job.id}/pareto").json()
    latencies = {point["trial"]: point["latency_seconds"] for point in fronts["points"]}
    shown = tables(reports["en"])["trial … latency in µs (one image, one core)"]
    numbered = numbers(shown["trial"])

    assert numbered
    assert numbered == fronts["fronts"]["latency_seconds"]
    assert shown.iloc[:, -1].tolist() == [english.number(1e6 * latencies[number]) for number in numbered]


def test_the_confusion_matrix_agrees_with_the_published_graph(reports: dict[str, str], shared_api: TestClient) -> None:
    """scikit-learn computes the same matrix from the served model's answers for the test images."""
    test = datasets["digits"].load()
    test = test.take(data_split(len(test), None, "random", 0).test)
    answers = shared_api.post(
        "/predict?model=shallow&dataset=digits&canonical=false",
        json={"images": [image.ravel().tolist() for image in test.images], "scale": 255},
    ).json()["predictions"]
    expected = confusion_matrix(test.labels, [answer["digit"] for answer in answers], labels=range(10))
    shown = tables(reports["en"])[" … 9"].set_index("").replace("", "0").astype(int)

    assert (shown.to_numpy() == expected).all()


def test_correlations_and_means_agree_with_scipy_and_pandas(
    reports: dict[str, str], shared_api: TestClient, job: Job
) -> None:
    """SciPy and pandas compute the same correlations, p-values, and means by optimizer from the CSV."""
    shown, csv = tables(reports["en"]), trials(shared_api, job.id)
    pearson = shown[" … epochs run"].set_index("")
    by_kind = shown["parameter … seconds"].query("parameter == 'optimizer'").set_index("values")
    groups = csv.groupby("optimizer")

    for name in ("hidden_size", "learning_rate"):
        for outcome, label in (("val_accuracy", "validation accuracy"), ("seconds", "seconds")):
            r, p = stats.pearsonr(csv[name], csv[outcome])
            assert pearson.loc[name, label] == f"{r:.2f}".replace("-", "−") + f" (p\u00a0{p:.2g})"
    assert set(pearson["epochs run"]) == {"–", ""}  # all trials ran the same number of epochs
    assert by_kind["trials"].astype(int).to_dict() == groups.size().to_dict()
    for kind, accuracy in groups["val_accuracy"].mean().items():
        assert by_kind.loc[kind, "validation accuracy"].startswith(f"{100 * accuracy:.2f}\u00a0%")
    for kind, seconds in groups["seconds"].mean().items():
        assert by_kind.loc[kind, "seconds"].startswith(f"{seconds:.3g}")
    assert shown["parameter … fANOVA (6)"]["parameter"].tolist() == ["hidden_size", "learning_rate", "optimizer"]


def test_later_openings_do_not_change_a_report(
    reports: dict[str, str], shared_api: TestClient, shared_work: Work, job: Job
) -> None:
    """The first job that opened these test images stays the first, even if other jobs open them later."""
    shared_work.accept(model="perceptron", sampler={"name": "random"}, budget={"trials": 1, "epochs": 1})
    Training(shared_work).run()
    html = page(shared_api, job.id)

    assert html == reports["en"]
    assert "first use of this test set" in html


def test_the_run_off_agrees_with_the_recorded_trainings(
    reports: dict[str, str], shared_api: TestClient, job: Job
) -> None:
    """The winner and all accuracies agree with the means that pandas computes from the recorded trainings."""
    answer = shared_api.get(f"/jobs/{job.id}/runoff").json()
    means = pd.DataFrame(answer["reruns"]).groupby("trial")["val_accuracy"].mean().sort_values(ascending=False)
    version = shared_api.get(f"/jobs/{job.id}").json()["version"]["version"]

    assert answer["verdict"]["winner"] == answer["winner"]
    assert shared_api.get(f"/models/shallow/versions/{version}").json()["trial"] == answer["winner"]
    assert [one["accuracy"] for one in answer["verdict"]["contenders"]] == pytest.approx(means.tolist())
    assert len(answer["reruns"]) == 6
    shown = re.findall(r'<circle class="trial winner"[^>]*><title>trial (\d+)', reports["en"])
    assert set(shown) == {str(answer["winner"])}
    for mean in means:
        assert f"{100 * mean:.2f}\u00a0%" in reports["en"]


def test_the_report_of_a_group_compares_its_experiments(
    group: dict[str, Any], group_reports: dict[str, str], shared_api: TestClient
) -> None:
    """The table agrees with each job's own report and includes a job that has not started."""
    overview = tables(group_reports["en"])[" … time"]
    jobs = [member["job"] for member in group["experiments"]]
    versions = [shared_api.get(f"/jobs/{job['id']}").json()["version"] for job in jobs[:2]]
    trained = [shared_api.get(f"/models/{v['model']}/versions/{v['version']}").json() for v in versions]
    tested = [english.percent(version["test_accuracy"]) for version in trained]
    validated = [english.percent(version["val_accuracy"]) for version in trained]

    assert list(overview["network"]) == ["perceptron", "shallow", "cnn"]
    assert list(overview["test accuracy"]) == [*tested, "–"]
    assert list(overview["validation accuracy"]) == [*validated, "–"]
    assert numbers(overview["trials"]) == [sum(job["trials"].values()) for job in jobs]
    assert all(job["id"] in group_reports["fr"] for job in jobs)


def test_the_n_of_an_accuracy_is_the_number_of_evaluated_images(
    group: dict[str, Any], member_reports: dict[str, str], shared_api: TestClient
) -> None:
    """If a job uses few images, n is the number of its validation images."""
    for member in group["experiments"][:2]:
        (told,) = re.findall(
            r"Validation accuracy: [^(]*\([^)]*n = (\d+); used for selection", member_reports[member["name"]]
        )
        right = member["job"]["best"]["value"] * int(told)

        assert int(told) < shared_api.get(f"/jobs/{member['job']['id']}").json()["spec"]["images"] == 150
        assert right == pytest.approx(round(right), abs=1e-4)


def test_a_group_gives_the_same_bytes_again(
    group: dict[str, Any], group_reports: dict[str, str], member_reports: dict[str, str], shared_api: TestClient
) -> None:
    """The report of a group contains the whole report of every job."""
    assert page(shared_api, f"experiments/{group['id']}") == group_reports["en"]
    for name, own in member_reports.items():
        sections = own[own.index('<section id="experiment">') : own.index("</main>")]
        assert sections.replace('<section id="', f'<section id="{name}-').strip() in group_reports["en"]


def test_mistakes_and_bins_agree_with_the_answers() -> None:
    """Mistakes are sorted by confidence, and the bins add up to the calibration error."""
    rng = np.random.default_rng(0)
    test = datasets["digits"].load().take(np.arange(300))
    outputs = rng.normal(size=(300, 10)).astype(np.float32)
    outputs[np.arange(200), test.labels[:200]] += 4
    calibration = Calibration(temperature=1.5)
    found = answered(outputs, test, tuple("0123456789"), calibration)
    confidences = [mistake.confidence for mistake in found.mistakes]
    gaps = [one.images / 300 * abs(one.confidence - one.accuracy) for one in found.bins]

    assert found.images == 300
    assert found.right == int((outputs.argmax(1) == test.labels).sum())
    assert confidences == sorted(confidences, reverse=True)
    assert all(mistake.truth != mistake.answer for mistake in found.mistakes)
    assert sum(gaps) == pytest.approx(calibration_error(calibration.probabilities(outputs), test.labels))


def test_every_sentence_has_a_french_translation() -> None:
    """There is also no translation of a text that no source contains."""
    text = "\n".join(path.read_text() for path in [*SOURCES.glob("*.py"), *SOURCES.glob("templates/*.j2")])
    asked = re.findall(r"\bt\(\s*(?:\"([^\"]+)\"|'([^']+)')|wording\(\"([^\"]+)\"", text)
    sentences = {next(filter(None, groups)) for groups in asked}

    def places(sentence: str) -> list[str]:
        return sorted(re.findall(r"{\w+}", sentence))

    assert sentences | STATES | TITLES | REASONS <= FRENCH.keys()
    assert all(places(english) == places(french) for english, french in FRENCH.items())
    assert [sentence for sentence in FRENCH if sentence not in text and sentence not in STATES | TITLES | REASONS] == []


def test_numbers_follow_the_rules_of_each_language() -> None:
    """The test covers decimal separators, thousands, percentages and no-break spaces."""
    french = Wording("fr")

    assert (english.percent(0.98765), french.percent(0.98765)) == ("98.77\u00a0%", "98,77\u00a0%")
    assert (english.number(1234567), french.number(0.00012345)) == ("1,234,567", "0,0001234")
    assert (french.duration(7500), english.duration(0.51234)) == ("2,1\u00a0h", "0.512\u00a0s")
    assert (english.number(12345.6), french.number(99999.5)) == ("12,346", "100\u202f000")
    assert (english.number(9999.7), english.number(999.7, 3)) == ("10,000", "1,000")
    assert (english.number(-9999.7), english.number(9999.4), english.number(0.99999)) == ("-10,000", "9,999", "1")
    assert (english.fixed(12345.67, 1), french.fixed(12345.67, 1)) == ("12,345.7", "12\u202f345,7")
    assert (french.range("0.001 … 0.01"), french.range("adam")) == ("0,001 … 0,01", "adam")
    assert (english.value([[64, 64], [128]]), french.value([0.5, 1.5])) == ("[64, 64], [128]", "0,5; 1,5")
    assert (english.points(-0.0012), english.number(None)) == ("−0.12", "–")
    assert (french.value([0.5, 10]), english.value([0.5, 10])) == ("0,5; 10", "0.5, 10")
    assert (english.value(True), english.value(None), english.value({"a": [1]})) == ("true", "null", '{"a": [1]}')


def test_ticks_are_round_numbers_within_the_axis() -> None:
    """This holds for linear and logarithmic axes."""
    assert linear_ticks(0.931, 0.9872) == [0.94, 0.95, 0.96, 0.97, 0.98]
    assert log_ticks(1e-5, 1e-1) == [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    assert log_ticks(15, 400) == [30, 100, 300]
    assert log_ticks(31_000, 110_000) == [40_000, 60_000, 80_000, 100_000]


def test_a_few_bad_trials_do_not_flatten_the_others() -> None:
    """Two of twenty trials learned nothing; they are drawn at the edge and counted."""
    axis, outside = objective_axis(english, "accuracy", [0.1, 0.11, *np.linspace(0.95, 0.98, 18)], maximize=True)

    assert axis.low > 0.9
    assert outside == 2


@pytest.mark.parametrize("kind", ["tune", "train"])
def test_a_job_without_results_has_a_report(kind: str, shared_api: TestClient, job: Job) -> None:
    """The report of a waiting job shows its specification."""
    waiting = post(shared_api, kind)
    html = page(shared_api, waiting["id"])
    shared_api.post(f"/jobs/{waiting['id']}/cancel")

    assert "queued" in html
    assert "The winner" not in html


def test_recorded_texts_are_marked_as_english(shared_work: Work, job: Job) -> None:
    """A screen reader then pronounces texts of jobs and trials correctly in a French report; markup is escaped."""
    facts = facts_of(shared_work.database, job.id)
    assert facts.run_off is not None
    facts.job.error, facts.history[0].detail = "an <error>", "a <detail>"
    facts.trials[0].state, facts.trials[0].reason = TrialState.FAILED, "a <reason>"
    facts.run_off.verdict = {**facts.run_off.verdict, "lost": {"0": "a <loss>"}}
    html = {wording: page_of(facts, None, None, wording) for wording in (english, Wording("fr"))}

    for said in ("an &lt;error&gt;", "a &lt;detail&gt;", "a &lt;reason&gt;", "a &lt;loss&gt;"):
        assert f'<span lang="en">{said}</span>' in html[Wording("fr")]
        assert said in html[english]
    assert 'span lang="en"' not in html[english]


def test_a_report_that_cannot_be_made_gives_an_error(shared_api: TestClient, job: Job) -> None:
    """The test covers an unknown job, an unknown language, and jobs without trials or a run-off."""
    predicts = shared_api.post("/jobs/predict", json={"model": "shallow", "dataset": "digits"}).json()

    waiting = post(shared_api)

    assert "no such job" in problem(shared_api.get("/jobs/abc/report"), 404)["detail"]
    assert "run_off" in problem(shared_api.get(f"/jobs/{waiting['id']}/runoff"), 404)["detail"]
    assert problem(shared_api.get(f"/jobs/{job.id}/report?lang=de"), 422)["errors"][0]["pointer"] == "?lang"
    assert "no such group" in problem(shared_api.get("/jobs/experiments/abc/report"), 404)["detail"]
    assert "predict job" in problem(shared_api.get(f"/jobs/{predicts['id']}/report"), 409)["detail"]


def test_very_small_ticks_are_distinct() -> None:
    """Ticks are rounded relative to their distance."""
    assert linear_ticks(1e-14, 5e-14) == pytest.approx([1e-14, 2e-14, 3e-14, 4e-14, 5e-14])
    assert linear_ticks(0.1, 0.3) == [0.1, 0.15, 0.2, 0.25, 0.3]


def test_a_large_picture_is_scaled_down() -> None:
    """A report embeds many pictures, so each must be small."""
    url = picture(np.zeros((3, 2000, 1000), np.uint8))
    small = Image.open(io.BytesIO(b64decode(url.partition(",")[2])))

    assert small.size == (64, 128)


def test_storage_that_is_away_is_an_error() -> None:
    """The error passes through, so that the client can try again later; the report is not made without answers."""

    class Away:
        def read(self, path: str, sha256: str) -> bytes:
            raise StorageAway("the storage does not answer")

    facts = SimpleNamespace(files={ANSWERS: SimpleNamespace(path="a", sha256="b")}, version=object())
    with pytest.raises(StorageAway):
        answers_of(cast("Facts", facts), cast("Store", Away()), datasets.__getitem__)
