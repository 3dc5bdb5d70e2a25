"""Child processes of the API: their output and their errors."""

from threading import BoundedSemaphore

import pytest

from api.http.errors import Busy
from api.subprocesses.children import Children


def test_the_output_of_a_child_is_returned() -> None:
    """The result is the child's whole standard output."""
    assert Children().run("json.tool", "--help").startswith(b"usage")


def test_a_failed_child_reports_the_reason() -> None:
    """The error has the end of its standard error."""
    with pytest.raises(RuntimeError, match="No module named"):
        Children().run("api.nothing_of_this_name")


def test_if_the_database_is_away_the_client_is_asked_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreachable database raises Busy instead of an error of the child."""
    monkeypatch.setenv("CHIFFRE_DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/none?connect_timeout=2")

    with pytest.raises(Busy, match="does not answer"):
        Children().run("api.report", "job", "abc", "en")


def test_a_request_that_waits_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two waits are limited: the wait for a free process and the wait for the result."""
    monkeypatch.setattr("api.subprocesses.children.WAIT_SECONDS", 0.01)
    monkeypatch.setattr("api.subprocesses.children.RUN_SECONDS", 0.01)
    children = Children()

    with pytest.raises(Busy, match="two minutes"):
        children.run("json.tool", "--help")
    children._free = BoundedSemaphore(1)
    children._free.acquire()
    with pytest.raises(Busy, match="too many slow requests"):
        children.run("json.tool", "--help")


def test_too_many_waiting_requests_are_refused_at_once() -> None:
    """Each waiting request holds one of the API's threads, which other requests need."""
    children = Children()
    while children._places.acquire(blocking=False):
        pass
    with pytest.raises(Busy, match="too many slow requests"):
        children.run("json.tool", "--help")
    children._places.release()

    assert children.run("json.tool", "--help")
