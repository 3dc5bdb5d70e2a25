"""The registry: which version of a network answers for a data set, and every move of that champion.

A champion is moved by rule where a new version is better, by hand, or back. Each move adds its row to the log in the
transaction that makes it, under the lock of the champion's row: the order of rows is the order of moves, and the
previous version of each is what the row before moved to. Rows of the log are never changed. A champion of a release
that kept no log has no row; its first move names it as the previous version all the same.

The champion's is the last lock that anybody takes: publication holds those of job and pack before it, and whoever moves
by hand holds no other.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import cast

from sqlalchemy import Select, select
from sqlmodel import Session, col

from worker.database.engine import Database
from worker.database.tables import Champion, ChampionMove, Job, ModelVersion
from worker.errors import Conflict, Fact, NotFound
from worker.ledger.transitions import clock

FIRST_DIGITS, ALL_DIGITS = 4, 17  # decimals of a value in a reason: as many as tell two apart, and the most that do


class By(StrEnum):
    """Who moved a champion."""

    RULE = "rule"  # a new version is better, or the first
    HAND = "hand"
    ROLLBACK = "rollback"


class Champions:
    """What people can ask of champions."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def promote(self, model: str, dataset: str | None, version: int, reason: str) -> tuple[Champion, ModelVersion]:
        """Let a version answer for the data set that it was trained on, however it was judged; champion and version.

        Nothing happens where it answers already. NotFound where there is no such version, Conflict where `dataset`
        names another than its own.
        """
        with self.database.writing() as session:
            chosen = find_version(session, model, version)
            if dataset not in (None, chosen.dataset):
                raise Conflict(f"version {version} was trained on {chosen.dataset}; it answers for no other data set")
            champion = _locked(session, chosen.model, chosen.dataset)
            if champion is None or champion.version_id != chosen.id:
                champion = _move(session, champion, chosen, By.HAND, reason)
            return champion, chosen

    def rollback(self, model: str, dataset: str | None) -> tuple[Champion, ModelVersion]:
        """Undo the last move of a champion that is not undone yet; the champion, and the version that it is now.

        It works as undo does in an editor: called again it undoes the move before, back to the first version, and never
        the rollback itself; a move after it is the first to be undone next. Without `dataset` the champion is the
        network's only one. NotFound where there is none, Conflict where there are several or nothing is left to undo.
        """
        with self.database.writing() as session:
            champion = _reigning(session, model, dataset)
            undone = next(_standing(session, champion.model, champion.dataset), None)
            if undone is None or undone.previous_id is None:
                raise Conflict("no move is left to undo", Fact.NOTHING_TO_UNDO, model=model)
            left = session.get_one(ModelVersion, undone.version_id)
            before = session.get_one(ModelVersion, undone.previous_id)
            reason = f"undoes the move to version {left.version} ({undone.by}: {undone.reason})"
            return _move(session, champion, before, By.ROLLBACK, reason), before


def find_version(session: Session, model: str, version: int) -> ModelVersion:
    """A version by its number; NotFound where there is none."""
    of_model = (col(ModelVersion.model) == model, col(ModelVersion.version) == version)
    found = session.scalar(select(ModelVersion).where(*of_model))
    if found is None:
        raise NotFound("there is no such version", Fact.NO_VERSION)
    return found


def versions_of(session: Session, job_id: str) -> dict[tuple[int, float | None], ModelVersion]:
    """A job's versions, by the number and the value of their trial: one that was trained again has another value."""
    of_job = select(ModelVersion).where(col(ModelVersion.job_id) == job_id).order_by(col(ModelVersion.id))
    return {(version.trial, version.value): version for version in session.scalars(of_job)}


def limits(session: Session, versions: Iterable[ModelVersion]) -> dict[int | None, int | None]:
    """How many images trained and validated each version at most, by its id: what few images gave is no measure."""
    ids = [version.id for version in versions]
    query = select(col(ModelVersion.id), col(Job.spec)).join(Job, col(Job.id) == ModelVersion.job_id)
    found = session.execute(query.where(col(ModelVersion.id).in_(ids))).all()
    return {id_: spec.get("images") for id_, spec in found}


def moves(model: str, dataset: str | None) -> Select[ChampionMove]:
    """The moves of a network's champions, or of the one for a data set, in no order; the later has the higher id."""
    of_model = select(ChampionMove).where(col(ChampionMove.model) == model)
    return of_model if dataset is None else of_model.where(col(ChampionMove.dataset) == dataset)


def earlier_champions(session: Session, champion: ModelVersion) -> list[ModelVersion]:
    """What answered before a champion, the last first; a version that was rolled back from is none of them."""
    standing = _standing(session, champion.model, champion.dataset)
    ids = dict.fromkeys(move.previous_id for move in standing if move.previous_id not in (None, champion.id))
    return [session.get_one(ModelVersion, id_) for id_ in ids]


def challenge(session: Session, version: ModelVersion) -> None:
    """Let a new version answer from now on if nothing does yet, or if it is better than what does and comparable.

    One that was trained and judged on all images takes the place of one that saw a part of them, never the other way.
    """
    champion = _locked(session, version.model, version.dataset)
    if champion is None:
        _move(session, None, version, By.RULE, "the first version for this data set")
        return
    reigning = session.get_one(ModelVersion, champion.version_id)
    images = limits(session, (version, reigning))
    if images[version.id] != images[reigning.id]:
        if images[version.id] is None and reigning.dataset_sha256 == version.dataset_sha256:
            _move(session, champion, version, By.RULE, f"version {reigning.version} has seen only part of the images")
        return
    if _comparable(version, reigning) and _better(version, reigning):
        new, old = _apart(version.value, reigning.value)
        _move(session, champion, version, By.RULE, f"{new} beats {old} on {version.objective}")


def _locked(session: Session, model: str, dataset: str) -> Champion | None:
    """A champion, locked until the transaction ends."""
    key = (col(Champion.model) == model, col(Champion.dataset) == dataset)
    return session.scalar(select(Champion).where(*key).with_for_update().execution_options(populate_existing=True))


def _reigning(session: Session, model: str, dataset: str | None) -> Champion:
    """The champion for a data set, or the only one of a network, locked."""
    if dataset is None:
        known = session.scalars(select(col(Champion.dataset)).where(col(Champion.model) == model)).all()
        if len(known) > 1:
            raise Conflict(f"this network has a champion for each of {', '.join(sorted(known))}; name one as dataset")
        dataset = known[0] if known else ""
    champion = _locked(session, model, dataset)
    if champion is None:
        raise NotFound("this network has no champion for this data set", Fact.NO_CHAMPION)
    return champion


def _standing(session: Session, model: str, dataset: str) -> Iterator[ChampionMove]:
    """The moves of a champion that no rollback has undone, the last first."""
    undone = 0
    for move in session.scalars(moves(model, dataset).order_by(col(ChampionMove.id).desc())):
        if move.by == By.ROLLBACK:
            undone += 1
        elif undone:
            undone -= 1
        else:
            yield move


def _move(session: Session, champion: Champion | None, version: ModelVersion, by: By, reason: str) -> Champion:
    """Let a version answer from now on, and note why; the champion, which was locked or is new."""
    at, version_id = clock(session), cast("int", version.id)
    move = ChampionMove(
        model=version.model,
        dataset=version.dataset,
        version_id=version_id,
        previous_id=None if champion is None else champion.version_id,
        by=by,
        reason=reason,
        at=at,
    )
    session.add(move)
    champion = champion or Champion(model=version.model, dataset=version.dataset, version_id=version_id, moved_at=at)
    champion.version_id, champion.moved_at = version_id, at
    session.add(champion)
    session.flush()
    return champion


def _comparable(one: ModelVersion, other: ModelVersion) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in ("dataset_sha256", "split", "objective"))


def _better(one: ModelVersion, other: ModelVersion) -> bool:
    return one.value > other.value if one.objective == "val_accuracy" else one.value < other.value


def _apart(one: float, other: float) -> tuple[str, str]:
    """Two different values with as many decimals as tell them apart."""
    for digits in range(FIRST_DIGITS, ALL_DIGITS):
        texts = (f"{one:.{digits}f}", f"{other:.{digits}f}")
        if texts[0] != texts[1]:
            return texts
    return repr(one), repr(other)
