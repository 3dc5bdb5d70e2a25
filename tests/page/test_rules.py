"""What a job says of its rules, its shares of time and its observations, wherever it says it.

The API's answers are the truth. The page, the report in both languages, the CSV, the plots and the documentation must
say the same.
"""

import csv
import html
import re
from pathlib import Path
from typing import Any

import html5lib
import httpx2
import pytest
from playwright.sync_api import Page, expect
from support.searched import searched
from support.worker_tools import Work

from api.report.wording import FRENCH
from ml.analysis.observations import LEARNED
from ml.records import TrialState
from tests.api.tools import insert
from worker.database.tables import Job, JobState

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]

DOCS = Path(__file__).parents[2] / "docs"
TRIALS, LANES = 24, 4
SHARED = "batch_size"  # all trials of a pack have the same
CASES = {1: "tpe", 2: "random"}  # the sampler of the job with these rules
SHARES = {  # what page and report say of the seconds of a trial
    1: "equal shares of a pack's time for all its trials, by rules 1.",
    2: "a trial's share of its pack's time, by what a step of the trial takes alone.",
}

Told = dict[str, Any]


@pytest.fixture(scope="module", params=CASES)
def told(request: pytest.FixtureRequest, idle: tuple[str, Work]) -> Told:
    """Insert a search in packs of four trials, without training; return the API's answers about it."""
    url, work = idle
    job_id = insert_search(work, request.param)
    analysis = httpx2.get(f"{url}/jobs/{job_id}/analysis", timeout=120).raise_for_status().json()
    return {"url": url, "job": httpx2.get(f"{url}/jobs/{job_id}").json(), **analysis}


def insert_search(work: Work, rules: int) -> str:
    """Insert a search whose trials got their results from a formula, and return its id."""
    search = searched(TRIALS, sampler=CASES[rules])
    job = work.ledger.accept(search.spec)
    for first in range(0, TRIALS, LANES):
        rows: list[dict[str, Any]] = []
        for number in range(first, first + LANES):
            params, record = search.ask(number, rows[0]["suggestion"] if rows else None)
            record.state, record.value = TrialState.COMPLETED, 0.9 + 0.01 * (number * 7 % 10)
            record.values = {20: record.value}
            search.apply(record)
            results = {"val_accuracy": record.value, "value": record.value, "val_loss": 1 - record.value}
            figures = {"epochs_run": 2.0, "best_epoch": 2.0, "seconds": 1.0 + number % 5, "created_at": 1e9 + number}
            row = {"number": number, "state": record.state, "finished_at": 2e9, "sequence": number + 1, **figures}
            rows.append({**row, **results, "params": params.model_dump(), "suggestion": record.suggestion})
        insert(work, job.id, rows)
    with work.database.writing() as session:
        row = session.get_one(Job, job.id)
        row.state, row.rules = JobState.COMPLETED, rules
    return job.id


def n_effective(told: Told, one: str, other: str) -> int:
    """Return the API's number of observations of two variables."""
    found = told["correlations"]
    n: int = found["n_effective"][found["variables"].index(one)][found["variables"].index(other)]
    return n


def report(told: Told, lang: str) -> str:
    """Return the text of a report, without its tags."""
    answer = httpx2.get(f"{told['url']}/jobs/{told['job']['id']}/report?lang={lang}", timeout=120).raise_for_status()
    return answer.text


def text_of(page: str) -> str:
    """Return the text of an HTML page on one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def tables_of(page: str) -> list[list[list[str]]]:
    """Return the cells of each table of an HTML page."""
    tree = html5lib.parse(page, namespaceHTMLElements=False)
    return [[["".join(cell.itertext()) for cell in row] for row in table.iter("tr")] for table in tree.iter("table")]


def test_the_api_tells_a_pack_from_a_trial(told: Told) -> None:
    """With six packs of four trials, the batch size has six observations, and no importance."""
    assert told["job"]["rules"] in CASES
    assert n_effective(told, SHARED, "val_accuracy") == TRIALS // LANES
    assert n_effective(told, "learning_rate", "val_accuracy") == TRIALS
    assert told["correlations"]["p_reason"] == (LEARNED if told["job"]["rules"] == 1 else None)
    assert [one["undetermined"] for one in told["importances"]] == [[SHARED], [SHARED]]


def test_the_page_says_what_the_api_says(told: Told, page: Page) -> None:
    """The view of a job has its rules, shares, observations and what is not determined; that of a trial its share."""
    rules, reason = told["job"]["rules"], told["correlations"]["p_reason"]
    page.goto(f"{told['url']}/#/jobs/{told['job']['id']}")
    fact = page.locator(".facts div").filter(has=page.get_by_text("Rules", exact=True)).locator("dd")
    expect(fact).to_have_text("1 (those of release 0.2)" if rules == 1 else "2")
    expect(page.locator("main")).to_contain_text(SHARES[rules].replace("'", "’"))
    expect(page.locator("main")).to_contain_text(f"all trials of a pack share them: {SHARED}.")
    shown = [row.locator("small").all_inner_texts() for row in page.locator(".matrix tbody tr").all()]
    caption = page.locator(".matrix caption").inner_text()

    assert shown == [[f"n {n}" for n in row] for row in told["correlations"]["n_effective"]]
    assert ("There are no p-values" in caption) == (reason is not None)
    assert reason is None or reason in caption

    page.goto(f"{told['url']}/#/jobs/{told['job']['id']}/trials/0")
    expect(page.locator("main")).to_contain_text(SHARES[rules].replace("'", "’"))


@pytest.mark.parametrize("lang", ["en", "fr"])
def test_the_report_says_what_the_api_says(told: Told, lang: str) -> None:
    """Both languages have the rules, the observations of each pair, what is not determined, and why there is no p."""
    rules, reason = told["job"]["rules"], told["correlations"]["p_reason"]
    page = report(told, lang)
    text, tables = text_of(page), tables_of(page)

    def say(english: str, **values: object) -> str:
        return (FRENCH[english] if lang == "fr" else english).format(**values)

    seconds = {1: "Seconds are " + SHARES[1], 2: "Seconds are " + SHARES[2]}
    without = say("There are no p-values: {reason}.", reason=say(reason or LEARNED))
    named = say("rules of drawing, of sharing time and of deciding")
    (told_rules,) = [row[1] for table in tables for row in table if row[0] == named]
    numbers = [[row[1:] for row in table[1:]] for table in tables]

    assert told_rules.split(" ")[0] == str(rules)
    assert text.count(say(seconds[rules])) == 2  # with the means by parameter, and with the fronts
    assert say(seconds[3 - rules]) not in text
    assert [[str(n) for n in row] for row in told["correlations"]["n_effective"]] in numbers
    assert (without in text) == (reason is not None)
    assert (
        say("All trials of a pack share {names}. There are too few packs to tell how important that is.", names=SHARED)
        in text
    )


def test_the_csv_says_what_the_api_says(told: Told) -> None:
    """The rules are the last column, so that every other column keeps its place; the seconds are the API's."""
    path = f"{told['url']}/jobs/{told['job']['id']}/trials"
    header, *rows = csv.reader(httpx2.get(path, headers={"accept": "text/csv"}).text.splitlines())
    trials = httpx2.get(path).json()["items"]

    assert header[-1] == "rules"
    assert {row[-1] for row in rows} == {str(told["job"]["rules"])}
    assert [float(row[header.index("seconds")]) for row in rows] == [trial["seconds"] for trial in trials]


def test_plots_say_what_the_analysis_says(told: Told) -> None:
    """A coefficient has its number of observations; subtitles say what is not determined and why there is no p."""
    path, reason = f"{told['url']}/jobs/{told['job']['id']}/plots", told["correlations"]["p_reason"]
    drawn, rated = (
        httpx2.get(f"{path}/{name}?format=json", timeout=120).raise_for_status().json()
        for name in ("correlations", "param_importances")
    )
    counts = [[cell[0] for cell in row] for row in drawn["data"][0]["customdata"]]

    assert counts == told["correlations"]["n_effective"]
    assert drawn["layout"]["title"].get("subtitle", {}).get("text") == (
        None if reason is None else f"No p-values: {reason}"
    )
    assert rated["layout"]["title"]["subtitle"]["text"].endswith(f"share them: {SHARED}")


def test_the_documentation_explains_each_of_these_fields(told: Told) -> None:
    """The reference says how rules share time, and a guide names every field."""
    schemas = httpx2.get(f"{told['url']}/openapi.json").json()["components"]["schemas"]
    guide = (DOCS / "how-to" / "analyse.md").read_text()
    explained = (DOCS / "explanation" / "statistics.md").read_text() + (DOCS / "explanation" / "lanes.md").read_text()

    for name in ("TrialPublic", "Priced"):
        assert "rules 1" in schemas[name]["properties"]["seconds"]["description"]
    assert "release 0.2" in schemas["JobPublic"]["properties"]["rules"]["description"]
    assert [name for name in ("n_effective", "p_reason", "undetermined", "rules") if f"`{name}`" not in guide] == []
    assert [name for name in ("n_effective", "p_reason", "undetermined", "rules") if f"`{name}`" not in explained] == []
