"""Uploaded data sets: a row per version, the images in the artifact store, and a verified copy on each machine.

A version never changes: "letters@2" always means the same images and classes. Uploading the same images and classes
again under the same name gives the same version. "letters" alone means the newest version.
"""

from functools import partial
from pathlib import Path

import structlog
from sqlalchemy import Select, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col

from ml.artifacts import Saved, checkpoint_bytes, checkpoint_of, load_checkpoint, write
from ml.datasets import Arrays, Dataset, DatasetInfo, can_be_dataset, datasets
from ml.errors import CheckpointError, UnknownName
from ml.records import Checkpoint
from worker.artifacts.keys import DATASET_PREFIX
from worker.artifacts.store import Store
from worker.database.clock import clock
from worker.database.engine import Database, one_at_a_time
from worker.database.tables import DatasetVersion, UsedDataset
from worker.errors import BadKey, Conflict, Fact, NotFound

log = structlog.get_logger()


class DatasetStore:
    """The data sets that people have uploaded, and the built-in ones, with their images."""

    def __init__(self, database: Database, store: Store, cache: Path) -> None:
        self.database = database
        self.store = store
        self.cache = cache
        self._found: dict[str, Dataset] = {}  # by name with version

    def add(
        self, name: str, arrays: Arrays, classes: tuple[str, ...], description: str = ""
    ) -> tuple[DatasetVersion, bool]:
        """Store a data set as the next version of its name, unless an equal version exists.

        Returns:
            The version, and whether it is new.

        Raises:
            Conflict: if the name is that of a built-in data set.
        """
        if datasets.get(name) is not None:
            raise Conflict("a built-in data set has this name; choose another name")
        shape = arrays.images.shape[1:]
        dataset = DatasetInfo(name, shape, classes, len(arrays), arrays.sha256(), None, description)
        # The file comes before its row, so that a row always has a file.
        path = f"{DATASET_PREFIX}{dataset.sha256}.safetensors"
        saved = self._keep(path, _bytes_of(arrays))
        with self.database.writing() as session:
            one_at_a_time(session, f"versions of data set {name}")
            versions = list(session.scalars(_of_name(name)))
            for version in versions:
                if (version.sha256, tuple(version.classes)) == (dataset.sha256, classes):
                    return version, False
            know(session, dataset)
            added = _row(dataset, len(versions) + 1, path, saved, clock(session))
            session.add(added)
            return added, True

    def find(self, name: str) -> Dataset:
        """Return the data set of a name; the name of an uploaded data set without a version means the newest version.

        Raises:
            UnknownName: if no data set has this name.
        """
        if name in datasets:
            return datasets[name]
        if name not in self._found:
            with self.database.reading() as session:
                found = self._dataset(*_version(session, name))
            self._found[found.name] = found
            return found
        return self._found[name]

    def versions(self, name: str | None = None) -> list[tuple[DatasetVersion, UsedDataset]]:
        """Return all versions, or those of one name, by name and with the newest first.

        Raises:
            NotFound: if no data set of this name was uploaded.
        """
        statement = select(DatasetVersion, UsedDataset).join(
            UsedDataset, col(UsedDataset.sha256) == col(DatasetVersion.sha256)
        )
        if name is not None:
            statement = statement.where(col(DatasetVersion.name) == name)
        ordered = statement.order_by(col(DatasetVersion.name), col(DatasetVersion.version).desc())
        with self.database.reading() as session:
            found = [(version, known) for version, known in session.execute(ordered)]
        if name is not None and not found:
            raise NotFound("no data set of this name was uploaded", Fact.NO_DATASET)
        return found

    def newest(self) -> dict[str, Dataset]:
        """Return the newest version of each name."""
        found: dict[str, Dataset] = {}
        for version, known in self.versions():
            if not any(name.partition("@")[0] == version.name for name in found):
                dataset = self._dataset(version, known)
                found[dataset.name] = dataset
        return found

    def _keep(self, path: str, content: bytes) -> Saved:
        """Store a file, and replace a damaged file of the same key.

        Equal images have the same key and the same bytes. So a different file under this key is damaged, and several
        processes may write at once.
        """
        try:
            return self.store.write(path, content)
        except BadKey:
            log.warning("the file of a data set was damaged and is written again", path=path)
        self.store.remove(path)
        return self.store.write(path, content)

    def _dataset(self, version: DatasetVersion, known: UsedDataset) -> Dataset:
        return Dataset(**vars(_info(version, known)), read=partial(self._read, version))

    def _read(self, version: DatasetVersion) -> Arrays:
        """Return the images from this machine's copy, else from the store.

        Raises:
            CheckpointError: if the store's file is missing or damaged.
        """
        copy = self.cache / version.path.rpartition("/")[2]
        try:
            return _arrays(load_checkpoint(copy, version.file_sha256))
        except CheckpointError:
            content = self.store.read(version.path, version.file_sha256)
        try:
            write(copy, content)
        except OSError as error:  # the copy only saves time
            log.warning("the copy of a data set could not be written", path=str(copy), error=str(error))
        return _arrays(checkpoint_of(content, version.path))


def dataset_info(session: Session, name: str) -> DatasetInfo:
    """Return the description of a data set; the name of an uploaded data set without a version means the newest.

    Raises:
        UnknownName: if no data set has this name.
    """
    return datasets[name] if name in datasets else _info(*_version(session, name))


def uploaded_version(session: Session, dataset: str) -> DatasetVersion | None:
    """Return the row of a version, "letters@2", or of the newest of "letters"; None if it was never uploaded."""
    name, _, number = dataset.partition("@")
    of_version = _of_name(name) if not number else _of_name(name).where(col(DatasetVersion.version) == int(number))
    return session.scalar(of_version.order_by(col(DatasetVersion.version).desc()).limit(1))


def know(session: Session, dataset: DatasetInfo) -> None:
    """Record a data set unless it is recorded already; several processes may call this at once."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    row = UsedDataset(
        sha256=dataset.sha256,
        name=dataset.name,
        images=dataset.size,
        shape=list(dataset.shape),
        classes=list(dataset.classes),
    )
    session.execute(insert(UsedDataset).values(row.model_dump()).on_conflict_do_nothing())


def _version(session: Session, name: str) -> tuple[DatasetVersion, UsedDataset]:
    version = uploaded_version(session, name) if can_be_dataset(name) else None
    if version is None:
        raise UnknownName(datasets.noun, datasets)
    return version, session.get_one(UsedDataset, version.sha256)


def _info(version: DatasetVersion, known: UsedDataset) -> DatasetInfo:
    return DatasetInfo(
        name=f"{version.name}@{version.version}",
        shape=tuple(known.shape),
        classes=tuple(version.classes),
        size=known.images,
        sha256=version.sha256,
        official_test=None,
        description=version.description,
    )


def _row(dataset: DatasetInfo, version: int, path: str, saved: Saved, at: float) -> DatasetVersion:
    return DatasetVersion(
        name=dataset.name,
        version=version,
        sha256=dataset.sha256,
        classes=list(dataset.classes),
        description=dataset.description,
        path=path,
        file_sha256=saved.sha256,
        size=saved.size,
        created_at=at,
    )


def _of_name(name: str) -> Select[DatasetVersion]:
    return select(DatasetVersion).where(col(DatasetVersion.name) == name)


def _bytes_of(arrays: Arrays) -> bytes:
    return checkpoint_bytes(Checkpoint({"images": arrays.images, "labels": arrays.labels}, {}))


def _arrays(checkpoint: Checkpoint) -> Arrays:
    return Arrays(checkpoint.weights["images"], checkpoint.weights["labels"])
