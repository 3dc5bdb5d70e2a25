"""Serving: the champions in memory, each an immutable object, replaced aside and all at once."""

from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread
from types import MappingProxyType

import numpy as np
import structlog
from sqlalchemy import select
from sqlmodel import col

from ml.artifacts import read
from ml.errors import ChiffreError
from ml.predict import Predictor
from worker.db import Database
from worker.tables import Artifact, Champion, ModelVersion

REFRESH_SECONDS = 1.0  # how long a new champion may wait until it answers

log = structlog.get_logger()


@dataclass(frozen=True)
class Served:
    """A version that answers, and whose answer it is."""

    predictor: Predictor
    version: ModelVersion
    checkpoint_sha256: str


class Roster:
    """Who answers for each network and data set."""

    def __init__(self, database: Database, artifacts: Path) -> None:
        self.database = database
        self.artifacts = artifacts
        self.served: MappingProxyType[tuple[str, str], Served] = MappingProxyType({})
        self._refreshing = Lock()
        self._closing = Event()
        self._follower: Thread | None = None

    def start(self) -> None:
        """Load the champions, and follow them from now on."""
        self._follower = Thread(target=self._follow, name="roster", daemon=True)
        self._follower.start()

    def close(self) -> None:
        """Stop following."""
        self._closing.set()
        if self._follower is not None:
            self._follower.join()

    def find(self, model: str | None, dataset: str) -> Served | None:
        """Who answers for a network and data set, for the best network where none is named; None where nobody does."""
        found = self._look(model, dataset)
        if found is None:  # a first version may have been published a moment ago
            self.refresh()
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
        if serving is not None and serving.version.id == version.id:
            return serving
        try:
            predictor = Predictor(
                read(self.artifacts / onnx.path, onnx.sha256), tuple(version.shape), tuple(version.classes)
            )
            _self_test(predictor)
        except ChiffreError as error:
            log.error("a champion does not load", model=version.model, version=version.version, error=str(error))
            return serving
        return Served(predictor, version, checkpoint.sha256)

    def _follow(self) -> None:
        while not self._closing.is_set():
            try:
                self.refresh()
            except Exception as error:  # the boundary of a thread: the database may be away; what is loaded goes on
                log.warning("could not look for champions", error=str(error))
            self._closing.wait(REFRESH_SECONDS)


def _self_test(predictor: Predictor) -> None:
    """Answer once for a blank image: the first answer is the slow one, and it must make sense."""
    probabilities = predictor.probabilities(np.zeros((1, *predictor.shape), np.float32))
    if probabilities.shape != (1, len(predictor.classes)) or not np.isfinite(probabilities).all():
        raise ChiffreError(f"the graph answers {probabilities.shape} for {len(predictor.classes)} classes")
