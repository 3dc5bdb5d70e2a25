"""What the analysis of a job finds, for its report."""

from api.report.facts import Facts
from ml.analysis.analysis import analysis
from ml.analysis.findings import Analysis
from worker.analyst import observations, search_of
from worker.db import Database


def found_of(database: Database, facts: Facts) -> Analysis | None:
    """The analysis of a job; None where it searches nothing or no trial has a value."""
    if not facts.judged or facts.job.kind != "tune":
        return None
    found = analysis(search_of(database, facts.job.id), observations(database, facts.job.id))
    return found if found.parameters else None
