"""Transfer: the version that a job's trials begin with, fixed when the job is posted."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import select
from sqlmodel import Session, col

from ml.artifacts import checkpoint_of
from ml.errors import CheckpointError, Problem, SpecError, UnknownName
from ml.layers import Layer, Shape
from ml.network.transfer import fresh, place_of, weight_shapes
from ml.networks import networks
from ml.specs import InitFrom, Spec, TrainSpec, TuneSpec
from worker.artifacts.store import Store
from worker.database.engine import Database
from worker.database.tables import Artifact, Job, ModelVersion
from worker.errors import NotFound
from worker.ledger.champions import find_version
from worker.ledger.job_spec import spec_of


def resolved(session: Session, spec: TrainSpec | TuneSpec) -> TrainSpec | TuneSpec:
    """Return a specification with the SHA-256 of the weights that its trials begin with.

    Frozen layers must have the version's shapes in every trial, so that all lanes of a pack freeze the same layers.

    Raises:
        SpecError: if there is no such version, if trials cannot begin with its weights, or if it was trained on images
            that would judge this job.
    """
    if spec.init_from is None:
        return spec
    asked = spec.init_from
    if asked.model not in networks:
        raise _problem(str(UnknownName(networks.noun, networks)), "model")
    try:
        version = find_version(session, asked.model, asked.version)
    except NotFound as error:
        raise _problem(f"{error}; choose a published one", "version") from None
    sha256 = session.get_one(Artifact, version.checkpoint_id).sha256
    if asked.checkpoint_sha256 not in (None, sha256):
        raise _problem(
            "the weights of this version have another SHA-256; leave it out, or name the version that has it",
            "checkpoint_sha256",
        )
    _check(spec, asked, _shapes(version))
    _check_unseen(session, spec, version)
    return spec.model_copy(update={"init_from": asked.model_copy(update={"checkpoint_sha256": sha256})})


def fresh_of(session: Session, spec: Spec, params: dict[str, Any]) -> list[str] | None:
    """Return the names of the weights that a trial does not take from a version; None if it begins with no version."""
    if spec.init_from is None:
        return None
    version = find_version(session, spec.init_from.model, spec.init_from.version)
    return fresh(spec.layers(spec.network.params.model_validate(params)), _shapes(version))


def initial_weights(database: Database, store: Store, init_from: InitFrom) -> dict[str, Any]:
    """Return the weights that trials begin with, as numpy arrays by torch's names.

    Raises:
        CheckpointError: if they are missing or damaged.
    """
    of_version = (col(Artifact.kind) == "checkpoint", col(Artifact.sha256) == init_from.checkpoint_sha256)
    with database.reading() as session:
        file = session.scalars(select(Artifact).where(*of_version)).first()
    if file is None:
        raise CheckpointError(
            "the weights that trials begin with are no longer stored; post the job again with another version"
        )
    return checkpoint_of(store.read(file.path, file.sha256), file.path).weights


def _check(spec: TrainSpec | TuneSpec, asked: InitFrom, given: dict[str, Shape]) -> None:
    """Check that every trial can begin with weights of these shapes.

    Raises:
        SpecError: if a frozen layer may have other shapes, or if no layer takes any weight over.
    """
    found = False
    for layers in _extremes(spec):
        new = {place_of(name) for name in fresh(layers, given)}
        try:
            frozen = asked.frozen(layers)
        except ValueError as error:
            raise _problem(str(error), "freeze") from None
        if frozen & new:
            detail = f"layer {min(frozen & new)} has other shapes than the version's in at least one possible trial; "
            raise _problem(f"{detail}give it the version's shapes, or do not freeze it", "freeze")
        found = found or len(new) < len({place_of(name) for name in weight_shapes(layers)})
    if not found:
        raise _problem(
            "no layer has the shape of the version's layer in the same place; name a version with such a layer"
        )


def _check_unseen(session: Session, spec: TrainSpec | TuneSpec, version: ModelVersion) -> None:
    """Check that neither the version nor one that it began with was trained on images that judge this job.

    Raises:
        SpecError: if one was.
    """
    for ancestor, trained in ancestry(session, version):
        if ancestor.dataset_sha256 != spec.dataset.sha256:
            continue
        if (trained.split, trained.seed) != (spec.split, spec.seed):
            same = f'give the "split": "{trained.split}" and "seed": {trained.seed} of its job'
            detail = f"{ancestor.model} {ancestor.version} was trained on images that would judge this job; {same}"
            raise _problem(detail, "version")
        if isinstance(spec, TuneSpec) and spec.run_off is not None:
            detail = "its data splits would judge by images that the version was trained on; leave the run-off out"
            raise SpecError([Problem(("run_off",), detail)])


def ancestry(session: Session, version: ModelVersion) -> Iterator[tuple[ModelVersion, TrainSpec | TuneSpec]]:
    """Yield a version and those that it began with, each with the specification of its job."""
    while True:
        spec = spec_of(session, session.get_one(Job, version.job_id))
        yield version, spec
        if spec.init_from is None:
            return
        version = find_version(session, spec.init_from.model, spec.init_from.version)


def _extremes(spec: TrainSpec | TuneSpec) -> Iterator[list[Layer]]:
    """Yield the layers of trials at the corners of the search space."""
    if isinstance(spec, TrainSpec):
        yield spec.layers(spec.network.params.model_validate(spec.params))
        return
    corners = {name: list(dimension.corners()) for name, dimension in spec.search_space.items()}
    first = {name: values[0] for name, values in corners.items()}
    for name, values in corners.items():
        for value in values:
            yield spec.layers(spec.network.params.model_validate({**first, name: value}))


def _shapes(version: ModelVersion) -> dict[str, Shape]:
    """Return the shapes of a version's weights."""
    network = networks[version.model]
    params = network.params.model_validate(version.params)
    return weight_shapes(network.layers(tuple(version.shape), len(version.classes), params))


def _problem(detail: str, *field: str) -> SpecError:
    return SpecError([Problem(("init_from", *field), detail)])
