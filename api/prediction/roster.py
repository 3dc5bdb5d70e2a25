"""The versions in memory: each is an immutable object, and all champions are replaced at once.

One thread follows the database and loads new champions. A request never loads a champion itself: if storage did not
answer, the request would wait, and so would others that need no storage. Other versions are loaded on request.
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
from ml.datasets import is_called, version_of
from ml.errors import ChiffreError, UnknownName
from worker.artifacts.store import Store
from worker.database.engine import Database
from worker.database.tables import Artifact, Champion, ModelVersion
from worker.errors import Fact, NotFound, StorageAway
from worker.ledger.champions import earlier_champions, image_limits
from worker.uploaded_datasets import dataset_info

REFRESH_SECONDS = 1.0  # the longest time from promotion until a champion is loaded
PATIENCE_SECONDS = 2.0  # the longest that a request waits for a first version to be loaded
AWAY_SECONDS, DAMAGED_SECONDS = 5.0, 60.0  # until a version that failed to load is tried again
CLOSE_SECONDS = 3.0  # the longest that the end of the process waits for a version being loaded
EARLIER = 4  # earlier champions that are tried if the current one fails to load: each may take a while to fail
KEPT = 8  # versions in memory besides champions: the last that were requested

log = structlog.get_logger()


class Roster:
    """The versions that predict, by network and data set."""

    def __init__(self, database: Database, store: Store, executor: Executor) -> None:
        self.database = database
        self.store = store
        self.executor = executor  # for long batches
        self.queue = QueueLimit()
        # By network and data set; the key (None, data set) holds the best of all networks.
        self.served: MappingProxyType[tuple[str | None, str], Served] = MappingProxyType({})
        self.preferences = Preferences(database)
        self._others: dict[tuple[str, int], Served] = {}  # by network and version
        self._refreshing, self._keeping = Lock(), Lock()
        self._fetching: dict[int | None, Lock] = {}  # by id of version: concurrent requests load it once
        self._postponed: dict[
            int | None, tuple[float, str]
        ] = {}  # by id of a version that failed: the next try, and why
        self._turn = Condition()  # guards the three below
        self._refreshes_wanted = 0  # by requests that found a version to be loaded
        self._refreshes_done = 0  # how many of those the follower has met
        self._closing = False
        self._follower: Thread | None = None

    def start(self) -> None:
        """Start the thread that loads the champions and follows them."""
        self._follower = Thread(target=self._follow, name="roster", daemon=True)
        self._follower.start()

    def close(self) -> None:
        """Stop the thread."""
        with self._turn:
            self._closing = True
            self._turn.notify_all()
        if self._follower is not None:
            self._follower.join(CLOSE_SECONDS)

    def in_memory(self, options: Options) -> Served | None:
        """Return the version for a request if it is in memory."""
        if options.prefer is not None:
            return self.preferences.in_memory(options)
        if options.version is None:
            return self.served.get((options.model, options.dataset))
        served = self._others.get((str(options.model), options.version))
        return served if served is not None and _matches_dataset(served, options) else None

    def find(self, options: Options) -> Served:
        """Return the version for a request, and load it if need be.

        Raises:
            NotFound: if no version serves this network and data set.
            NotLoaded: if a version should serve them, but cannot be loaded now.
            BadInput: if there is no such data set.
        """
        if options.version is not None:
            return self._by_number(options)
        if options.prefer is not None:
            return self._prefer(options)
        found = self.in_memory(options)
        if found is None and self._is_behind():  # a first version may just have been published
            self.catch_up()
            found = self.in_memory(options)
        if found is None:
            raise self._no_champion(options)
        return found

    def answers(self) -> bool:
        """Return whether any version is loaded; wait for a version that has just been published."""
        if not self.served and self._is_behind():
            self.catch_up()
        return bool(self.served)

    async def served_for(self, options: Options) -> Served:
        """Like `find`, but run in a thread so that the event loop stays free."""
        served = self.in_memory(options)
        return served if served is not None else await asyncio.to_thread(self.find, options)

    def catch_up(self) -> None:
        """Wait until the follower has refreshed once more, at most PATIENCE_SECONDS."""
        with self._turn:
            self._refreshes_wanted += 1
            wanted = self._refreshes_wanted
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._refreshes_done >= wanted, PATIENCE_SECONDS)

    def refresh(self) -> None:
        """Load new champions, then put them in place; if one fails to load, the old one stays."""
        with self._refreshing:
            champions = [served for files in self._champions() if (served := self._champion(files)) is not None]
            self.served = MappingProxyType(_by_key(champions, self._limits(champions)))
            self.preferences.refresh(self.served, self._load)

    def champions(self) -> list[Served]:
        """Return the champions in memory, each once."""
        return [s for (model, name), s in self.served.items() if model is not None and name == s.version.dataset]

    def failing(self) -> dict[str, str]:
        """Return why champions failed to load, by "network/data set"; earlier versions stand in for them."""
        found = [
            (v, self._postponed.get(v.id)) for v, *_ in self._champions()
        ]  # a copy: the follower changes it meanwhile
        return {f"{v.model}/{v.dataset}": f"version {v.version}: {why[1]}" for v, why in found if why is not None}

    def _prefer(self, options: Options) -> Served:
        """Return the preferred version, which the follower loads; the champion if no latency was measured."""
        self.preferences.follow(options)
        if self.preferences.in_memory(options) is None:
            self.catch_up()
        return self.preferences.in_memory(options) or self.find(options.changed({"prefer": None}))

    def _is_behind(self) -> bool:
        """Return whether the follower has champions to load."""
        served = {s.version.id for s in self.champions()}
        return any(v.id not in served and not self._is_postponed(v) for v, *_ in self._champions())

    def _is_postponed(self, version: ModelVersion) -> bool:
        return monotonic() < self._postponed.get(version.id, (0.0, ""))[0]

    def _no_champion(self, options: Options) -> ChiffreError:
        """Return why a request has no champion: none was published, or it failed to load."""
        try:
            with self.database.reading() as session:
                dataset_info(session, options.dataset)
        except UnknownName as error:
            return BadInput("?dataset", str(error))
        for name, why in self.failing().items():
            model, dataset = name.split("/")
            if is_called(dataset, options.dataset) and options.model in (None, model):
                return NotLoaded(f"the champion of {model} on {dataset} cannot be loaded now; {why}")
        whose = options.model or "any network"
        return NotFound(f"no version of {whose} trained on {options.dataset} is published", Fact.NOTHING_PUBLISHED)

    def _champions(self) -> list[Files]:
        with self.database.reading() as session:
            query = select(ModelVersion).join(Champion, col(Champion.version_id) == ModelVersion.id)
            return [_files(session, version) for version in session.scalars(query).all()]

    def _limits(self, champions: list[Served]) -> dict[int | None, int | None]:
        with self.database.reading() as session:
            return image_limits(session, [served.version for served in champions])

    def _champion(self, files: Files) -> Served | None:
        version, *_ = files
        serving = self.served.get((version.model, version.dataset))
        if serving is not None and serving.version.id == version.id:
            return serving
        return self._load(files) or serving or self._earlier(version)

    def _earlier(self, champion: ModelVersion) -> Served | None:
        """Return the newest earlier champion that loads, as after a restart no version is in memory yet."""
        with self.database.reading() as session:
            earlier = [_files(session, version) for version in earlier_champions(session, champion)[:EARLIER]]
        return next(filter(None, map(self._load, earlier)), None)

    def _load(self, files: Files) -> Served | None:
        """Load a version from storage; return None if that fails, or failed a moment ago."""
        version, *_ = files
        if self._is_postponed(version):
            return None
        try:
            loaded = load(*files, self.store, self.queue, self.executor)
        except Exception as error:  # one damaged version must not hold up the others
            self._postpone(version, error)
            return None
        self._postponed.pop(version.id, None)
        log.info("loaded a version", model=version.model, dataset=version.dataset, version=version.version)
        return loaded

    def _postpone(self, version: ModelVersion, error: Exception) -> None:
        """Set when a version that failed to load is tried again; else it would be read and logged every second."""
        seconds = AWAY_SECONDS if isinstance(error, StorageAway) else DAMAGED_SECONDS
        self._postponed[version.id] = monotonic() + seconds, str(error)
        log.error("could not load a version", model=version.model, version=version.version, error=str(error))

    def _by_number(self, options: Options) -> Served:
        """Return the version of a number, champion or not."""
        model, version = str(options.model), options.version or 0
        served = self._kept(model, version) or self._fetch(model, version)
        if not _matches_dataset(served, options):
            raise NotFound(f"version {version} of {model} was trained on {served.version.dataset}")
        return served

    def _kept(self, model: str, version: int) -> Served | None:
        """Return a version that is in memory already, and keep it in memory."""
        with self._keeping:
            of_champions = (s for s in self.champions() if (s.version.model, s.version.version) == (model, version))
            served = self._others.pop((model, version), None) or next(of_champions, None)
            if served is not None:
                self._keep(served)
            return served

    def _keep(self, served: Served) -> None:
        key = served.version.model, served.version.version
        self._others = dict([*self._others.items(), (key, served)][-KEPT:])

    def _fetch(self, model: str, version: int) -> Served:
        """Load a version from storage and keep it."""
        with self.database.reading() as session:
            of_version = (col(ModelVersion.model) == model, col(ModelVersion.version) == version)
            row = session.scalars(select(ModelVersion).where(*of_version)).one_or_none()
            if row is None:
                raise NotFound(f"{model} has no version of this number; GET /models/{model} lists its versions")
            files = _files(session, row)
        with self._fetching.setdefault(row.id, Lock()):
            if (served := self._kept(model, version)) is not None:
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
            wanted = self._refreshes_wanted
            try:
                self.refresh()
            except Exception as error:  # the boundary of a thread: if the database is away, loaded versions go on
                log.warning("could not look for new champions", error=str(error))
            count()  # predictions since the last refresh
            self._pause(wanted)

    def _pause(self, done: int) -> None:
        """Wake waiting requests, then wait for the next one, at most REFRESH_SECONDS."""
        with self._turn:
            self._refreshes_done = done
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._closing or self._refreshes_wanted > done, REFRESH_SECONDS)


def _files(session: Session, version: ModelVersion) -> Files:
    return version, session.get_one(Artifact, version.onnx_id), session.get_one(Artifact, version.checkpoint_id)


def _matches_dataset(served: Served, options: Options) -> bool:
    """Return whether a version was trained on the requested data set, if one was requested."""
    return "dataset" not in options.model_fields_set or is_called(served.version.dataset, options.dataset)


def _by_key(champions: list[Served], limits: dict[int | None, int | None]) -> dict[tuple[str | None, str], Served]:
    """Return the champions by network and data set, and the best of all networks by (None, data set).

    The best is the most accurate on validation; among equals, the smallest. A version trained on a subset of images is
    the best only if there is no other version; of several, the version with the most images wins, because accuracy
    says less after training on few. An uploaded data set without a version means its newest version with a champion.

    Args:
        champions: at most one for each network and data set.
        limits: by id of version, the number of images that its job was limited to, or None.
    """
    found: dict[tuple[str | None, str], Served] = {}

    def rank(served: Served) -> tuple[float, ...]:
        version = served.version
        seen = limits.get(version.id) or inf
        return version_of(version.dataset), seen, version.val_accuracy, -version.weights

    for served in sorted(champions, key=rank):
        for name in (served.version.dataset, served.version.dataset.partition("@")[0]):
            found[served.version.model, name] = found[None, name] = served
    return found
