"""The learning curves of a job's trials, compared with the trials and with the event stream."""

from starlette.testclient import TestClient
from support.worker_tools import Work, measurement

from tests.api.tools import problem


def test_the_curves_agree_with_the_trials(api: TestClient, work: Work) -> None:
    """Every epoch of every trial is there in order, even if the measurements of trials alternate."""
    job = work.accept(budget={"trials": 3})
    claim = work.pack(3)
    for epoch in (1, 2, 3):
        work.measure(claim, 1, measurement(epoch, 0.5 + epoch / 10, None if epoch == 2 else 0.5))
        work.measure(claim, 0, measurement(epoch, 0.9 - epoch / 10))
    found = api.get(f"/jobs/{job.id}/curves").json()
    trials = [api.get(f"/jobs/{job.id}/trials/{number}").json()["measurements"] for number in (0, 1)]

    assert [curve["number"] for curve in found["curves"]] == [0, 1]
    for curve, measured in zip(found["curves"], trials, strict=True):
        for name in ("epoch", "train_loss", "val_loss", "val_accuracy", "seconds"):
            assert curve[name] == [one[name] for one in measured]


def test_the_stream_continues_after_the_curves(api: TestClient, work: Work) -> None:
    """After `sequence` the stream sends exactly what was measured later."""
    job = work.accept()
    claim = work.pack(1)
    work.measure(claim, 0, measurement(1, 0.5))
    after = api.get(f"/jobs/{job.id}/curves").json()["sequence"]
    work.measure(claim, 0, measurement(2, 0.6))
    work.cancel(job)
    told = api.get(f"/jobs/{job.id}/events?after={after}").text

    assert '"epoch":2.0' in told
    assert '"epoch":1.0' not in told


def test_an_unknown_job_has_no_curves(shared_api: TestClient) -> None:
    """The answer is 404 and says what to do."""
    assert "GET /jobs" in problem(shared_api.get("/jobs/00/curves"), 404)["detail"]
