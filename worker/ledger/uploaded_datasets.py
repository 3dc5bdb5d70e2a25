"""Data sets that people upload: a row a version, the images in the store of artifacts, a verified copy on each machine.

A version never changes, so that a name with its number, "letters@2", always stands for the same images and classes. The
same images under the same name are the same version. What a specification names by "letters" alone is the newest then.
"""

from functools import partial
from pathlib import Path

import structlog
from sqlalchemy import Select, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col

from ml.artifacts import Saved, checkpoint_bytes, checkpoint_of, load_checkpoint, write
from ml.datasets import Arrays, Dataset, datasets
from ml.errors import CheckpointError
from ml.records import Checkpoint
from worker.artifacts.keys import DATASET_PREFIX
from worker.artifacts.store import Store
from worker.database.engine import Database, one_at_a_time
from worker.database.tables import DatasetVersion, UsedDataset
from worker.errors import BadKey, Conflict, Fact, NotFound
from worker.ledger.transitions import clock

log = structlog.get_logger()


class Uploaded:
    """What people have uploaded."""

    def __init__(self, database: Database, store: Store, cache: Path) -> None:
        self.database = database
        self.store = store
        self.cache = cache
        self._found: dict[str, Dataset] = {}  # by name with version

    def serve(self) -> None:
        """Let specifications of this process name them."""
        datasets.finder = self.find

    def end(self) -> None:
        """Let them name what is registered alone again."""
        if datasets.finder == self.find:
            datasets.finder = None

    def add(
        self, name: str, arrays: Arrays, classes: tuple[str, ...], description: str = ""
    ) -> tuple[DatasetVersion, bool]:
        """Keep a data set as the next version of its name, unless it is one already; the version, and if it is new.

        Conflict where the name is that of a registered data set.
        """
        if datasets.get(name) is not None:
            raise Conflict("a data set that Chiffre brings along has this name; choose another")
        dataset = Dataset(lambda: arrays, arrays.images.shape[1:], classes, len(arrays), arrays.sha256(), None, "")
        # Before its row: whoever finds the row finds the file.
        path = f"{DATASET_PREFIX}{dataset.sha256}.safetensors"
        saved = self._keep(path, _bytes_of(arrays))
        with self.database.writing() as session:
            one_at_a_time(session, f"versions of data set {name}")
            versions = list(session.scalars(_of_name(name)))
            for version in versions:
                if (version.sha256, tuple(version.classes)) == (dataset.sha256, classes):
                    return version, False
            know(session, name, dataset)
            added = _row(name, len(versions) + 1, dataset, description, path, saved, clock(session))
            session.add(added)
            return added, True

    def find(self, name: str) -> tuple[str, Dataset] | None:
        """What a name, with or without a version, stands for: the name with its version, and the data set."""
        if name in self._found:
            return name, self._found[name]
        with self.database.reading() as session:
            version = uploaded_version(session, name)
            if version is None:
                return None
            known = session.get_one(UsedDataset, version.sha256)
        pinned = f"{version.name}@{version.version}"
        self._found[pinned] = self._dataset(version, known)
        return pinned, self._found[pinned]

    def versions(self, name: str | None = None) -> list[tuple[DatasetVersion, UsedDataset]]:
        """Every version, or those of one name, the newest of each name first; NotFound where there is no such name."""
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
        """The newest version of each name."""
        found: dict[str, Dataset] = {}
        for version, known in self.versions():
            if not any(name.partition("@")[0] == version.name for name in found):
                found[f"{version.name}@{version.version}"] = self._dataset(version, known)
        return found

    def _keep(self, path: str, content: bytes) -> Saved:
        """Store a file, also in the place of one that is damaged.

        The same images have the same key and are the same bytes, so that whatever else lies there is none of ours, and
        several may write at once.
        """
        try:
            return self.store.write(path, content)
        except BadKey:
            log.warning("the file of a data set was damaged, and is written again as it was uploaded", path=path)
        self.store.remove(path)
        return self.store.write(path, content)

    def _dataset(self, version: DatasetVersion, known: UsedDataset) -> Dataset:
        return Dataset(
            read=partial(self._read, version),
            shape=tuple(known.shape),
            classes=tuple(version.classes),
            size=known.images,
            sha256=version.sha256,
            official_test=None,
            description=version.description,
        )

    def _read(self, version: DatasetVersion) -> Arrays:
        """The images: this machine's copy, or else the store's; CheckpointError where that is missing or damaged."""
        copy = self.cache / version.path.rpartition("/")[2]
        try:
            return _arrays(load_checkpoint(copy, version.file_sha256))
        except CheckpointError:
            content = self.store.read(version.path, version.file_sha256)
        try:
            write(copy, content)
        except OSError as error:  # it is a copy
            log.warning("no copy of a data set could be kept", path=str(copy), error=str(error))
        return _arrays(checkpoint_of(content, version.path))


def uploaded_version(session: Session, dataset: str) -> DatasetVersion | None:
    """The row of a version, "letters@2", or of the newest of "letters"; None where nobody has uploaded it."""
    name, _, number = dataset.partition("@")
    of_version = _of_name(name) if not number else _of_name(name).where(col(DatasetVersion.version) == int(number))
    return session.scalar(of_version.order_by(col(DatasetVersion.version).desc()).limit(1))


def know(session: Session, name: str, dataset: Dataset) -> None:
    """Write a data set down unless it is known; several may do so at once."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    row = UsedDataset(
        sha256=dataset.sha256,
        name=name,
        images=dataset.size,
        shape=list(dataset.shape),
        classes=list(dataset.classes),
    )
    session.execute(insert(UsedDataset).values(row.model_dump()).on_conflict_do_nothing())


def _row(
    name: str, version: int, dataset: Dataset, description: str, path: str, saved: Saved, at: float
) -> DatasetVersion:
    return DatasetVersion(
        name=name,
        version=version,
        sha256=dataset.sha256,
        classes=list(dataset.classes),
        description=description,
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
