"""`chiffre export`: a job as others' tools read it, TensorBoard's event files, an Optuna journal and CSV.

Imported by that command alone: torch writes the one, optuna the other.
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

Trial = dict[str, Any]  # as the API describes it, with its measurements


def tensorboard(client: Chiffre, job_id: str, folder: Path) -> int:
    """Write every trial that was drawn as a run of TensorBoard with its hyper-parameters; how many there were.

    The step of a curve is the images seen, so that trials of different batch sizes can be compared. ApiError where
    there is none, or the folder is there already.
    """
    _check_absent(folder)
    count = 0
    with TemporaryDirectory(dir=folder.parent, prefix=".tensorboard-") as place:
        unfinished = Path(place) / "runs"
        unfinished.mkdir()
        for trial in _trials(client, job_id):
            count += 1
            with SummaryWriter(str(unfinished / f"trial-{trial['number']:05}")) as writer:
                _write_run(writer, trial)
        if not count:
            raise ApiError(f"job {job_id} has no trial yet that could be written")
        unfinished.replace(folder)
    return count


def journal(client: Chiffre, job_id: str, path: Path) -> int:
    """Write a job's search as an Optuna study to a journal file; how many trials it has.

    The study bears the job's id. ApiError where the job is no search, or the file is there already.
    """
    job = client.job(job_id)
    if job["kind"] != "tune":
        raise ApiError(f"job {job_id} is no search, but of kind {job['kind']}; an Optuna study is one")
    _check_absent(path)
    dataset = remote_dataset(client, job["dataset"])
    try:
        spec = TuneSpec.model_validate({**job["spec"], "dataset": dataset})
    except ValidationError as error:
        raise ApiError(f"this release of chiffre does not know the job's specification: {error}") from None
    with TemporaryDirectory(dir=path.parent, prefix=".journal-") as folder:
        unfinished = Path(folder) / "journal"
        study = _study(unfinished, job, spec)
        # All of them, as a trial's number is its place: one that was cancelled before it was drawn too.
        study.add_trials(_frozen(client.trial(job_id, number), spec) for number in range(_count(client, job_id)))
        count = len(study.trials)
        unfinished.replace(path)
    return count


def table(client: Chiffre, job_id: str, path: Path) -> int:
    """Write every trial as a row of a CSV file, as the API has them; how many there are."""
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
    return study


def _count(client: Chiffre, job_id: str) -> int:
    return sum(client.job(job_id)["trials"].values())


def _trials(client: Chiffre, job_id: str) -> Iterator[Trial]:
    """Every trial that was drawn, with its measurements, by number."""
    for trial in client.trials(job_id, limit=1000):
        if trial["params"] is not None:
            yield client.trial(job_id, trial["number"])


def _write_run(writer: SummaryWriter, trial: Trial) -> None:
    """A trial's curves, hyper-parameters and results."""
    clock = datetime.fromisoformat(trial["created_at"]).timestamp()
    for measured in trial["measurements"]:
        clock += measured["seconds"]
        for name in CURVES:
            if measured[name] is not None:
                writer.add_scalar(name, measured[name], measured["images_seen"], walltime=clock)
    reached = {f"result/{name}": float(trial[name]) for name in METRICS if trial[name] is not None}
    drawn = {name: _plain(value) for name, value in trial["params"].items()}
    for summary in hparams({**drawn, "state": trial["state"]}, reached):  # type: ignore[no-untyped-call]
        writer.file_writer.add_summary(summary)  # type: ignore[attr-defined]
    for name, value in reached.items():
        writer.add_scalar(name, value, trial["number"], walltime=clock)


def _plain(value: Any) -> bool | float | int | str:
    """A hyper-parameter as TensorBoard takes it."""
    return value if isinstance(value, bool | float | int | str) else str(value)


def _frozen(trial: Trial, spec: TuneSpec) -> FrozenTrial:
    """A trial as Optuna has it."""
    known = distributions_of(spec)
    drawn = trial["suggestion"] or {}
    state = STATES[trial["state"]]
    values = {step_of(m["epoch"]): m[spec.objective] for m in trial["measurements"]}
    complete = state == optuna.trial.TrialState.COMPLETE
    return FrozenTrial(
        number=trial["number"],
        trial_id=-1,  # the storage gives one
        state=state,
        value=trial["value"] if complete else None,
        datetime_start=_instant(trial["created_at"]),
        datetime_complete=_instant(trial["finished_at"]) if state.is_finished() else None,
        params=drawn,
        distributions={name: known[name] for name in drawn},
        user_attrs={name: trial[name] for name in (*METRICS, "reason") if trial[name] is not None},
        system_attrs={},
        intermediate_values={step: value for step, value in values.items() if value is not None},
    )


def _instant(text: str | None) -> datetime | None:
    """An instant as Optuna keeps them: of this machine's clock, without a zone."""
    return None if text is None else datetime.fromisoformat(text).astimezone().replace(tzinfo=None)


def _check_absent(path: Path) -> None:
    if path.exists():
        raise ApiError(f"{path} is there already; name another, or remove it")
    if not path.parent.is_dir():
        raise ApiError(f"{path.parent} is no folder; make it first")
