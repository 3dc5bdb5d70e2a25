"""`chiffre export`: write a job's trials as TensorBoard event files, as an Optuna journal, or as CSV.

Only that command imports this module, because torch writes the event files and optuna the journal.
"""

import csv
import io
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from pydantic import ValidationError
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from api.cli.remote_datasets import remote_dataset
from api.client import Chiffre
from api.connection import ApiError
from ml.artifacts import write
from ml.records import step_of
from ml.specs import TuneSpec
from ml.tuning.search import STATES, distributions_of

METRICS = ("value", "val_accuracy", "val_loss", "train_loss", "seconds", "epochs_run", "weights", "flops")
CURVES = ("val_accuracy", "val_loss", "train_loss")

Trial = dict[str, Any]  # a trial in the API's JSON, with its measurements


def tensorboard(client: Chiffre, job_id: str, folder: Path) -> int:
    """Write every trial that has hyper-parameters as a TensorBoard run, and return the number of runs.

    The step of a curve is the number of images seen, so that trials of different batch sizes can be compared.

    Raises:
        ApiError: if no trial has hyper-parameters yet, or the folder already exists.

    """
    _check_absent(folder)
    count = 0
    with TemporaryDirectory(dir=folder.parent, prefix=".tensorboard-") as place:
        unfinished = Path(place) / "runs"
        unfinished.mkdir()
        rules = client.job(job_id).get("rules", 1)  # a service of release 0.2 names none
        for trial in _trials(client, job_id):
            count += 1
            with SummaryWriter(str(unfinished / f"trial-{trial['number']:05}")) as writer:
                _write_run(writer, trial, rules)
        if not count:
            raise ApiError(f"job {job_id} has no trials to write yet; try again once a trial has started")
        unfinished.replace(folder)
    return count


def journal(client: Chiffre, job_id: str, path: Path) -> int:
    """Write a tuning job as an Optuna study to a journal file, and return the number of its trials.

    The study's name is the job's id.

    Raises:
        ApiError: if the job is not a tuning job, or the file already exists.

    """
    job = client.job(job_id)
    if job["kind"] != "tune":
        raise ApiError(f"job {job_id} is a {job['kind']} job; only a tune job can become an Optuna study")
    _check_absent(path)
    dataset = remote_dataset(client, job["dataset"])
    try:
        spec = TuneSpec.model_validate({**job["spec"], "dataset": dataset})
    except ValidationError as error:
        raise ApiError(f"this release of chiffre cannot read the job's specification: {error}") from None
    with TemporaryDirectory(dir=path.parent, prefix=".journal-") as folder:
        unfinished = Path(folder) / "journal"
        study = _study(unfinished, job, spec)
        # Optuna numbers trials by position, so none may be left out, not even one without hyper-parameters.
        study.add_trials(_frozen(client.trial(job_id, number), spec) for number in range(_count(client, job_id)))
        count = len(study.trials)
        unfinished.replace(path)
    return count


def table(client: Chiffre, job_id: str, path: Path) -> int:
    """Write the API's CSV of all trials, and return the number of trials."""
    _check_absent(path)
    content = client.table(job_id)
    write(path, content.encode())
    return max(0, len(list(csv.reader(io.StringIO(content)))) - 1)


def _study(path: Path, job: dict[str, Any], spec: TuneSpec) -> optuna.Study:
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    direction = StudyDirection.MAXIMIZE if spec.maximize else StudyDirection.MINIMIZE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(storage=storage, study_name=job["id"], direction=direction)
        study.set_metric_names([spec.objective])
    study.set_user_attr("spec", job["spec"])
    study.set_user_attr("rules", job.get("rules", 1))  # a service of release 0.2 names none
    return study


def _count(client: Chiffre, job_id: str) -> int:
    return sum(client.job(job_id)["trials"].values())


def _trials(client: Chiffre, job_id: str) -> Iterator[Trial]:
    """Yield every trial that has hyper-parameters, with its measurements, by number."""
    for trial in client.trials(job_id, limit=1000):
        if trial["params"] is not None:
            yield client.trial(job_id, trial["number"])


def _write_run(writer: SummaryWriter, trial: Trial, rules: int) -> None:
    """Write a trial's learning curves, hyper-parameters and results, and the rules of its job."""
    clock = datetime.fromisoformat(trial["created_at"]).timestamp()
    for measured in trial["measurements"]:
        clock += measured["seconds"]
        for name in CURVES:
            if measured[name] is not None:
                writer.add_scalar(name, measured[name], measured["images_seen"], walltime=clock)
    results = {f"result/{name}": float(trial[name]) for name in METRICS if trial[name] is not None}
    params = {name: _scalar(value) for name, value in trial["params"].items()}
    for summary in hparams({**params, "state": trial["state"], "rules": rules}, results):  # type: ignore[no-untyped-call]
        writer.file_writer.add_summary(summary)  # type: ignore[attr-defined]
    for name, value in results.items():
        writer.add_scalar(name, value, trial["number"], walltime=clock)


def _scalar(value: Any) -> bool | float | int | str:
    """Return a hyper-parameter as a type that TensorBoard accepts."""
    return value if isinstance(value, bool | float | int | str) else str(value)


def _frozen(trial: Trial, spec: TuneSpec) -> FrozenTrial:
    """Return a trial as Optuna's class."""
    distributions = distributions_of(spec)
    suggested = trial["suggestion"] or {}
    state = STATES[trial["state"]]
    values = {step_of(m["epoch"]): m[spec.objective] for m in trial["measurements"]}
    complete = state == optuna.trial.TrialState.COMPLETE
    return FrozenTrial(
        number=trial["number"],
        trial_id=-1,  # the storage assigns one
        state=state,
        value=trial["value"] if complete else None,
        datetime_start=_instant(trial["created_at"]),
        datetime_complete=_instant(trial["finished_at"]) if state.is_finished() else None,
        params=suggested,
        distributions={name: distributions[name] for name in suggested},
        user_attrs={name: trial[name] for name in (*METRICS, "reason") if trial[name] is not None},
        system_attrs={},
        intermediate_values={step: value for step, value in values.items() if value is not None},
    )


def _instant(text: str | None) -> datetime | None:
    """Return a time in Optuna's form: local time without a time zone."""
    return None if text is None else datetime.fromisoformat(text).astimezone().replace(tzinfo=None)


def _check_absent(path: Path) -> None:
    if path.exists():
        raise ApiError(f"{path} already exists; choose another name, or remove it")
    if not path.parent.is_dir():
        raise ApiError(f"{path.parent} is not a folder; create it first")
