"""The API: routers, error handlers and what lives as long as the process."""

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

from api.analyses import Analyses
from api.children import Children
from api.errors import add_handlers
from api.looks import Looks
from api.metrics import end_process
from api.middleware import BodyLimit, KnownHosts
from api.page import add_page
from api.plain import PlainFirst
from api.prediction.documentation import document_predict
from api.prediction.endpoint import MAX_BYTES_AT_ONCE, Predict
from api.problems import RESPONSES, document_problems
from api.readers import Departures, SlowReaders, put_before
from api.routes import (
    analysis,
    catalog,
    champions,
    curves,
    datasets,
    downloads,
    evaluations,
    events,
    experiments,
    health,
    images,
    inference,
    jobs,
    models,
    predictions,
    reports,
    run_offs,
    validation,
)
from api.senders import SlowSenders
from api.serving import Roster
from api.signals import on_ending
from api.streams import Streams
from api.uploads import Uploads
from worker.artifacts.store import store_of
from worker.database.engine import Database
from worker.ledger.leases import Leases
from worker.ledger.uploaded_datasets import Uploaded
from worker.logs import configure_logging
from worker.settings import settings
from worker.supervision.janitor import Janitor

SMALL_COLLECTION = 10_000  # new objects between collections of the newest, 700 unless said


def create_app() -> FastAPI:
    """The application, as the settings describe it."""
    config = settings()
    configure_logging("api")
    database = Database(config.database)
    store = store_of(config)
    # What takes long for images: two threads, so that a photograph does not keep the CNN's batches waiting.
    executor = ThreadPoolExecutor(2, "predict")
    roster = Roster(database, store, executor)
    owner = f"api {socket.gethostname()}:{os.getpid()}"
    janitor = Janitor(database, Leases(database, owner, config.lease_seconds), None, config.poll_seconds)
    uploaded = Uploaded(database, store, config.dataset_cache)
    streams, readers = Streams(database), SlowReaders()
    analyses = Analyses()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        current_default_thread_limiter().total_tokens = 40  # as many as the pool has connections
        # What was made until now lives as long as the process. A full collection would look at all of it again, and for
        # that stop every answer for 70 ms. Small ones look at lists of numbers that wait to become images: one every
        # few answers takes 6 % of a busy server's time, and hardly anything here is a cycle.
        gc.collect()
        gc.freeze()
        gc.set_threshold(SMALL_COLLECTION)
        uploaded.serve()
        roster.start()
        janitor.start()
        with on_ending(streams.stop, readers.hurry):
            async with streams.following():
                yield
        await analyses.close()
        janitor.close()
        roster.close()
        uploaded.end()
        end_process(os.getpid())
        executor.shutdown(wait=False, cancel_futures=True)
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
    children = Children()
    app.state.children, app.state.analyses, app.state.looks = children, analyses, Looks(children)
    app.state.uploads, app.state.archives = Uploads(config.max_image_bytes), Uploads(config.max_dataset_bytes)
    app.state.asked = Uploads(max(MAX_BYTES_AT_ONCE, config.max_image_bytes))
    app.state.uploaded, app.state.max_dataset_bytes = uploaded, config.max_dataset_bytes
    # Experiments first: their path is none of a job.
    of_jobs = (experiments, jobs, curves, predictions, evaluations, run_offs, analysis, reports, events)
    of_models = (models, champions, downloads, validation, inference)
    for resource in (*of_jobs, *of_models, images, catalog, datasets, health):
        app.include_router(resource.router)
    add_page(app)
    add_handlers(app)
    document_predict(app)
    document_problems(app)
    app.openapi = cache(app.openapi)  # type: ignore[method-assign]  # what documents it does so at every call
    app.add_middleware(Departures)
    app.add_middleware(SlowSenders)
    limits = {"limit": config.max_body_bytes, "images": config.max_image_bytes, "datasets": config.max_dataset_bytes}
    app.add_middleware(BodyLimit, **limits)
    app.add_middleware(KnownHosts, allowed=config.allowed_hosts)
    put_before(app, readers.around)
    predict = KnownHosts(SlowSenders(Predict(roster, executor, config.max_image_bytes)), config.allowed_hosts)
    app.plain = {"/predict": predict}
    return app
