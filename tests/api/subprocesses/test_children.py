"""Child processes of the API: their output, and the errors of those that fail."""

from threading import BoundedSemaphore

import pytest

from api.http.errors import Busy
from api.subprocesses.children import Children


def test_what_a_child_writes_is_returned() -> None:
    """It is the child's whole standard output."""
    assert Children().run("json.tool", "--help").startswith(b"usage")


def test_a_child_that_fails_says_why() -> None:
    """The error has the end of its standard error."""
    with pytest.raises(RuntimeError, match="No module named"):
        Children().run("api.nothing_of_this_name")


def test_a_database_that_is_away_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is asked to try again."""
    monkeypatch.setenv("CHIFFRE_DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/none?connect_timeout=2")

    with pytest.raises(Busy, match="does not answer"):
        Children().run("api.report", "job", "abc", "en")


def test_who_waits_too_long_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait is for a turn or for the result."""
    monkeypatch.setattr("api.subprocesses.children.WAIT_SECONDS", 0.01)
    monkeypatch.setattr("api.subprocesses.children.RUN_SECONDS", 0.01)
    children = Children()

    with pytest.raises(Busy, match="two minutes"):
        children.run("json.tool", "--help")
    children._free = BoundedSemaphore(1)
    children._free.acquire()
    with pytest.raises(Busy, match="too many slow requests"):
        children.run("json.tool", "--help")


def test_few_wait_and_the_others_are_told_at_once() -> None:
    """Each waiting request holds one of the API's threads, which other requests need."""
    children = Children()
    while children._places.acquire(blocking=False):
        pass
    with pytest.raises(Busy, match="too many slow requests"):
        children.run("json.tool", "--help")
    children._places.release()

    assert children.run("json.tool", "--help")
