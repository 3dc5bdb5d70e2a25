"""Which tests run in one process: those of a module, as they share databases, trainers and services.

pytest-xdist's own groups are marks that it writes into the ids of tests, which not every version of pytest leaves as
they are. Here the place of a file decides.
"""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from support.twins import mark_twins

TOGETHER = ("tests/page/",)  # folders whose modules share one start of the services
FIRST = ("tests/acceptance/", "tests/page/")  # what takes longest, so that no process is left alone with it


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
    """Leave most twins on Postgres to `make check`, and run first what takes longest."""
    mark_twins(items)
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))
