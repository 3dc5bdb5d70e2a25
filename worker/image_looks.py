"""The process that looks at images for the API.

`python -m worker.start worker.image_looks samples NAME PART COUNT`, or `judgement`, runs the programs of
`ml.images.samples` and `ml.prediction.judgement` with uploaded data sets too.
"""

import sys

from ml.images import samples
from ml.prediction import judgement
from worker.artifacts.store import store_of
from worker.database.engine import Database
from worker.settings import settings
from worker.uploaded_datasets import DatasetStore


def main() -> None:
    """Run the program that the first argument names."""
    config = settings()
    database = Database(config.database)
    find = DatasetStore(database, store_of(config), config.dataset_cache).find
    program, *arguments = sys.argv[1:]
    if program == "samples":
        samples.main(arguments, find)
    else:
        judgement.main(find)
    database.close()
