"""Requests that prefer a fast version over the champion: `fastest-within:0.2`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from types import MappingProxyType

from sqlalchemy import select
from sqlalchemy.orm import aliased
from sqlmodel import col

from api.inputs.options import Options
from api.prediction.served import Files, Served
from worker.database.engine import Database
from worker.database.tables import Artifact, Job, ModelVersion

Champions = Mapping[tuple[str | None, str], Served]  # by network and data set, as Roster has them
KEPT = 16  # preferences that are followed: those requested last
IDLE_SECONDS = 600.0  # without a request until a preference is no longer followed


@dataclass(frozen=True)
class Preference:
    """A wish for the fastest version of a network, or of any, that is nearly as accurate as the best."""

    model: str | None
    dataset: str
    within: float  # percentage points of accuracy on validation

    @classmethod
    def of(cls, options: Options) -> "Preference":
        """Return the preference of a request that has one."""
        return cls(options.model, options.dataset, options.within or 0.0)

    def ranked(self, versions: Iterable[ModelVersion], champion: ModelVersion) -> list[ModelVersion]:
        """Return the versions that fit, the fastest first; among equals, the more accurate.

        Versions are compared only if they were trained on the champion's data and split, and validated on as many
        images; which images those are depends on a job's seed. A version without a measured latency is left out.
        """
        fit = [v for v in versions if self.model in (None, v.model) and _comparable(v, champion)]
        like = [v for v in fit if v.latency_seconds is not None]
        best = max((version.val_accuracy for version in like), default=0.0)
        # Percentages are not exact in floating point: a version exactly at the limit is within it.
        near = [v for v in like if 100 * (best - v.val_accuracy) <= self.within + 1e-9]
        return sorted(near, key=lambda v: (v.latency_seconds or 0.0, -v.val_accuracy, v.id or 0))


class Preferences:
    """The preferences of recent requests and the versions for them, which the roster's thread keeps up to date."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.served: MappingProxyType[Preference, Served] = MappingProxyType({})
        self._lock = Lock()
        self._last_used: dict[Preference, float] = {}  # by monotonic

    def in_memory(self, options: Options) -> Served | None:
        """Return the version for a preference; None if the preference is not followed yet."""
        preference = Preference.of(options)
        if (served := self.served.get(preference)) is not None:
            self._last_used[preference] = monotonic()
        return served

    def follow(self, options: Options) -> None:
        """Follow a preference from now on."""
        preference = Preference.of(options)
        with self._lock:
            self._last_used.pop(preference, None)
            self._last_used = dict([*self._last_used.items(), (preference, monotonic())][-KEPT:])

    def refresh(self, champions: Champions, load: Callable[[Files], Served | None]) -> None:
        """Load the preferred versions, then put them in place; `load` returns None if a version fails to load."""
        with self._lock:
            earliest = monotonic() - IDLE_SECONDS
            self._last_used = {preference: at for preference, at in list(self._last_used.items()) if at > earliest}
            wanted = list(self._last_used)
        files, limits = self._files() if wanted else ({}, {})
        known = {served.version.id: served for served in [*self.served.values(), *champions.values()]}
        found: dict[Preference, Served] = {}
        for preference in wanted:
            champion = champions.get((preference.model, preference.dataset))
            ranked = []
            if champion is not None:
                limit = limits.get(champion.version.id)
                alike = [version for id_, (version, *_) in files.items() if limits[id_] == limit]
                ranked = preference.ranked(alike, champion.version)
            fastest = next(filter(None, (known.get(v.id) or load(files[v.id]) for v in ranked)), None)
            if fastest is not None:
                found[preference] = known[fastest.version.id] = fastest
        self.served = MappingProxyType(found)

    def _files(self) -> tuple[dict[int | None, Files], dict[int | None, int | None]]:
        """Return by id every version with its graph and checkpoint, and the limit of its job on images."""
        onnx, checkpoint = aliased(Artifact), aliased(Artifact)
        query = (
            select(ModelVersion, onnx, checkpoint, col(Job.spec))
            .join(onnx, col(onnx.id) == ModelVersion.onnx_id)
            .join(checkpoint, col(checkpoint.id) == ModelVersion.checkpoint_id)
            .join(Job, col(Job.id) == ModelVersion.job_id)
        )
        with self.database.reading() as session:
            rows = session.execute(query).all()
        files = {version.id: (version, graph, weights) for version, graph, weights, _ in rows}
        return files, {version.id: spec.get("images") for version, _, _, spec in rows}


def _comparable(version: ModelVersion, champion: ModelVersion) -> bool:
    # Of the champion's data set: a request may name an uploaded one without its version.
    return all(getattr(version, name) == getattr(champion, name) for name in ("dataset", "dataset_sha256", "split"))
