"""Which version answers whoever prefers a fast one: `fastest-within:0.2`."""

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
KEPT = 16  # preferences that are followed, the last that were asked for
IDLE_SECONDS = 600.0  # without a question until a preference is not followed any more


@dataclass(frozen=True)
class Preference:
    """The fastest version of a network, or of any, that is nearly as accurate as the best."""

    model: str | None
    dataset: str
    within: float  # percentage points of accuracy on validation

    @classmethod
    def of(cls, options: Options) -> "Preference":
        """The preference of a question that has one."""
        return cls(options.model, options.dataset, options.within or 0.0)

    def ranked(self, versions: Iterable[ModelVersion], champion: ModelVersion) -> list[ModelVersion]:
        """The versions that may answer, the fastest first; of equals the more accurate.

        Only those are compared whose accuracy was measured on as many images as the champion's, of the same data and
        split; which of them validate is of a job's seed. One whose latency was never measured is left out.
        """
        fit = [v for v in versions if self.model in (None, v.model) and _comparable(v, champion)]
        like = [v for v in fit if v.latency_seconds is not None]
        best = max((version.val_accuracy for version in like), default=0.0)
        # Percentages of images are no round numbers: a version that is exactly so far away is within.
        near = [v for v in like if 100 * (best - v.val_accuracy) <= self.within + 1e-9]
        return sorted(near, key=lambda v: (v.latency_seconds or 0.0, -v.val_accuracy, v.id or 0))


class Preferences:
    """The preferences that were asked for of late, and who answers them; the roster's follower keeps that true."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.served: MappingProxyType[Preference, Served] = MappingProxyType({})
        self._lock = Lock()
        self._asked: dict[Preference, float] = {}  # when, by monotonic

    def look(self, options: Options) -> Served | None:
        """Who answers; None where nobody has asked for that of late."""
        preference = Preference.of(options)
        if (served := self.served.get(preference)) is not None:
            self._asked[preference] = monotonic()
        return served

    def ask(self, options: Options) -> None:
        """Have a preference followed from now on."""
        preference = Preference.of(options)
        with self._lock:
            self._asked.pop(preference, None)
            self._asked = dict([*self._asked.items(), (preference, monotonic())][-KEPT:])

    def refresh(self, champions: Champions, load: Callable[[Files], Served | None]) -> None:
        """Load what is preferred by now, then let it answer; `load` gives None for what cannot be loaded."""
        with self._lock:
            earliest = monotonic() - IDLE_SECONDS
            self._asked = {preference: at for preference, at in list(self._asked.items()) if at > earliest}
            wanted = list(self._asked)
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
        """Every version, its graph and its checkpoint, by id; and how many images its job trained and validated on."""
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


def _comparable(one: ModelVersion, other: ModelVersion) -> bool:
    # The champion's data set, as an uploaded one may be asked for without its version.
    return all(getattr(one, name) == getattr(other, name) for name in ("dataset", "dataset_sha256", "split"))
