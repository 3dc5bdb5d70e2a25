"""`python -m worker.start api.report job|group ID LANGUAGE`: write a report to standard output. The API runs it."""

import sys
from typing import cast

from sqlalchemy.exc import InterfaceError, OperationalError

from api.report.facts import facts_of
from api.report.group import group_report
from api.report.page import page_of
from api.report.winner import answers_of
from api.report.wording import Language, Wording
from api.subprocesses.children import AWAY
from ml.datasets import FindDataset
from worker.artifacts.store import Store, store_of
from worker.database.engine import Database
from worker.errors import StorageAway
from worker.settings import settings
from worker.uploaded_datasets import DatasetStore


def job_report(database: Database, store: Store, find: FindDataset, job_id: str, wording: Wording) -> str:
    """Return a job's report as HTML."""
    facts = facts_of(database, job_id)
    return page_of(facts, answers_of(facts, store, find), facts.analysis(), wording)


REPORTS = {"job": job_report, "group": group_report}


def main() -> None:
    """Write the report that the arguments name."""
    kind, id_, language = sys.argv[1:]
    config = settings()
    database, store = Database(config.database), store_of(config)
    find = DatasetStore(database, store, config.dataset_cache).find
    try:
        page = REPORTS[kind](database, store, find, id_, Wording(cast("Language", language)))
    except (OperationalError, InterfaceError, StorageAway) as error:
        sys.exit(print(error, file=sys.stderr) or AWAY)
    sys.stdout.buffer.write(page.encode())
