"""Decide which tests run on both databases: those that depend on SQL that the two databases treat differently."""

import pytest

BOTH = ("sqlite", "postgres")

# Commands, protocols, validation, reports and cards use the SQL of the routes, and the tests of routes have twins.
# The processes of a worker use the SQL of the ledger, whose tests have twins too. Faults on Postgres are tested with a
# whole cluster.
SQLITE_ONLY = (
    "tests/test_docs.py",
    "tests/api/cli/",
    "tests/api/http/",
    "tests/api/inputs/",
    "tests/api/report/",
    "tests/api/subprocesses/",
    "tests/api/views/",
    "tests/api/prediction/test_storage.py",
    "tests/api/prediction/test_swaps.py::test_every_",
    "tests/api/prediction/test_metrics.py::test_two_processes_count_together",
    "tests/api/test_client.py",
    "tests/api/test_openapi.py",
    "tests/api/test_schemathesis.py",
    "tests/api/routes/jobs/test_predictions.py",
    "tests/api/routes/jobs/test_validate_only.py",
    "tests/api/routes/models/test_inference.py",
    "tests/api/routes/models/test_validation.py",
    "tests/worker/ledger/test_transfer.py::test_a_training_process_fetches_an_uploaded_data_set",
    "tests/worker/prediction/test_work.py::test_a_killed_trainer_costs_only_time",
    "tests/worker/prediction/test_work.py::test_a_real_worker_completes_a_predict_job",
    "tests/worker/supervision/test_supervisor.py",
    "tests/worker/training/test_interruptions.py",
    "tests/worker/training/test_ledger_book.py::test_two_trainers_draw_and_prune_as_one_would",
    "tests/worker/training/test_survival.py",
)
DIALECT = ("tests/worker/ledger/", "tests/worker/database/")  # `make test` runs these on both


def databases_of(nodeid: str) -> tuple[str, ...]:
    """Return the databases that a test runs on."""
    return BOTH[:1] if nodeid.startswith(SQLITE_ONLY) else BOTH


def mark_twins(items: list[pytest.Item]) -> None:
    """Mark tests on Postgres as long, except tests of SQL itself and the first test of each file."""
    seen: set[str] = set()
    for item in items:
        if not hasattr(item, "callspec") or item.callspec.params.get("database_url") != "postgres":
            continue
        path = item.nodeid.partition("::")[0]
        if path in seen and not path.startswith(DIALECT):
            item.add_marker(pytest.mark.long)
        seen.add(path)
