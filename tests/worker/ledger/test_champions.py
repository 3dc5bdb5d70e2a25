"""Champions: the rule that moves them, the log of their moves, and rollbacks."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select
from sqlmodel import col
from support.worker_tools import FILE, Work

from worker.database.engine import Database
from worker.database.tables import Champion, ChampionMove, ModelVersion, PackPurpose
from worker.errors import Conflict, Fact, NotFound
from worker.ledger.champions import Champions, _distinct_texts, moves
from worker.ledger.leases import Claim, Leases
from worker.ledger.ledger import Ledger
from worker.publication.rows import PublicationRows, Published

PUBLISHED = Published(("file.onnx", FILE), [1, 28, 28], list("0123456789"), 7850, 0.4, 0.88)


def trained(work: Work, value: float, **fields: Any) -> Claim:
    """Run a job of one trial; return the claim of the pack that publishes it."""
    work.accept(budget={"trials": 1}, **fields)
    claim = work.leases.claim()
    assert claim is not None
    work.run_trial(claim, value)
    claim = work.leases.claim()
    assert claim is not None
    assert claim.purpose == PackPurpose.PUBLISH
    return claim


def publish(work: Work, claim: Claim) -> None:
    """Make a job's winner a version."""
    publishing = PublicationRows(work.database)
    publishing.publish(claim, publishing.winner(claim), PUBLISHED)


def win(work: Work, *values: float, **fields: Any) -> None:
    """Publish versions of the perceptron with these values, one after another."""
    for value in values:
        publish(work, trained(work, value, **fields))


def champion(work: Work, dataset: str = "digits") -> int:
    """Return the number of the perceptron's champion."""
    with work.database.reading() as session:
        reigning = session.get_one(Champion, ("perceptron", dataset))
        return session.get_one(ModelVersion, reigning.version_id).version


def log(work: Work, dataset: str = "digits") -> list[ChampionMove]:
    """Return the moves of the perceptron's champion, the oldest first."""
    with work.database.reading() as session:
        return list(session.scalars(moves("perceptron", dataset).order_by(col(ChampionMove.id))))


def steps(work: Work) -> list[tuple[int | None, int, str]]:
    """Return the moves as version before, version after, and cause."""
    with work.database.reading() as session:
        rows = session.execute(select(col(ModelVersion.id), col(ModelVersion.version))).all()
        numbers: dict[int | None, int | None] = {None: None, **dict(rows)}
    return [(numbers[m.previous_id], numbers[m.version_id] or 0, m.by) for m in log(work)]


def is_chain(work: Work) -> bool:
    """Return whether each row continues the previous row, and the last row names the champion."""
    rows = log(work)
    previous = [None, *(row.version_id for row in rows)]
    with work.database.reading() as session:
        reigning = session.get_one(Champion, ("perceptron", "digits")).version_id
    return [row.previous_id for row in rows] == previous[:-1] and previous[-1] == reigning


@pytest.fixture
def registry(work: Work) -> Champions:
    """Return the champions of the test's database."""
    return Champions(work.database)


# --- by rule


def test_the_rule_records_each_move_and_the_compared_values(work: Work) -> None:
    """The first version and each better one have a row with a reason; a worse version has none."""
    win(work, 0.9914, 0.98, 0.9921)

    assert steps(work) == [(None, 1, "rule"), (1, 3, "rule")]
    assert log(work)[1].reason == "0.9921 beats 0.9914 on val_accuracy"
    assert all(row.at > 1e9 for row in log(work))
    assert is_chain(work)


def test_the_reason_says_that_the_lower_loss_beats_the_higher(work: Work) -> None:
    """It names the better value first, and the kind of loss."""
    win(work, 0.5, 0.25, objective="val_loss")

    assert log(work)[-1].reason == "0.2500 beats 0.5000 on val_loss:cross_entropy"


def test_an_equal_version_does_not_move_the_champion(work: Work) -> None:
    """Only a better version does."""
    win(work, 0.9, 0.9)

    assert (champion(work), len(log(work))) == (1, 1)


@given(one=st.floats(0, 1), other=st.floats(0, 1))
@settings(deadline=None)
def test_a_reason_shows_different_values_differently(one: float, other: float) -> None:
    """Even a difference in the last bit is visible."""
    first, second = _distinct_texts(one, other)

    assert (first == second) == (one == other)
    assert (float(first), float(second)) == pytest.approx((one, other), abs=5e-5)


def test_a_version_of_another_split_or_objective_does_not_move_the_champion(work: Work) -> None:
    """A champion that does not move gets no row."""
    win(work, 0.9, dataset="mnist")
    win(work, 0.99, dataset="mnist", split="official")
    win(work, 0.01, dataset="mnist", objective="val_loss")

    assert champion(work, "mnist") == 1
    assert len(log(work, "mnist")) == 1


# --- by hand


def test_a_version_of_all_images_replaces_one_of_a_subset_and_never_the_reverse(work: Work) -> None:
    """A high value on few validation images does not beat it; of two versions of subsets the better is champion."""
    win(work, 0.7, 0.8, images=1000)
    win(work, 0.6)
    win(work, 0.9, images=1000)

    assert steps(work) == [(None, 1, "rule"), (1, 2, "rule"), (2, 3, "rule")]
    assert champion(work) == 3


def test_a_worse_version_is_promoted_by_hand(work: Work, registry: Champions) -> None:
    """The row has the reason that was given."""
    win(work, 0.9, 0.8)
    moved, version = registry.promote("perceptron", None, 2, "half the size")

    assert (champion(work), version.version, moved.version_id) == (2, 2, version.id)
    assert (steps(work)[-1], log(work)[-1].reason) == ((1, 2, "hand"), "half the size")
    assert moved.moved_at == log(work)[-1].at


def test_promoting_the_champion_changes_nothing(work: Work, registry: Champions) -> None:
    """There is no new row, and the time of the last move stays the same."""
    win(work, 0.9, 0.8)
    first, _ = registry.promote("perceptron", "digits", 2, "once")
    again, _ = registry.promote("perceptron", "digits", 2, "twice")

    assert len(log(work)) == 2
    assert again.moved_at == first.moved_at


def test_a_version_of_another_split_and_objective_can_be_promoted_by_hand(work: Work, registry: Champions) -> None:
    """From then on the rule compares with the version that was chosen."""
    win(work, 0.9, dataset="mnist")
    win(work, 0.5, dataset="mnist", split="official", objective="val_loss")
    registry.promote("perceptron", "mnist", 2, "official images")
    win(work, 0.99, dataset="mnist")
    unmoved = champion(work, "mnist")
    win(work, 0.4, dataset="mnist", split="official", objective="val_loss")

    assert (unmoved, champion(work, "mnist")) == (2, 4)


def test_a_version_cannot_be_champion_of_another_data_set(work: Work, registry: Champions) -> None:
    """Both champions stay, and the error names the version's data set."""
    win(work, 0.9)
    win(work, 0.9, dataset="mnist")
    with pytest.raises(Conflict, match="trained on digits"):
        registry.promote("perceptron", "mnist", 1, "")

    assert (champion(work), champion(work, "mnist")) == (1, 2)


@pytest.mark.parametrize(("model", "version"), [("perceptron", 2), ("cnn", 1)])
def test_a_version_that_does_not_exist_is_not_promoted(
    work: Work, registry: Champions, model: str, version: int
) -> None:
    """A missing version of this network and a network without versions are both refused."""
    win(work, 0.9)

    with pytest.raises(NotFound) as refused:
        registry.promote(model, None, version, "")

    assert refused.value.fact == Fact.NO_VERSION


# --- rollbacks


def test_rollbacks_undo_one_move_after_another(work: Work, registry: Champions) -> None:
    """They end at the first version; a further rollback is refused and leaves no row."""
    win(work, 0.7, 0.8, 0.9)
    back = [registry.rollback("perceptron", "digits")[1].version for _ in range(2)]
    with pytest.raises(Conflict) as refused:
        registry.rollback("perceptron", "digits")

    assert (refused.value.fact, refused.value.names) == (Fact.NOTHING_TO_UNDO, {"model": "perceptron"})
    assert back == [2, 1]
    assert steps(work)[3:] == [(3, 2, "rollback"), (2, 1, "rollback")]
    assert log(work)[-1].reason == "undoes the move to version 2 (rule: 0.8000 beats 0.7000 on val_accuracy)"
    assert is_chain(work)


def test_a_move_after_a_rollback_is_undone_before_older_moves(work: Work, registry: Champions) -> None:
    """An undone move stays undone: 1, 2, 3, back to 2, on to 1 by hand, back to 2, back to 1."""
    win(work, 0.7, 0.8, 0.9)
    registry.rollback("perceptron", None)
    registry.promote("perceptron", None, 1, "")
    back = [registry.rollback("perceptron", None)[1].version for _ in range(2)]
    with pytest.raises(Conflict):
        registry.rollback("perceptron", None)

    assert back == [2, 1]
    assert is_chain(work)


actions = st.lists(st.integers(0, 5), max_size=30)  # a version to promote; 0 rolls back


@given(asked=actions)
@settings(deadline=None)
def test_any_moves_and_rollbacks_follow_a_stack(work_of_five: Callable[[], Work], asked: list[int]) -> None:
    """After every step the champion is the top of an independent stack."""
    work = work_of_five()
    registry, stack = Champions(work.database), [1]
    for version in asked:
        if version == 0 and len(stack) == 1:
            with pytest.raises(Conflict):
                registry.rollback("perceptron", "digits")
        elif version == 0:
            stack.pop()
            registry.rollback("perceptron", "digits")
        else:
            stack += [version] if version != stack[-1] else []
            registry.promote("perceptron", "digits", version, "")

        assert champion(work) == stack[-1]
    assert is_chain(work)


@pytest.fixture(scope="module")
def work_of_five(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Work]]:
    """Return a function that resets a database of five versions, so that the first is champion."""
    path = tmp_path_factory.mktemp("five") / "chiffre.db"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    work = Work(database, Ledger(database), Leases(database, "one", 60), Leases(database, "two", 60))
    win(work, 0.9, 0.8, 0.8, 0.8, 0.8)

    def anew() -> Work:
        with database.writing() as session:
            first = session.scalars(select(ChampionMove).order_by(col(ChampionMove.id))).first()
            assert first is not None
            session.execute(delete(ChampionMove).where(col(ChampionMove.id) != first.id))
            session.get_one(Champion, ("perceptron", "digits")).version_id = first.version_id
        return work

    yield anew
    database.close()


def test_each_data_set_is_rolled_back_separately(work: Work, registry: Champions) -> None:
    """If a network has champions for several data sets, a rollback must name one."""
    win(work, 0.7, 0.8)
    win(work, 0.7, 0.8, dataset="mnist")
    with pytest.raises(Conflict, match="digits, mnist"):
        registry.rollback("perceptron", None)
    registry.rollback("perceptron", "mnist")

    assert (champion(work), champion(work, "mnist")) == (2, 3)


@pytest.mark.parametrize(("model", "dataset"), [("cnn", None), ("cnn", "digits"), ("perceptron", "mnist")])
def test_a_rollback_without_a_champion_is_refused(
    work: Work, registry: Champions, model: str, dataset: str | None
) -> None:
    """The error says what is missing."""
    win(work, 0.9)

    with pytest.raises(NotFound) as refused:
        registry.rollback(model, dataset)

    assert refused.value.fact == Fact.NO_CHAMPION


# --- champions of the previous release, which kept no log


def forget(work: Work) -> None:
    """Leave the database as the previous release would."""
    with work.database.writing() as session:
        session.execute(delete(ChampionMove))


def test_the_first_recorded_move_names_the_previous_champion(work: Work, registry: Champions) -> None:
    """A move by rule or by hand can then be undone in an old database too."""
    win(work, 0.8)
    forget(work)
    win(work, 0.9)
    back = registry.rollback("perceptron", "digits")[1].version

    assert steps(work) == [(1, 2, "rule"), (2, 1, "rollback")]
    assert back == 1


def test_a_champion_without_a_recorded_move_cannot_be_rolled_back(work: Work, registry: Champions) -> None:
    """Its predecessor is unknown."""
    win(work, 0.8, 0.9)
    forget(work)
    with pytest.raises(Conflict):
        registry.rollback("perceptron", "digits")

    assert champion(work) == 2


# --- concurrency


def test_concurrent_publications_promotions_and_rollbacks_leave_one_chain(work: Work, registry: Champions) -> None:
    """Eight threads publish eight winners, promote two versions and undo moves; every step is recorded."""
    win(work, 0.5, 0.4)
    claims = [trained(work, 0.6 + n / 100) for n in (3, 0, 7, 1, 6, 2, 5, 4)]
    tasks: list[Callable[[], object]] = []
    for n, claim in enumerate(claims):
        tasks += [
            lambda claim=claim: publish(work, claim),
            lambda n=n: registry.promote("perceptron", None, 1 + n % 2, ""),
            lambda: registry.rollback("perceptron", "digits"),
        ]
    failed = at_once(tasks)
    with work.database.reading() as session:
        versions = session.scalars(select(col(ModelVersion.version)).order_by(col(ModelVersion.version))).all()

    assert list(versions) == list(range(1, 11))
    assert all(isinstance(error, Conflict) for error in failed)  # there was no move left to undo
    assert sum(move.by == "rollback" for move in log(work)) == len(claims) - len(failed)
    assert is_chain(work)


def test_first_versions_that_are_published_concurrently_leave_one_chain(work: Work) -> None:
    """There is no champion to lock yet; still one version is first, and the best ends as champion."""
    claims = [trained(work, value) for value in (0.6, 0.9, 0.7, 0.8)]
    failed = at_once([lambda claim=claim: publish(work, claim) for claim in claims])
    with work.database.reading() as session:
        best = session.scalars(select(ModelVersion).where(col(ModelVersion.value) == 0.9)).one()

    assert failed == []
    assert champion(work) == best.version
    assert is_chain(work)


def at_once(tasks: list[Callable[[], object]]) -> list[BaseException]:
    """Run tasks in eight threads; return the errors that they raised."""
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(task) for task in tasks]
    return [error for future in futures if (error := future.exception()) is not None]
