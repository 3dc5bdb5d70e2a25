"""The API application: its routes, error handlers, and the services that live as long as the process."""

import gc
import os
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import version

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI

from api.http.bypass import PlainFirst
from api.http.errors import add_handlers
from api.http.middleware import BodyLimit, KnownHosts
from api.http.problems import RESPONSES, document_problems
from api.http.signals import on_ending
from api.http.slow_readers import Departures, SlowReaders, put_before
from api.http.slow_senders import SlowSenders
from api.inputs.uploads import BodyBudget
from api.page import add_page
from api.prediction.documentation import document_predict
from api.prediction.endpoint import MAX_BODY_BYTES, Predict
from api.prediction.exposition import end_process
from api.prediction.roster import Roster
from api.routes import catalog, datasets, health, images
from api.routes.jobs import (
    analysis,
    curves,
    evaluations,
    events,
    experiments,
    jobs,
    predictions,
    reports,
    run_offs,
    trials,
)
from api.routes.models import champions, downloads, inference, models, validation
from api.subprocesses.analyses import Analyses
from api.subprocesses.children import Children
from api.subprocesses.image_looks import Looks
from api.views.streams import Streams
from worker.artifacts.store import drop_files, store_of
from worker.database.engine import Database
from worker.ledger.leases import Leases
from worker.logs import configure_logging
from worker.settings import settings
from worker.supervision.janitor import Janitor
from worker.uploaded_datasets import DatasetStore

SMALL_COLLECTION = 10_000  # new objects between two collections of the youngest generation; Python's default is 700


def create_app() -> FastAPI:
    """Create the application that the settings describe."""
    config = settings()
    configure_logging("api")
    store = store_of(config)
    removals = ThreadPoolExecutor(1, "remove")  # so that no answer waits until the store has removed a file
    database = Database(config.database, on_unneeded=lambda keys: removals.submit(drop_files, store, keys))
    # For slow work on images: two threads, so that a photograph does not delay the batches of a CNN.
    executor = ThreadPoolExecutor(2, "predict")
    roster = Roster(database, store, executor)
    owner = f"api {socket.gethostname()}:{os.getpid()}"
    janitor = Janitor(database, Leases(database, owner, config.lease_seconds), None, config.poll_seconds)
    uploaded = DatasetStore(database, store, config.dataset_cache)
    streams, readers = Streams(database), SlowReaders()
    analyses = Analyses()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        current_default_thread_limiter().total_tokens = 40  # as many as the pool has connections
        # All objects made so far live as long as the process. A full collection would visit them again, and stop all
        # answers for 70 ms. Small collections visit lists of numbers that are about to become images: one every few
        # answers takes 6 % of a busy server's time. Hardly any object here is part of a cycle.
        gc.collect()
        gc.freeze()
        gc.set_threshold(SMALL_COLLECTION)
        roster.start()
        janitor.start()
        with on_ending(streams.stop, readers.hurry):
            async with streams.following():
                yield
        await analyses.close()
        janitor.close()
        roster.close()
        end_process(os.getpid())
        executor.shutdown(wait=False, cancel_futures=True)
        removals.shutdown(wait=False, cancel_futures=True)  # the worker's janitor removes what is left
        database.close()

    app = PlainFirst(
        title="Chiffre",
        version=version("chiffre"),
        description="Trains, tunes and serves small image classifiers.",
        lifespan=lifespan,
        responses=RESPONSES,
        docs_url=None,
        redoc_url=None,
    )
    app.state.database, app.state.store, app.state.roster, app.state.streams = database, store, roster, streams
    app.state.removals = removals
    children = Children()
    app.state.children, app.state.analyses, app.state.looks = children, analyses, Looks(children)
    app.state.image_bodies, app.state.archives = (
        BodyBudget(config.max_image_bytes),
        BodyBudget(config.max_dataset_bytes),
    )
    app.state.inference_bodies = BodyBudget(max(MAX_BODY_BYTES, config.max_image_bytes))
    app.state.uploaded, app.state.max_dataset_bytes = uploaded, config.max_dataset_bytes
    # Experiments first: else /jobs/{job_id} would match their path.
    of_jobs = (experiments, jobs, trials, curves, predictions, evaluations, run_offs, analysis, reports, events)
    of_models = (models, champions, downloads, validation, inference)
    for resource in (*of_jobs, *of_models, images, catalog, datasets, health):
        app.include_router(resource.router)
    add_page(app)
    add_handlers(app)
    document_predict(app)
    document_problems(app)
    app.openapi = cache(app.openapi)  # type: ignore[method-assign]  # every call would build the document again
    app.add_middleware(Departures)
    app.add_middleware(SlowSenders)
    limits = {"limit": config.max_body_bytes, "images": config.max_image_bytes, "datasets": config.max_dataset_bytes}
    app.add_middleware(BodyLimit, **limits)
    app.add_middleware(KnownHosts, allowed=config.allowed_hosts)
    put_before(app, readers.around)
    predict = KnownHosts(SlowSenders(Predict(roster, executor, config.max_image_bytes)), config.allowed_hosts)
    app.plain = {"/predict": predict}
    return app
