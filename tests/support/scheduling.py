"""Run the tests of a module in one process, because they share databases, trainers and services.

pytest-xdist has groups too, but it writes their names into the ids of tests, and some versions of pytest change these
ids. Here the file or folder of a test decides.
"""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from support.twins import mark_twins

TOGETHER = ("tests/page/",)  # folders whose modules share one start of the services
# The longest run first, so that no process has to finish them alone.
FIRST = ("tests/acceptance/", "tests/page/", "tests/worker/supervision/", "tests/worker/training/")


class ByModule(LoadScopeScheduling):
    """Hand out the tests of a module, or of a folder that shares its services, to one process."""

    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in TOGETHER if nodeid.startswith(folder)), nodeid.partition("::")[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByModule:
    """Let pytest-xdist hand out tests by module, in the order of collection."""
    config.option.loadscopereorder = False
    return ByModule(config, log)


@pytest.hookimpl(tryfirst=True)  # before -m looks at marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark most twins on Postgres as long, and put the slowest tests first."""
    mark_twins(items)
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))
