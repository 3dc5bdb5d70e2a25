"""Model cards: what a version is, what it is for, what it reached and how to load it, as Markdown.

After Mitchell et al., Model Cards for Model Reporting (2019). A card is made from rows that never change, so that a
version has the same card every time.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import func, select
from sqlmodel import Session, col

from api.views.markdown import code, table, text
from api.views.snippets import loading
from ml.datasets import Dataset, SplitName, datasets, limited, split_sizes
from ml.networks import networks
from ml.prediction.calibration import Calibration
from ml.statistics.intervals import wilson
from worker.database.clock import to_datetime
from worker.database.tables import Artifact, DatasetVersion, Job, ModelVersion, Opening, RunOff, UsedDataset
from worker.ledger.job_spec import spec_of
from worker.ledger.transfer import fresh_of
from worker.ledger.uploaded_datasets import uploaded_version

NOTHING = "–"


@dataclass(frozen=True)
class Subject:
    """What a card tells of."""

    version: ModelVersion
    checkpoint: Artifact
    onnx: Artifact
    dataset: UsedDataset
    limit: int | None  # of the images that trained and validated
    opening: int | None  # how often the test images of this data set and split had been opened with it
    run_off: bool = False  # whether it won one
    begun_with: str | None = None  # whose weights it began with, where not its own
    uploaded: DatasetVersion | None = None  # its data set, where somebody has uploaded it

    @property
    def registered(self) -> Dataset | None:
        """The data set as this release knows it; None where it does not, or knows other images by that name."""
        return next((d for d in datasets.values() if d.sha256 == self.version.dataset_sha256), None)

    @property
    def cut(self) -> tuple[int, int, int] | None:
        """How many images trained, validated and tested; None where that is not known any more."""
        official_test = self.registered.official_test if self.registered else None
        try:
            split = cast("SplitName", self.version.split)
            train, validation, test = split_sizes(self.dataset.images, official_test, split)
        except ValueError:
            return None
        return (*limited(train, validation, self.limit), test)


def card_of(session: Session, version: ModelVersion) -> str:
    """A version's card."""
    checkpoint, onnx = (session.get_one(Artifact, found) for found in (version.checkpoint_id, version.onnx_id))
    dataset = session.get_one(UsedDataset, version.dataset_sha256)
    limit = session.get_one(Job, version.job_id).spec.get("images")
    opening, begun_with = _opening(session, version), _begun_with(session, version)
    decided = session.get(RunOff, (version.job_id, version.run))
    won = decided is not None and decided.winner == version.trial
    uploaded = uploaded_version(session, version.dataset)
    return card(Subject(version, checkpoint, onnx, dataset, limit, opening, won, begun_with, uploaded))


def card(subject: Subject) -> str:
    """The card of what the rows tell."""
    sections = {
        "Intended use": _use(subject),
        "Lineage": _lineage(subject),
        "Hyper-parameters": _params(subject),
        "What it reached": _reached(subject),
        "Calibration": _calibration(subject),
        "Size and speed": _size(subject),
        "Loading it": loading(subject.version, subject.checkpoint, subject.onnx),
        "Data and licence": _licence(subject),
    }
    parts = [_title(subject), *(f"## {heading}\n\n{body}" for heading, body in sections.items())]
    return "\n\n".join(parts) + "\n"


def _begun_with(session: Session, version: ModelVersion) -> str | None:
    spec = spec_of(session, session.get_one(Job, version.job_id))
    if spec.init_from is None:
        return None
    source = spec.init_from
    fresh = ", ".join(map(code, fresh_of(session, spec, version.params) or [])) or "none"
    frozen = source.frozen(spec.layers(spec.network.params.model_validate(version.params)))
    kept = f"{len(frozen)} layers frozen, fresh weights: {fresh}"
    return f"{code(source.model)} version {source.version}, SHA-256 `{source.checkpoint_sha256}`; {kept}"


def _opening(session: Session, version: ModelVersion) -> int | None:
    # A predict job over test images is an opening of its own that names the version too.
    of_publication = (col(Opening.version_id) == version.id, col(Opening.job_id) == version.job_id)
    own = session.scalar(select(Opening).where(*of_publication))
    if own is None:
        return None
    of_images = (col(Opening.dataset_sha256) == own.dataset_sha256, col(Opening.split) == own.split)
    return session.scalar(select(func.count()).where(*of_images, col(Opening.id) <= own.id))


def _title(subject: Subject) -> str:
    version = subject.version
    network = networks.get(version.model)
    described = f"{code(version.model)}: {text(network.description)} " if network else ""
    channels, height, width = version.shape
    return (
        f"# {code(version.model)}, version {version.version}\n\n"
        f"A classifier of images that Chiffre trained on {code(version.dataset)}. {described}It takes images of "
        f"{channels} × {height} × {width} (channels, height, width) and gives each one of {len(version.classes)} "
        f"classes: {', '.join(map(code, version.classes))}."
    )


def _use(subject: Subject) -> str:
    name = code(subject.version.dataset)
    return (
        f"For images like those of {name}: as large, as grey, and framed alike. It was measured on images of {name} "
        "alone; how often it is right on other pens, scans or photographs is not known. Of itself it gives every "
        "image one of its classes, also one that shows none of them. Where a mistake is costly, let a person look."
    )


def _lineage(subject: Subject) -> str:
    version, sizes = subject.version, subject.cut
    images = "" if sizes is None else f": {sizes[0]:,} train, {sizes[1]:,} validate, {sizes[2]:,} test"
    created = to_datetime(version.created_at)
    rows = {
        "published": f"{created:%Y-%m-%d %H:%M:%S} UTC",
        "job": f"{code(version.job_id)}, run {version.run}, trial {version.trial}",
        "data set": f"{code(version.dataset)}, {subject.dataset.images:,} images, SHA-256 `{version.dataset_sha256}`",
        "split": code(version.split) + images,
        **({} if subject.begun_with is None else {"begun with": subject.begun_with}),
        "chosen by": f"{'a run-off of the best trials, ' if subject.run_off else ''}"
        f"{code(version.objective)} = {version.value!r} on validation",
        "checkpoint": f"SHA-256 `{subject.checkpoint.sha256}`",
        "ONNX graph": f"SHA-256 `{subject.onnx.sha256}`",
        "code": f"Chiffre {code(version.code_version)}",
    }
    return table(("what", "which"), rows.items())


def _params(subject: Subject) -> str:
    return table(("name", "value"), ((code(name), code(_shown(v))) for name, v in subject.version.params.items()))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _reached(subject: Subject) -> str:
    version = subject.version
    _, validated, tested = subject.cut or (0, None, None)
    rows = [
        (
            "validation",
            _count(validated),
            *_share(version.val_accuracy, validated)[:1],
            NOTHING,
            _loss(version.val_loss),
        ),
    ]
    if version.test_accuracy is not None:
        rows.append(("test", _count(tested), *_share(version.test_accuracy, tested), _loss(version.test_loss)))
    shown = table(("images of", "n", "accuracy", "95 % interval (Wilson)", "loss"), rows)
    opened = "" if subject.opening is None else f" This was opening {subject.opening} of them."
    if version.test_accuracy is None:
        opened = " For this version, which is not its job's winner, they were not opened."
    return (
        f"{shown}\n\nThe search chose by validation, so those figures are too good by nature and have no interval. The "
        f"test images of a data set and split are the same for every job.{opened} The more openings, the more a "
        "difference between versions may be chance."
    )


def _share(accuracy: float, n: int | None) -> tuple[str, str]:
    """An accuracy with its count, and its interval, as far as n is known."""
    percent = f"{100 * accuracy:.2f} %"
    if n is None:
        return percent, "n is not known"
    right = round(accuracy * n)
    low, high = wilson(right, n)
    return f"{percent} ({right:,} of {n:,})", f"{100 * low:.2f} % to {100 * high:.2f} %"


def _count(n: int | None) -> str:
    return NOTHING if n is None else f"{n:,}"


def _loss(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4g}"


def _calibration(subject: Subject) -> str:
    if not subject.version.calibration:
        return "None was fitted: its probabilities are the network's own, and may be too sure."
    fitted = Calibration(**subject.version.calibration)
    rows = [
        ("validation", fitted.images, fitted.ece, fitted.ece_uncalibrated, fitted.abstained),
        ("test", fitted.test_images, fitted.test_ece, fitted.test_ece_uncalibrated, fitted.test_abstained),
    ]
    shown = table(
        ("images of", "n", "expected calibration error", "without calibration", "abstained"),
        ((name, _count(n), *map(_percent, shares)) for name, n, *shares in rows if n),
    )
    limits = " or ".join(_limits(fitted))
    abstains = f"It abstains {limits}." if limits else "It never abstains."
    scaled = f"Outputs are divided by a temperature of {fitted.temperature:.4g}, fitted on validation."
    return "\n\n".join((scaled, shown, abstains))


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.2f} %"


def _limits(fitted: Calibration) -> Iterator[str]:
    if fitted.novelty_limit is not None:
        yield f"where an image's novelty exceeds {fitted.novelty_limit:.4g}"
    if fitted.confidence_limit:
        yield f"where no class is as likely as {_percent(fitted.confidence_limit)}"


def _size(subject: Subject) -> str:
    seconds = subject.version.latency_seconds
    latency = "not measured" if seconds is None else f"{1e3 * seconds:.3g} ms (median, one image, one core)"
    rows = {
        "weights": f"{subject.version.weights:,}",
        "checkpoint": f"{subject.checkpoint.size:,} bytes",
        "ONNX graph": f"{subject.onnx.size:,} bytes",
        "latency": latency,
    }
    return table(("what", "how much"), rows.items())


def _licence(subject: Subject) -> str:
    return f"The data: {_data(subject)}. Chiffre is under Apache-2.0."


def _data(subject: Subject) -> str:
    """What is known of the images, and of who may use them."""
    if subject.registered is not None:
        return text(subject.registered.description)
    if subject.uploaded is None:
        return "a data set that this release does not have; ask who registered it"
    said = text(subject.uploaded.description).removesuffix(".")
    return said or f"{code(subject.version.dataset)}, of which nothing was said when it was uploaded; ask who did"
