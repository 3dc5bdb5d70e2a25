"""Model cards as Markdown: a version's intended use, lineage, results, and how to load it.

After Mitchell et al., Model Cards for Model Reporting (2019). A card depends on rows that never change, so a version
always has the same card.
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
from worker.uploaded_datasets import uploaded_version

NOTHING = "–"


@dataclass(frozen=True)
class Subject:
    """A version and the rows that its card is made from."""

    version: ModelVersion
    checkpoint: Artifact
    onnx: Artifact
    dataset: UsedDataset
    limit: int | None  # on the number of training and validation images
    opening: int | None  # number of openings of these test images up to and including the version's own
    run_off: bool = False  # true if the version won a run-off
    transferred: str | None = None  # the version that its first weights came from, as Markdown; None if fresh
    uploaded: DatasetVersion | None = None  # the uploaded data set; None for a built-in one

    @property
    def registered(self) -> Dataset | None:
        """The data set in this release; None if the release has no data set with the same images."""
        return next((d for d in datasets.values() if d.sha256 == self.version.dataset_sha256), None)

    @property
    def split_sizes(self) -> tuple[int, int, int] | None:
        """Numbers of training, validation and test images; None if the split is unknown in this release."""
        official_test = self.registered.official_test if self.registered else None
        try:
            split = cast("SplitName", self.version.split)
            train, validation, test = split_sizes(self.dataset.images, official_test, split)
        except ValueError:
            return None
        return (*limited(train, validation, self.limit), test)


def card_of(session: Session, version: ModelVersion) -> str:
    """Return a version's card as Markdown."""
    checkpoint, onnx = (session.get_one(Artifact, found) for found in (version.checkpoint_id, version.onnx_id))
    dataset = session.get_one(UsedDataset, version.dataset_sha256)
    limit = session.get_one(Job, version.job_id).spec.get("images")
    opening, transferred = _opening(session, version), _transferred(session, version)
    decided = session.get(RunOff, (version.job_id, version.run))
    won = decided is not None and decided.winner == version.trial
    uploaded = uploaded_version(session, version.dataset)
    return card(Subject(version, checkpoint, onnx, dataset, limit, opening, won, transferred, uploaded))


def card(subject: Subject) -> str:
    """Return a card as Markdown."""
    sections = {
        "Intended use": _use(subject),
        "Lineage": _lineage(subject),
        "Hyper-parameters": _params(subject),
        "Results": _results(subject),
        "Calibration": _calibration(subject),
        "Size and speed": _size(subject),
        "Loading it": loading(subject.version, subject.checkpoint, subject.onnx),
        "Data and licence": _licence(subject),
    }
    texts = [_title(subject), *(f"## {heading}\n\n{body}" for heading, body in sections.items())]
    return "\n\n".join(texts) + "\n"


def _transferred(session: Session, version: ModelVersion) -> str | None:
    spec = spec_of(session, session.get_one(Job, version.job_id))
    if spec.init_from is None:
        return None
    source = spec.init_from
    fresh = ", ".join(map(code, fresh_of(session, spec, version.params) or [])) or "none"
    frozen = source.frozen(spec.layers(spec.network.params.model_validate(version.params)))
    kept = f"{len(frozen)} layers frozen, fresh weights: {fresh}"
    return f"{code(source.model)} version {source.version}, SHA-256 `{source.checkpoint_sha256}`; {kept}"


def _opening(session: Session, version: ModelVersion) -> int | None:
    # A predict job that uses test images is another opening, which names the version too.
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
        f"An image classifier that Chiffre trained on {code(version.dataset)}. {described}It takes images of "
        f"{channels} × {height} × {width} (channels, height, width) and assigns each to one of "
        f"{len(version.classes)} classes: {', '.join(map(code, version.classes))}."
    )


def _use(subject: Subject) -> str:
    name = code(subject.version.dataset)
    return (
        f"For images like those of {name}: with the same size, grey levels and framing. It was measured on images of "
        f"{name} only; its accuracy on other pens, scans or photographs is unknown. It assigns every image to one of "
        "its classes, even an image that shows none of them. If a mistake is costly, let a person check the answer."
    )


def _lineage(subject: Subject) -> str:
    version, sizes = subject.version, subject.split_sizes
    images = "" if sizes is None else f": {sizes[0]:,} train, {sizes[1]:,} validation, {sizes[2]:,} test images"
    created = to_datetime(version.created_at)
    rows = {
        "published": f"{created:%Y-%m-%d %H:%M:%S} UTC",
        "job": f"{code(version.job_id)}, run {version.run}, trial {version.trial}",
        "data set": f"{code(version.dataset)}, {subject.dataset.images:,} images, SHA-256 `{version.dataset_sha256}`",
        "split": code(version.split) + images,
        **({} if subject.transferred is None else {"initial weights": subject.transferred}),
        "chosen by": f"{'a run-off of the best trials, ' if subject.run_off else ''}"
        f"{code(version.objective)} = {version.value!r} on validation",
        "checkpoint": f"SHA-256 `{subject.checkpoint.sha256}`",
        "ONNX graph": f"SHA-256 `{subject.onnx.sha256}`",
        "code": f"Chiffre {code(version.code_version)}",
    }
    return table(("item", "value"), rows.items())


def _params(subject: Subject) -> str:
    return table(("name", "value"), ((code(name), code(_shown(v))) for name, v in subject.version.params.items()))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _results(subject: Subject) -> str:
    version = subject.version
    _, n_validation, n_test = subject.split_sizes or (0, None, None)
    rows = [
        (
            "validation",
            _count(n_validation),
            *_share(version.val_accuracy, n_validation)[:1],
            NOTHING,
            _loss(version.val_loss),
        ),
    ]
    if version.test_accuracy is not None:
        rows.append(("test", _count(n_test), *_share(version.test_accuracy, n_test), _loss(version.test_loss)))
    shown = table(("images", "n", "accuracy", "95 % interval (Wilson)", "loss"), rows)
    return (
        f"{shown}\n\nValidation images were used for selection, so their figures are optimistic; no interval given. "
        f"All jobs on a data set and split share the same test images. {_opened(subject)}The more often a test set is "
        "used, the more likely a difference between versions is chance."
    )


def _opened(subject: Subject) -> str:
    if subject.version.test_accuracy is None:
        return "They were not opened for this version, because it is not its job's winner. "
    if subject.opening is None:
        return ""
    first = "This was the first use of this test set. "
    return first if subject.opening == 1 else f"This was opening {subject.opening:,} of this test set. "


def _share(accuracy: float, n: int | None) -> tuple[str, str]:
    """Return an accuracy with the count of correct images, and its 95 % interval; without both if n is unknown."""
    percent = f"{100 * accuracy:.2f} %"
    if n is None:
        return percent, "not computed: n is unknown"
    correct = round(accuracy * n)
    low, high = wilson(correct, n)
    return f"{percent} ({correct:,} of {n:,})", f"{100 * low:.2f} % to {100 * high:.2f} %"


def _count(n: int | None) -> str:
    return NOTHING if n is None else f"{n:,}"


def _loss(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4g}"


def _calibration(subject: Subject) -> str:
    if not subject.version.calibration:
        return "Not calibrated: the probabilities are the network's own and may be overconfident."
    fitted = Calibration(**subject.version.calibration)
    rows = [
        ("validation", fitted.images, fitted.ece, fitted.ece_uncalibrated, fitted.abstained),
        ("test", fitted.test_images, fitted.test_ece, fitted.test_ece_uncalibrated, fitted.test_abstained),
    ]
    shown = table(
        ("images", "n", "expected calibration error", "without calibration", "abstained"),
        ((name, _count(n), *map(_percent, shares)) for name, n, *shares in rows if n),
    )
    limits = " or ".join(_limits(fitted))
    abstains = f"It abstains {limits}." if limits else "It never abstains."
    scaled = f"Outputs are divided by a temperature of {fitted.temperature:.4g}, fitted on validation images."
    return "\n\n".join((scaled, shown, abstains))


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.2f} %"


def _limits(fitted: Calibration) -> Iterator[str]:
    if fitted.novelty_limit is not None:
        yield f"if an image's novelty exceeds {fitted.novelty_limit:.4g}"
    if fitted.confidence_limit:
        yield f"if its confidence is below {_percent(fitted.confidence_limit)}"


def _size(subject: Subject) -> str:
    seconds = subject.version.latency_seconds
    latency = "not measured" if seconds is None else f"{1e3 * seconds:.3g} ms (median, one image, one core)"
    rows = {
        "weights": f"{subject.version.weights:,}",
        "checkpoint": f"{subject.checkpoint.size:,} bytes",
        "ONNX graph": f"{subject.onnx.size:,} bytes",
        "latency": latency,
    }
    return table(("item", "value"), rows.items())


def _licence(subject: Subject) -> str:
    return f"The data: {_data(subject)}. Chiffre is under Apache-2.0."


def _data(subject: Subject) -> str:
    """Return the description of the images and of their licence."""
    if subject.registered is not None:
        return text(subject.registered.description)
    if subject.uploaded is None:
        return "a data set that this release does not have; ask its owner"
    described = text(subject.uploaded.description).removesuffix(".")
    return described or f"{code(subject.version.dataset)}, uploaded without a description; ask its owner"
