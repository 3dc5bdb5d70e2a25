"""The process that analyses a job: `python -m worker.start worker.analyst` reads a JSON order and writes an answer.

Optuna, scipy, scikit-learn and plotly are loaded here and not in the API, which stays small and starts fast.
"""

import sys
from typing import Any

import orjson

from ml.analysis.figures import figure
from ml.analysis.plots import PlotOptions
from worker.database.engine import Database
from worker.database.tables import Job
from worker.logs import configure_logging
from worker.material import Material
from worker.settings import settings


def answer_of(database: Database, order: dict[str, Any]) -> bytes:
    """Return the analysis of a job, or one of its plots, as JSON.

    Args:
        database: The database with the job.
        order: "job", its id; "plot", the name of a plot or None for the analysis; "options" of the plot.
    """
    with database.at_one_instant() as session:
        material = Material.of(session, session.get_one(Job, order["job"]))
    if order["plot"] is None:
        return material.analysis().model_dump_json().encode()
    options = PlotOptions(**order["options"])
    return orjson.dumps(figure(order["plot"], material.search(), material.observations, options))


def main() -> None:
    """Answer the order on standard input."""
    configure_logging("analyst")
    database = Database(settings().database)
    sys.stdout.buffer.write(answer_of(database, orjson.loads(sys.stdin.buffer.read())))
    database.close()
