"""Serving: the champions in memory, each an immutable object, replaced aside and all at once.

One thread follows the database and loads what is new. A request never loads anything itself: storage that does not
answer would keep it waiting, and with it those that need no storage.
"""

from dataclasses import dataclass
from threading import Condition, Lock, Thread
from time import monotonic
from types import MappingProxyType

import numpy as np
import structlog
from sqlalchemy import select
from sqlmodel import col

from ml.errors import ChiffreError
from ml.predict import Predictor
from worker.db import Database
from worker.errors import StorageAway
from worker.store import Store
from worker.tables import Artifact, Champion, ModelVersion

REFRESH_SECONDS = 1.0  # how long a new champion may wait until it answers
PATIENCE_SECONDS = 2.0  # how long a request waits for a first version to be loaded
AWAY_SECONDS, DAMAGED_SECONDS = 5.0, 60.0  # until a version that did not load is tried again
CLOSE_SECONDS = 3.0  # how long the end of the process waits for what is being loaded

log = structlog.get_logger()


@dataclass(frozen=True)
class Served:
    """A version that answers, and whose answer it is."""

    predictor: Predictor
    version: ModelVersion
    checkpoint_sha256: str


class Roster:
    """Who answers for each network and data set."""

    def __init__(self, database: Database, store: Store) -> None:
        self.database = database
        self.store = store
        self.served: MappingProxyType[tuple[str, str], Served] = MappingProxyType({})
        self._refreshing = Lock()
        self._postponed: dict[int | None, float] = {}  # versions that did not load, and when to try them again
        self._turn = Condition()  # guards the three below
        self._asked = 0  # how often a request found that something is to be loaded
        self._looked = 0  # up to which of those the follower has looked
        self._closing = False
        self._follower: Thread | None = None

    def start(self) -> None:
        """Load the champions, and follow them from now on."""
        self._follower = Thread(target=self._follow, name="roster", daemon=True)
        self._follower.start()

    def close(self) -> None:
        """Stop following."""
        with self._turn:
            self._closing = True
            self._turn.notify_all()
        if self._follower is not None:
            self._follower.join(CLOSE_SECONDS)

    def find(self, model: str | None, dataset: str) -> Served | None:
        """Who answers for a network and data set, for the best network where none is named; None where nobody does."""
        found = self._look(model, dataset)
        if found is None and self._is_behind():  # a first version may have been published a moment ago
            self._await_follower()
            found = self._look(model, dataset)
        return found

    def refresh(self) -> None:
        """Load what is new, then let it answer; a version that does not load leaves the old one answering."""
        with self._refreshing:
            self.served = MappingProxyType(
                {(v.model, v.dataset): served for v, *files in self._champions() if (served := self._load(v, *files))}
            )

    def _look(self, model: str | None, dataset: str) -> Served | None:
        served = self.served
        if model is not None:
            return served.get((model, dataset))
        candidates = [s for (_, trained_on), s in served.items() if trained_on == dataset]
        return max(candidates, key=lambda s: (s.version.val_accuracy, -s.version.weights), default=None)

    def _is_behind(self) -> bool:
        """Whether there are champions that the follower is yet to load."""
        served = {s.version.id for s in self.served.values()}
        return any(v.id not in served and not self._is_postponed(v) for v, *_ in self._champions())

    def _await_follower(self) -> None:
        with self._turn:
            self._asked += 1
            mine = self._asked
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._looked >= mine, PATIENCE_SECONDS)

    def _is_postponed(self, version: ModelVersion) -> bool:
        return monotonic() < self._postponed.get(version.id, 0)

    def _champions(self) -> list[tuple[ModelVersion, Artifact, Artifact]]:
        with self.database.reading() as session:
            versions = session.scalars(
                select(ModelVersion).join(Champion, col(Champion.version_id) == ModelVersion.id)
            ).all()
            return [
                (v, session.get_one(Artifact, v.onnx_id), session.get_one(Artifact, v.checkpoint_id)) for v in versions
            ]

    def _load(self, version: ModelVersion, onnx: Artifact, checkpoint: Artifact) -> Served | None:
        serving = self.served.get((version.model, version.dataset))
        if (serving is not None and serving.version.id == version.id) or self._is_postponed(version):
            return serving
        try:
            graph = self.store.read(onnx.path, onnx.sha256)
            predictor = Predictor(graph, tuple(version.shape), tuple(version.classes))
            _self_test(predictor)
        except ChiffreError as error:
            self._postpone(version, error)
            return serving
        return Served(predictor, version, checkpoint.sha256)

    def _postpone(self, version: ModelVersion, error: ChiffreError) -> None:
        """Leave a version that does not load alone for a while: it would be read, and logged, every second."""
        seconds = AWAY_SECONDS if isinstance(error, StorageAway) else DAMAGED_SECONDS
        self._postponed[version.id] = monotonic() + seconds
        log.error("a champion does not load", model=version.model, version=version.version, error=str(error))

    def _follow(self) -> None:
        while not self._closing:
            asked = self._asked
            try:
                self.refresh()
            except Exception as error:  # the boundary of a thread: the database may be away; what is loaded goes on
                log.warning("could not look for champions", error=str(error))
            self._pause(asked)

    def _pause(self, looked: int) -> None:
        """Tell those who wait, then wait for the next who asks, or a while."""
        with self._turn:
            self._looked = looked
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._closing or self._asked > looked, REFRESH_SECONDS)


def _self_test(predictor: Predictor) -> None:
    """Answer once for a blank image: the first answer is the slow one, and it must make sense."""
    probabilities = predictor.probabilities(np.zeros((1, *predictor.shape), np.float32))
    if probabilities.shape != (1, len(predictor.classes)) or not np.isfinite(probabilities).all():
        raise ChiffreError(f"the graph answers {probabilities.shape} for {len(predictor.classes)} classes")
