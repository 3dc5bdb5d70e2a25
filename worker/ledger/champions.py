"""Champions: the version of each network that answers for a data set, and the log of their moves.

A champion moves by rule (a new version is better), by hand, or back. Each move adds a row to the log, in the same
transaction and under the lock of the champion's row. So rows are in the order of the moves, and each row's previous
version is the one that the row before moved to. Rows of the log never change. A champion of a release that kept no log
has no row; its first move still names it as the previous version.

A transaction locks the champion last. Publication locks job and pack before it; a move by hand locks nothing else.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import cast

from sqlalchemy import Select, select
from sqlmodel import Session, col

from worker.database.clock import clock
from worker.database.engine import Database
from worker.database.tables import Champion, ChampionMove, Job, ModelVersion
from worker.errors import Conflict, Fact, NotFound

FIRST_DIGITS, ALL_DIGITS = 4, 17  # decimals of two values in a reason: the fewest, and more than ever tell them apart


class By(StrEnum):
    """The cause of a champion's move."""

    RULE = "rule"  # a new version is better, or the first
    HAND = "hand"  # a request named the version
    ROLLBACK = "rollback"


class Champions:
    """The requests that move champions."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def promote(self, model: str, dataset: str | None, version: int, reason: str) -> tuple[Champion, ModelVersion]:
        """Make a version the champion for the data set that it was trained on, even if another is better.

        A version that is the champion already stays it, and no move is logged.

        Returns:
            The champion, and the version that it is.

        Raises:
            NotFound: if there is no such version.
            Conflict: if `dataset` is not the version's own.
        """
        with self.database.writing() as session:
            chosen = find_version(session, model, version)
            if dataset not in (None, chosen.dataset):
                raise Conflict(
                    f"version {version} was trained on {chosen.dataset} and can be champion for no other data set"
                )
            champion = _locked(session, chosen.model, chosen.dataset)
            if champion is None or champion.version_id != chosen.id:
                champion = _move(session, champion, chosen, By.HAND, reason)
            return champion, chosen

    def rollback(self, model: str, dataset: str | None) -> tuple[Champion, ModelVersion]:
        """Undo the last move of a champion that is not undone yet.

        It works like undo in an editor. The next call undoes the move before, back to the first version. A rollback
        itself is never undone. A move after a rollback is the first to be undone next.

        Args:
            model: The network.
            dataset: Its data set; None if the network has only one champion.

        Returns:
            The champion, and the version that it is now.

        Raises:
            NotFound: if there is no such champion.
            Conflict: if the network has several champions and `dataset` is None, or if no move is left to undo.
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
    """Return a version by its number.

    Raises:
        NotFound: if there is no such version.
    """
    of_model = (col(ModelVersion.model) == model, col(ModelVersion.version) == version)
    found = session.scalar(select(ModelVersion).where(*of_model))
    if found is None:
        raise NotFound("there is no such version", Fact.NO_VERSION)
    return found


def versions_of(session: Session, job_id: str) -> dict[tuple[int, float | None], ModelVersion]:
    """Return a job's versions by the number and the value of their trial.

    The value is part of the key because a trial that is trained again gets another one.
    """
    of_job = select(ModelVersion).where(col(ModelVersion.job_id) == job_id).order_by(col(ModelVersion.id))
    return {(version.trial, version.value): version for version in session.scalars(of_job)}


def image_limits(session: Session, versions: Iterable[ModelVersion]) -> dict[int | None, int | None]:
    """Return the `images` limit of each version's job, by the version's id; None if it used all images."""
    ids = [version.id for version in versions]
    query = select(col(ModelVersion.id), col(Job.spec)).join(Job, col(Job.id) == ModelVersion.job_id)
    found = session.execute(query.where(col(ModelVersion.id).in_(ids))).all()
    return {id_: spec.get("images") for id_, spec in found}


def moves(model: str, dataset: str | None) -> Select[ChampionMove]:
    """Return a query for the moves of a network's champions, or of the one for a data set.

    It has no order; a later move has a higher id.
    """
    of_model = select(ChampionMove).where(col(ChampionMove.model) == model)
    return of_model if dataset is None else of_model.where(col(ChampionMove.dataset) == dataset)


def earlier_champions(session: Session, champion: ModelVersion) -> list[ModelVersion]:
    """Return the versions that were champion before this one, the latest first.

    A version that a rollback has moved away from is left out.
    """
    standing = _standing(session, champion.model, champion.dataset)
    ids = dict.fromkeys(move.previous_id for move in standing if move.previous_id not in (None, champion.id))
    return [session.get_one(ModelVersion, id_) for id_ in ids]


def challenge(session: Session, version: ModelVersion) -> None:
    """Make a new version the champion if there is none yet, or if it is comparable with the champion and better.

    A version that used all images replaces one that used only a subset, never the other way round.
    """
    champion = _locked(session, version.model, version.dataset)
    if champion is None:
        _move(session, None, version, By.RULE, "the first version for this data set")
        return
    reigning = session.get_one(ModelVersion, champion.version_id)
    images = image_limits(session, (version, reigning))
    if images[version.id] != images[reigning.id]:
        if images[version.id] is None and reigning.dataset_sha256 == version.dataset_sha256:
            _move(
                session, champion, version, By.RULE, f"version {reigning.version} was trained on a subset of the images"
            )
        return
    if _comparable(version, reigning) and _better(version, reigning):
        new, old = _distinct_texts(version.value, reigning.value)
        _move(session, champion, version, By.RULE, f"{new} beats {old} on {version.objective}")


def _locked(session: Session, model: str, dataset: str) -> Champion | None:
    """Return a champion, locked until the transaction ends; None if there is none."""
    key = (col(Champion.model) == model, col(Champion.dataset) == dataset)
    return session.scalar(select(Champion).where(*key).with_for_update().execution_options(populate_existing=True))


def _reigning(session: Session, model: str, dataset: str | None) -> Champion:
    """Return the champion for a data set, or the only one of a network, locked."""
    if dataset is None:
        known = session.scalars(select(col(Champion.dataset)).where(col(Champion.model) == model)).all()
        if len(known) > 1:
            raise Conflict(
                f"this network has a champion for each of {', '.join(sorted(known))}; give one of them as dataset"
            )
        dataset = known[0] if known else ""
    champion = _locked(session, model, dataset)
    if champion is None:
        raise NotFound("this network has no champion for this data set", Fact.NO_CHAMPION)
    return champion


def _standing(session: Session, model: str, dataset: str) -> Iterator[ChampionMove]:
    """Yield the moves of a champion that no rollback has undone, the latest first."""
    undone = 0
    for move in session.scalars(moves(model, dataset).order_by(col(ChampionMove.id).desc())):
        if move.by == By.ROLLBACK:
            undone += 1
        elif undone:
            undone -= 1
        else:
            yield move


def _move(session: Session, champion: Champion | None, version: ModelVersion, by: By, reason: str) -> Champion:
    """Make a version the champion and log the reason; return the champion, which was locked or is new."""
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


def _distinct_texts(one: float, other: float) -> tuple[str, str]:
    """Return two different values as texts with just enough decimals to tell them apart."""
    for digits in range(FIRST_DIGITS, ALL_DIGITS):
        texts = (f"{one:.{digits}f}", f"{other:.{digits}f}")
        if texts[0] != texts[1]:
            return texts
    return repr(one), repr(other)
