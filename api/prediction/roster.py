"""Serving: the versions in memory, each an immutable object, replaced aside and all at once.

One thread follows the database and loads the champions that are new. A request never loads one itself: storage that
does not answer would keep it waiting, and with it those that need no storage. Other versions are loaded when asked for.
"""

import asyncio
from concurrent.futures import Executor
from math import inf
from threading import Condition, Lock, Thread
from time import monotonic
from types import MappingProxyType

import structlog
from sqlalchemy import select
from sqlmodel import Session, col

from api.http.errors import BadInput, NotLoaded
from api.inputs.options import Options
from api.prediction.metrics import count
from api.prediction.preferences import Preferences
from api.prediction.queue_limit import QueueLimit
from api.prediction.served import Files, Served, load
from ml.datasets import datasets, is_called, version_of
from ml.errors import ChiffreError, UnknownName
from worker.artifacts.store import Store
from worker.database.engine import Database
from worker.database.tables import Artifact, Champion, ModelVersion
from worker.errors import Fact, NotFound, StorageAway
from worker.ledger.champions import earlier_champions, limits

REFRESH_SECONDS = 1.0  # how long a new champion may wait until it answers
PATIENCE_SECONDS = 2.0  # how long a request waits for a first version to be loaded
AWAY_SECONDS, DAMAGED_SECONDS = 5.0, 60.0  # until a version that did not load is tried again
CLOSE_SECONDS = 3.0  # how long the end of the process waits for what is being loaded
EARLIER = 4  # champions before one that does not load that are tried in its place: each may take a while to fail
KEPT = 8  # versions in memory that are no champions, the last that were asked for

log = structlog.get_logger()


class Roster:
    """Who answers for each network and data set."""

    def __init__(self, database: Database, store: Store, executor: Executor) -> None:
        self.database = database
        self.store = store
        self.executor = executor  # where long batches run
        self.queue = QueueLimit()
        # By network and data set; by None and data set the best of all networks.
        self.served: MappingProxyType[tuple[str | None, str], Served] = MappingProxyType({})
        self.preferences = Preferences(database)
        self._others: dict[tuple[str, int], Served] = {}  # by network and version
        self._refreshing, self._keeping = Lock(), Lock()
        self._fetching: dict[int | None, Lock] = {}  # by id of version: each is loaded once, however many ask for it
        self._postponed: dict[int | None, tuple[float, str]] = {}  # what did not load: when to try again, and why
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

    def look(self, options: Options) -> Served | None:
        """Who answers, of those in memory; None where that must be looked for."""
        if options.prefer is not None:
            return self.preferences.look(options)
        if options.version is None:
            return self.served.get((options.model, options.dataset))
        served = self._others.get((str(options.model), options.version))
        return served if served is not None and _was_asked_for(served, options) else None

    def find(self, options: Options) -> Served:
        """Who answers, loaded if need be; NotFound where nobody does, NotLoaded where somebody should."""
        if options.version is not None:
            return self._other(options)
        if options.prefer is not None:
            return self._prefer(options)
        found = self.look(options)
        if found is None and self._is_behind():  # a first version may have been published a moment ago
            self.catch_up()
            found = self.look(options)
        if found is None:
            raise self._nobody(options)
        return found

    def answers(self) -> bool:
        """Whether any version answers; one that was published a moment ago is waited for."""
        if not self.served and self._is_behind():
            self.catch_up()
        return bool(self.served)

    async def served_for(self, options: Options) -> Served:
        """The same, without keeping the event loop."""
        served = self.look(options)
        return served if served is not None else await asyncio.to_thread(self.find, options)

    def catch_up(self) -> None:
        """Wait until the follower has looked once more, or a while."""
        with self._turn:
            self._asked += 1
            mine = self._asked
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._looked >= mine, PATIENCE_SECONDS)

    def refresh(self) -> None:
        """Load what is new, then let it answer; a version that does not load leaves the old one answering."""
        with self._refreshing:
            champions = [served for files in self._champions() if (served := self._champion(files)) is not None]
            self.served = MappingProxyType(_by_key(champions, self._limits(champions)))
            self.preferences.refresh(self.served, self._loaded)

    def champions(self) -> list[Served]:
        """All that answer without being named by number."""
        return [s for (model, name), s in self.served.items() if model is not None and name == s.version.dataset]

    def failing(self) -> dict[str, str]:
        """Why champions do not answer, by "network/data set"; others go on in their place."""
        found = [(v, self._postponed.get(v.id)) for v, *_ in self._champions()]  # the follower changes it meanwhile
        return {f"{v.model}/{v.dataset}": f"version {v.version}: {why[1]}" for v, why in found if why is not None}

    def _prefer(self, options: Options) -> Served:
        """The version that is preferred, loaded by the follower; the champion where no latency was measured."""
        self.preferences.ask(options)
        if self.preferences.look(options) is None:
            self.catch_up()
        return self.preferences.look(options) or self.find(options.changed({"prefer": None}))

    def _is_behind(self) -> bool:
        """Whether there are champions that the follower is yet to load."""
        served = {s.version.id for s in self.champions()}
        return any(v.id not in served and not self._is_postponed(v) for v, *_ in self._champions())

    def _is_postponed(self, version: ModelVersion) -> bool:
        return monotonic() < self._postponed.get(version.id, (0.0, ""))[0]

    def _nobody(self, options: Options) -> ChiffreError:
        """Why there is no champion: none was published, or it cannot be loaded."""
        if options.dataset not in datasets:
            return BadInput("?dataset", str(UnknownName(datasets.noun, datasets)))
        for name, why in self.failing().items():
            model, dataset = name.split("/")
            if is_called(dataset, options.dataset) and options.model in (None, model):
                return NotLoaded(f"the champion of {model} on {dataset} cannot be loaded just now; {why}")
        whose = options.model or "any network"
        return NotFound(f"no version of {whose} trained on {options.dataset} is published", Fact.NOTHING_PUBLISHED)

    def _champions(self) -> list[Files]:
        with self.database.reading() as session:
            query = select(ModelVersion).join(Champion, col(Champion.version_id) == ModelVersion.id)
            return [_files(session, version) for version in session.scalars(query).all()]

    def _limits(self, champions: list[Served]) -> dict[int | None, int | None]:
        with self.database.reading() as session:
            return limits(session, [served.version for served in champions])

    def _champion(self, files: Files) -> Served | None:
        version, *_ = files
        serving = self.served.get((version.model, version.dataset))
        if serving is not None and serving.version.id == version.id:
            return serving
        return self._loaded(files) or serving or self._earlier(version)

    def _earlier(self, champion: ModelVersion) -> Served | None:
        """The newest champion before one that does not load: after a restart it answers too, as it did before."""
        with self.database.reading() as session:
            earlier = [_files(session, version) for version in earlier_champions(session, champion)[:EARLIER]]
        return next(filter(None, map(self._loaded, earlier)), None)

    def _loaded(self, files: Files) -> Served | None:
        """A version from storage; None where it does not load, or did not a moment ago."""
        version, *_ = files
        if self._is_postponed(version):
            return None
        try:
            loaded = load(*files, self.store, self.queue, self.executor)
        except Exception as error:  # whatever is wrong with one version must not hold up the others
            self._postpone(version, error)
            return None
        self._postponed.pop(version.id, None)
        log.info("a version answers", model=version.model, dataset=version.dataset, version=version.version)
        return loaded

    def _postpone(self, version: ModelVersion, error: Exception) -> None:
        """Leave a version that does not load alone for a while: it would be read, and logged, every second."""
        seconds = AWAY_SECONDS if isinstance(error, StorageAway) else DAMAGED_SECONDS
        self._postponed[version.id] = monotonic() + seconds, str(error)
        log.error("a version does not load", model=version.model, version=version.version, error=str(error))

    def _other(self, options: Options) -> Served:
        """A version that need not be the champion."""
        model, version = str(options.model), options.version or 0
        served = self._in_memory(model, version) or self._fetched(model, version)
        if not _was_asked_for(served, options):
            raise NotFound(f"version {version} of {model} was trained on {served.version.dataset}")
        return served

    def _in_memory(self, model: str, version: int) -> Served | None:
        """A version that was asked for before or is a champion, kept from now on; no storage is waited for."""
        with self._keeping:
            of_champions = (s for s in self.champions() if (s.version.model, s.version.version) == (model, version))
            served = self._others.pop((model, version), None) or next(of_champions, None)
            if served is not None:
                self._keep(served)
            return served

    def _keep(self, served: Served) -> None:
        key = served.version.model, served.version.version
        self._others = dict([*self._others.items(), (key, served)][-KEPT:])

    def _fetched(self, model: str, version: int) -> Served:
        with self.database.reading() as session:
            of_version = (col(ModelVersion.model) == model, col(ModelVersion.version) == version)
            row = session.scalars(select(ModelVersion).where(*of_version)).one_or_none()
            if row is None:
                raise NotFound(f"{model} has no version of this number; GET /models/{model} lists those there are")
            files = _files(session, row)
        with self._fetching.setdefault(row.id, Lock()):
            if (served := self._in_memory(model, version)) is not None:
                return served
            try:
                served = load(*files, self.store, self.queue, self.executor)
            except ChiffreError as error:
                raise NotLoaded(f"version {version} of {model} cannot be loaded just now; {error}") from error
            with self._keeping:
                self._keep(served)
            return served

    def _follow(self) -> None:
        while not self._closing:
            asked = self._asked
            try:
                self.refresh()
            except Exception as error:  # the boundary of a thread: the database may be away; what is loaded goes on
                log.warning("could not look for champions", error=str(error))
            count()  # what was answered since the last look
            self._pause(asked)

    def _pause(self, looked: int) -> None:
        """Tell those who wait, then wait for the next who asks, or a while."""
        with self._turn:
            self._looked = looked
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._closing or self._asked > looked, REFRESH_SECONDS)


def _files(session: Session, version: ModelVersion) -> Files:
    return version, session.get_one(Artifact, version.onnx_id), session.get_one(Artifact, version.checkpoint_id)


def _was_asked_for(served: Served, options: Options) -> bool:
    """Whether a version fits the data set, where one was named."""
    return "dataset" not in options.model_fields_set or is_called(served.version.dataset, options.dataset)


def _by_key(champions: list[Served], limits: dict[int | None, int | None]) -> dict[tuple[str | None, str], Served]:
    """By network and data set; without a network the most accurate on validation, of equals the smallest.

    One whose job was held to a number of images answers for all networks only where every one was, that of the most
    images first: of few images it may have told all right. `limits` has those numbers, by id of version.

    An uploaded data set without its version is the newest that has a champion.
    """
    found: dict[tuple[str | None, str], Served] = {}

    def standing(served: Served) -> tuple[float, ...]:
        version = served.version
        seen = limits.get(version.id) or inf
        return version_of(version.dataset), seen, version.val_accuracy, -version.weights

    for served in sorted(champions, key=standing):
        for name in (served.version.dataset, served.version.dataset.partition("@")[0]):
            found[served.version.model, name] = found[None, name] = served
    return found
