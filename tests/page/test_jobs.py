"""The pages of jobs, in a real browser: a job is submitted, watched, filtered and ended."""

import json
import re
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Page, Response, Route, expect
from sqlalchemy import insert as insert_into
from support.worker_tools import FILE, Work, measurement

from ml.analysis.plots import PLOTS
from ml.records import Finished, Measured, TrialState
from tests.api.tools import insert
from worker.database.tables import Job, Measurement

pytestmark = pytest.mark.long

IDLE = tuple[str, Work]
TRIALS, EPOCHS = 1000, 20
STEPS = range(1, EPOCHS + 1)


@pytest.fixture(scope="module")
def big(idle: IDLE) -> Job:
    """Insert a job of a thousand trials with twenty epochs each, without training."""
    work = idle[1]
    job = work.accept(model="shallow", dataset="mnist", budget={"trials": TRIALS, "epochs": EPOCHS})

    def row(number: int) -> dict[str, object]:
        params = {
            "batch_size": 16 + number % 200,
            "learning_rate": 1e-4 + number / 1e6,
            "hidden_size": 64 + number % 900,
        }
        state = TrialState.PRUNED if number % 3 else TrialState.COMPLETED
        reached = {"val_accuracy": 0.9 + number / 10_000, "value": 0.9 + number / 10_000, "val_loss": 0.2}
        rest = {"epochs_run": EPOCHS, "seconds": 10.0 + number % 50, "created_at": 1e9, "finished_at": 1e9 + 60}
        return {"number": number, "state": state, "params": params, **reached, **rest}

    insert(work, job.id, [row(number) for number in range(TRIALS)])
    ids = [trial.id for trial in work.trials() if trial.job_id == job.id]
    rows = [
        {"trial_id": id_, "job_id": job.id, "sequence": 1, **point(e, n)} for n, id_ in enumerate(ids) for e in STEPS
    ]
    with work.database.writing() as session:
        session.execute(insert_into(Measurement), rows)
    return job


def point(epoch: int, number: int) -> dict[str, float]:
    """Return the measurement of an epoch."""
    accuracy = 0.9 + number / 10_000 - 0.3 / epoch
    figures = {"train_loss": 1 - accuracy, "val_loss": 1 - accuracy, "val_accuracy": accuracy, "seconds": 0.5}
    return {"step": epoch * 10, "images_seen": epoch * 50_400, **figures}


def cells(page: Page, name: str) -> list[str]:
    """Return the texts of a column in the visible rows of the table of trials."""
    heads = [head.inner_text() for head in page.get_by_label("Trials", exact=True).locator("thead th").all()]
    return page.locator(f"tbody tr > :nth-child({heads.index(name) + 1})").all_inner_texts()


# The attribute `data-handled` of <html> counts the lists of all jobs that the page has read and handled.
COUNT_HANDLED = """() => {
    const read = Response.prototype.json;
    const { dataset } = document.documentElement;
    dataset.handled = 0;
    Response.prototype.json = async function () {
        const value = await read.call(this);
        if (this.url.endsWith("/jobs?limit=25")) setTimeout(() => dataset.handled++);
        return value;
    };
}"""


def refused(response: Response) -> bool:
    """Return whether a response says that a specification is invalid."""
    return "validate_only" in response.url and response.status == 422


# --- from the form to the end


def test_a_job_is_posted_from_the_form_and_watched_to_its_end(page: Page, service: Any) -> None:
    """Trials appear in the table by themselves, and the published version at the end."""
    page.goto(service.url)
    page.get_by_role("link", name="New job", exact=True).click()
    page.get_by_label("Network").select_option("shallow")
    page.get_by_label("Data set").select_option("digits")
    page.get_by_label("Trials", exact=True).fill("4")
    page.get_by_label("Epochs", exact=True).fill("1")
    page.get_by_role("button", name="Submit job").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Tune shallow on digits")
    expect(page.get_by_role("link", name=re.compile(r"^shallow \d+$"))).to_be_visible(timeout=240_000)
    job = httpx2.get(f"{service.url}/jobs/{page.url.rpartition('/')[2]}").json()

    assert job["state"] == "completed"
    trials = page.get_by_label("Trials", exact=True)
    assert trials.locator("tbody tr th").all_inner_texts() == ["3", "2", "1", "0"]
    expect(page.locator("figcaption").first).to_contain_text("4 curves")

    page.get_by_role("link", name=f"trial {job['best']['trial']}").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Trial {job['best']['trial']}")
    expect(page.locator("main")).to_contain_text(f"{job['best']['value'] * 100:.2f} %")


def test_an_open_page_survives_the_death_of_the_api(page: Page, service: Any) -> None:
    """The page says that it reconnects, and then shows new events without a reload."""
    budget = {"trials": 10_000, "epochs": 30}  # it runs until this test cancels it
    job = httpx2.post(
        f"{service.url}/jobs/tune", json={"model": "shallow", "dataset": "digits", "budget": budget}
    ).json()
    page.goto(f"{service.url}/#/jobs/{job['id']}")
    expect(page.locator(".live")).to_have_text("● live")
    page.evaluate("""new MutationObserver(() => { document.documentElement.dataset.told +=
        document.querySelector(".live").textContent }).observe(document.querySelector(".live"), { childList: true })""")
    service.restart_api()
    expect(page.locator("html")).to_have_attribute("data-told", re.compile("reconnecting …● live$"))
    facts = page.locator(".facts dd").all_text_contents()
    expect(page.locator(".facts dd")).not_to_have_text(facts)

    expect(page.locator("#offline")).to_be_hidden()
    httpx2.post(f"{service.url}/jobs/{job['id']}/cancel")
    expect(page.locator(".titled .badge")).to_have_text("cancelled")


# --- the form


def test_an_error_is_shown_at_the_field_that_caused_it(page: Page, idle: IDLE) -> None:
    """The API's error is shown at the field while typing, and is gone when it is fixed."""
    page.goto(f"{idle[0]}/#/jobs/new")
    trials = page.get_by_label("Trials", exact=True)
    with page.expect_response(refused) as answered:
        trials.fill("0")
    (error,) = answered.value.json()["errors"]
    assert error["pointer"] == "#/budget/trials"
    expect(trials).to_have_attribute("aria-invalid", "true")
    expect(trials).to_have_accessible_description(re.compile(re.escape(error["detail"])))
    with page.expect_response(refused) as answered:
        page.get_by_label("batch_size, low").fill("300")
    (detail,) = (e["detail"] for e in answered.value.json()["errors"] if e["pointer"] == "#/search_space/batch_size")
    batch_size = page.get_by_label("batch_size", exact=True)
    expect(batch_size).to_have_accessible_description(re.compile(re.escape(detail)))
    trials.fill("5")
    page.get_by_label("batch_size, low").fill("30")
    expect(page.locator("[aria-invalid]")).to_have_count(0)


def test_the_form_and_the_json_follow_each_other(page: Page, idle: IDLE) -> None:
    """A change of one is shown in the other."""
    page.goto(f"{idle[0]}/#/jobs/new")
    page.get_by_label("Seed").fill("7")
    written = json.loads(page.get_by_label("Specification as JSON").input_value())
    assert written["seed"] == 7

    page.get_by_label("Specification as JSON").fill(
        json.dumps({**written, "model": "mlp", "search_space": {}, "seed": 8})
    )
    expect(page.get_by_label("Network")).to_have_value("mlp")
    expect(page.get_by_label("Seed")).to_have_value("8")
    expect(page.get_by_label("hidden_sizes", exact=True)).to_have_value("default")


def test_invalid_json_is_not_submitted(page: Page, idle: IDLE) -> None:
    """The text gets the focus, with the error below it. The same holds for JSON that fits no form."""
    page.goto(f"{idle[0]}/#/jobs/new")
    text = page.get_by_label("Specification as JSON")
    before = text.input_value()
    posted: list[str] = []
    page.on("request", lambda request: posted.append(request.url) if request.method == "POST" else None)
    for written in (before[:-1], json.dumps({**json.loads(before), "search_space": 5})):
        text.fill(written)
        expect(page.locator("#json-error")).to_contain_text("Not a valid specification")
        page.get_by_role("button", name="Submit job").click()
        expect(text).to_be_focused()

    assert all("validate_only" in url for url in posted)
    text.fill(before)
    expect(page.locator("#json-error")).to_have_text("")


def test_choosing_another_network_keeps_the_other_fields(page: Page, idle: IDLE) -> None:
    """Seed and objective stay, the search space changes, and the choice keeps the focus."""
    page.goto(f"{idle[0]}/#/jobs/new")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Objective").select_option("val_loss")
    network = page.get_by_label("Network")
    network.focus()
    network.select_option("shallow")
    expect(network).to_be_focused()
    written = json.loads(page.get_by_label("Specification as JSON").input_value())

    assert (written["model"], written["seed"], written["objective"]) == ("shallow", 7, "val_loss")
    assert "hidden_size" in written["search_space"]


def test_the_initial_form_of_every_network_is_valid(page: Page, idle: IDLE) -> None:
    """The API accepts the initial form of every network, for tuning and for training."""
    page.goto(f"{idle[0]}/#/jobs/new")
    for kind in ("Tune hyper-parameters", "Train fixed values"):
        page.get_by_label(kind).check()
        for network in httpx2.get(f"{idle[0]}/catalog").json()["networks"]:
            with page.expect_response(lambda answer: "validate_only" in answer.url) as answered:
                page.get_by_label("Network").select_option(network)

            assert answered.value.status == 200, f"{kind}, {network}"


def test_a_job_is_duplicated_with_its_specification(page: Page, idle: IDLE) -> None:
    """The form starts with the whole specification."""
    job = idle[1].accept(model="mlp", budget={"trials": 77}, seed=5)
    page.goto(f"{idle[0]}/#/jobs/{job.id}")
    page.get_by_role("link", name="Duplicate").click()
    expect(page.get_by_label("Trials", exact=True)).to_have_value("77")

    assert json.loads(page.get_by_label("Specification as JSON").input_value()) == job.spec


# --- the list, and the buttons


def test_a_job_is_paused_resumed_extended_and_cancelled_from_the_list(page: Page, idle: IDLE) -> None:
    """Each change is shown at once, and agrees with the database."""
    job = idle[1].accept(budget={"trials": 3})
    page.goto(f"{idle[0]}/#/jobs")
    row = page.locator(".job", has_text=job.id)
    row.get_by_role("button", name="Pause").click()
    expect(row.locator(".badge")).to_have_text("paused")
    row.get_by_role("button", name="Resume").click()
    expect(row.locator(".badge")).to_have_text("queued")
    row.get_by_role("button", name="Extend").click()
    page.get_by_label("Total trials").fill("9")
    page.get_by_role("button", name="Save limits").click()
    expect(row).to_contain_text("0 of 9 trials")
    row.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel job").click()
    expect(row.locator(".badge")).to_have_text("cancelled")

    assert idle[1].job(job).state == "cancelled"
    assert idle[1].job(job).trial_limit == 9


def test_a_hidden_page_holds_no_connection(page: Page, idle: IDLE) -> None:
    """A browser has six connections per host. When the page is visible again, it shows the events it has missed."""
    idle[1].accept(budget={"trials": 1})
    claim = idle[1].pack(1)
    page.goto(f"{idle[0]}/#/jobs/{claim.job_id}")
    expect(page.locator(".live")).to_have_text("● live")
    turn = "(hidden) => (Object.defineProperty(document, 'hidden', {value: hidden, configurable: true}), "
    turn += "document.dispatchEvent(new Event('visibilitychange')))"
    with page.expect_event("requestfailed", lambda request: "/events" in request.url):
        page.evaluate(turn, True)
    idle[1].measure(claim, 0, measurement(1, 0.5))
    page.evaluate(turn, False)
    expect(page.get_by_label("Trials", exact=True).locator("tbody tr").first).to_contain_text("50.00 %")
    idle[1].controls.cancel(claim.job_id)
    expect(page.locator(".titled .badge")).to_have_text("cancelled")


def test_an_open_history_shows_new_entries(page: Page, idle: IDLE) -> None:
    """New entries are counted and listed without a reload."""
    job = idle[1].accept()
    page.goto(f"{idle[0]}/#/jobs/{job.id}")
    page.get_by_text("History: 1 change").click()
    idle[1].controls.pause(job.id)
    expect(page.locator(".history li")).to_have_count(2)
    expect(page.locator(".history li").last).to_contain_text("paused")
    expect(page.get_by_text("History: 2 changes")).to_be_visible()
    idle[1].cancel(job)


def test_the_best_trial_is_marked_and_the_mark_moves(page: Page, idle: IDLE) -> None:
    """The mark moves to a better trial."""
    work = idle[1]
    job = work.accept(budget={"trials": 2})
    while (claim := work.pack(2)).job_id != job.id:  # the jobs of other tests come first
        work.controls.cancel(claim.job_id)
    page.goto(f"{idle[0]}/#/jobs/{claim.job_id}")
    for trial, accuracy in zip(work.reserved(claim), (0.5, 0.75), strict=True):
        best = measurement(1, accuracy)
        ended = Finished(trial.number, TrialState.COMPLETED, "for the test", best, accuracy, None)
        file = {trial.number: (f"{claim.job_id}/{trial.number}", FILE)}
        work.ledger.record(claim, [Measured(trial.number, best, {}), ended], file)
        expect(page.locator("tbody tr.best th")).to_have_text(str(trial.number))
    work.controls.cancel(claim.job_id)


def test_a_dialog_closes_when_its_view_is_left(page: Page, idle: IDLE) -> None:
    """Leaving the view closes the dialog and cancels nothing."""
    job = idle[1].accept()
    page.goto(f"{idle[0]}/#/jobs/{job.id}")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.evaluate("location.hash = '#/models'")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("heading", level=1)).to_have_text("Models")

    assert idle[1].job(job).state == "queued"
    idle[1].cancel(job)


def test_a_late_answer_does_not_replace_a_newer_one(page: Page, idle: IDLE) -> None:
    """The page requests the list again for another state before the first response comes."""
    job = idle[1].accept()
    page.goto(f"{idle[0]}/#/jobs")
    row = page.locator(".job", has_text=job.id)
    expect(row).to_be_visible()
    late: list[Route] = []
    page.route("**/jobs?limit=25", lambda route: late.append(route))
    page.wait_for_event("request", lambda request: request.url.endswith("/jobs?limit=25"))
    page.get_by_label("State", exact=True).select_option("running")
    expect(row).to_have_count(0)
    page.evaluate(COUNT_HANDLED)
    for route in late:
        route.continue_()
    expect(page.locator("html")).to_have_attribute("data-handled", str(len(late)))

    assert row.count() == 0
    idle[1].cancel(job)


def test_the_list_can_show_more_jobs_than_one_request_returns(page: Page, idle: IDLE) -> None:
    """The page requests the list in parts, here of four jobs each."""
    jobs = [idle[1].accept() for _ in range(27)]

    def smaller(route: Route) -> None:
        script = route.fetch()
        assert "LARGEST = 1000" in script.text()
        route.fulfill(response=script, body=script.text().replace("LARGEST = 1000", "LARGEST = 4"))

    page.route("**/jobs.js*", smaller)
    page.goto(f"{idle[0]}/#/jobs")
    expect(page.locator(".job")).to_have_count(25)
    page.get_by_role("button", name="Show older jobs").click()
    for job in jobs:
        expect(page.locator(".job", has_text=job.id)).to_have_count(1)
        idle[1].cancel(job)


def test_updates_of_a_running_trial_do_not_move_the_focus(page: Page, idle: IDLE) -> None:
    """Its button and the table, which the keyboard scrolls, keep the focus and stay the same elements."""
    idle[1].accept(budget={"trials": 1})
    claim = idle[1].pack(1)
    page.goto(f"{idle[0]}/#/jobs/{claim.job_id}/trials/0")
    table, cancel = page.get_by_role("group", name="Results per epoch"), page.get_by_role("button", name="Cancel")
    for epoch, seat in enumerate((table, cancel), 1):
        seat.focus()
        seat.evaluate("(element) => (element.known = true)")
        idle[1].measure(claim, 0, measurement(epoch, 0.5))
        expect(page.locator("caption").last).to_contain_text(f"{epoch} measurement")
        expect(seat).to_be_focused()
        assert seat.evaluate("(element) => element.known")
    heading = page.get_by_role("heading", level=1)
    heading.evaluate("(heading) => ((heading.tabIndex = -1), heading.focus())")  # as the router does
    idle[1].controls.cancel(claim.job_id)
    expect(cancel).to_have_count(0)
    expect(heading).to_be_focused()
    expect(page.locator(".titled .badge")).to_have_text("cancelled")


def test_an_unknown_job_shows_the_error_of_the_api(page: Page, idle: IDLE) -> None:
    """The page shows the sentence of the API."""
    page.goto(f"{idle[0]}/#/jobs/00")

    expect(page.get_by_role("alert")).to_contain_text(httpx2.get(f"{idle[0]}/jobs/00").json()["detail"][1:])


# --- a thousand trials


def test_a_thousand_trials_are_filtered_and_sorted(page: Page, idle: IDLE, big: Job) -> None:
    """The table agrees with the rows, and shows twenty per page."""
    page.goto(f"{idle[0]}/#/jobs/{big.id}")
    expect(page.locator("figcaption").first).to_contain_text(f"{TRIALS:,} curves, 666 pruned")
    page.get_by_role("button", name="Accuracy").click()
    assert cells(page, "Trial")[:2] == ["999", "998"]

    page.get_by_label("Filter trials").fill("> 0.98, completed")
    good = sum(number % 3 == 0 and 0.9 + number / 10_000 > 0.98 for number in range(TRIALS))
    expect(page.locator("caption").first).to_contain_text(f"{good} of 1,000 trials, by Accuracy, highest first")
    assert page.get_by_label("Trials", exact=True).locator("tbody tr").count() == 20
    assert cells(page, "State") == ["completed"] * 20

    page.get_by_label("Filter trials").fill("lr < 3")
    expect(page.locator("#filter-error")).to_contain_text("There is no column “lr”")


def test_a_thousand_trials_do_not_slow_the_page_down(page: Page, idle: IDLE, big: Job) -> None:
    """Each key in the filter redraws everything, and takes less than 0.1 s of the page's thread."""
    page.goto(f"{idle[0]}/#/jobs/{big.id}")
    expect(page.locator("figcaption").first).to_contain_text("curves")
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})  # CPU time, so that a busy machine does not count

    def spent() -> float:
        metrics = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
        return metrics["TaskDuration"]

    before = spent()
    page.get_by_label("Filter trials").press_sequentially("> 0.98", delay=500)  # so that each key redraws
    expect(page.locator("caption").first).to_contain_text("of 1,000 trials")

    assert 0 < (spent() - before) / len("> 0.98") < 0.1


# --- the keyboard


def test_the_page_can_be_used_by_keyboard_alone(page: Page, idle: IDLE) -> None:
    """The first link skips the navigation, and the focus is always visible."""
    page.goto(idle[0])
    expect(page.get_by_role("heading", level=1)).to_have_text("Jobs")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{idle[0]}/#/jobs")  # so that a reload shows the view again
    for _ in range(2):
        page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="New job", exact=True)).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"

    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()


def test_the_theme_survives_a_reload(page: Page, idle: IDLE) -> None:
    """A button chooses the theme, and the page has the same theme after a reload."""
    page.goto(idle[0])
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Theme").click(click_count=2)
    dark = page.evaluate(ground)
    page.reload()

    assert page.evaluate(ground) == dark != light


def test_the_theme_can_be_switched_without_browser_storage(page: Page, idle: IDLE) -> None:
    """With storage blocked, the theme lasts until the next load, and there is no error."""
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage', {get() {throw new DOMException('', 'SecurityError')}})"
    )
    page.goto(idle[0])
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Theme").click(click_count=2)

    assert page.evaluate(ground) != light
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()


def test_the_documentation_is_shown_without_another_host(page: Page, idle: IDLE) -> None:
    """The page lists every operation of the API."""
    page.goto(f"{idle[0]}/docs")
    paths = httpx2.get(f"{idle[0]}/openapi.json").json()["paths"]
    operations = sum(len(methods) for methods in paths.values())

    expect(page.locator(".opblock")).to_have_count(operations)


def test_the_header_leads_to_the_help(page: Page, idle: IDLE) -> None:
    """The link in the navigation can be opened by keyboard, and opens /help in the same tab."""
    page.route("**/help", lambda route: route.fulfill(body="Documentation"))
    page.goto(idle[0])
    link = page.get_by_role("navigation", name="Pages").get_by_role("link", name="Help", exact=True)
    link.focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{idle[0]}/help")


def test_plots_are_drawn_with_the_chosen_options(page: Page, idle: IDLE, big: Job) -> None:
    """Every plot is offered with the options of the API, and is drawn with those that are chosen."""
    page.route("**/plots/**", lambda route: route.abort())
    page.goto(f"{idle[0]}/#/jobs/{big.id}")
    figure, drawing = page.get_by_label("Plot", exact=True), page.frame_locator("iframe")
    offered = {}
    expect(page.locator("#plot option")).to_have_count(1 + len(PLOTS))
    for name in page.locator("#plot option").evaluate_all("all => all.map(one => one.value).filter(Boolean)"):
        figure.select_option(name)
        controls = page.locator("[id^=plot-]").evaluate_all("all => all.map(one => one.name)")
        offered[name] = set(controls)

    assert offered == {name: set(plot.options) for name, plot in PLOTS.items()}

    figure.select_option("pareto_front")
    page.get_by_label("Cost").select_option("weights")
    page.get_by_label("Minimum accuracy").fill("0.98")
    page.get_by_label("Minimum accuracy").press("Enter")
    chosen = f"/jobs/{big.id}/plots/pareto_front?min_accuracy=0.98&cost=weights"
    expect(page.locator("iframe")).to_have_attribute("src", chosen)

    page.unroute("**/plots/**")
    figure.select_option("correlations")
    page.get_by_label("Coefficient").select_option("pearson")
    expect(drawing.get_by_text("hidden_size").first).to_be_visible()
