"""The API: routers, error handlers and what lives as long as the process."""

import gc
import os
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.metadata import version

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI

from api.errors import add_handlers
from api.metrics import end_process
from api.middleware import BodyLimit, KnownHosts
from api.plain import PlainFirst
from api.prediction.documentation import document_predict
from api.prediction.endpoint import Predict
from api.problems import RESPONSES, document_problems
from api.readers import Departures, SlowReaders, put_before
from api.routes import catalog, champions, downloads, events, experiments, health, inference, jobs, models, predictions
from api.serving import Roster
from api.signals import on_ending
from api.streams import Streams
from api.uploads import Uploads
from worker.db import Database
from worker.janitor import Janitor
from worker.leases import Leases
from worker.logs import configure_logging
from worker.settings import settings
from worker.store import store_of

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
    streams, readers = Streams(database), SlowReaders()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        current_default_thread_limiter().total_tokens = 40  # as many as the pool has connections
        # What was made until now lives as long as the process. A full collection would look at all of it again, and for
        # that stop every answer for 70 ms. Small ones look at lists of numbers that wait to become images: one every
        # few answers takes 6 % of a busy server's time, and hardly anything here is a cycle.
        gc.collect()
        gc.freeze()
        gc.set_threshold(SMALL_COLLECTION)
        roster.start()
        janitor.start()
        with on_ending(streams.stop, readers.hurry):
            async with streams.following():
                yield
        janitor.close()
        roster.close()
        end_process(os.getpid())
        executor.shutdown(wait=False, cancel_futures=True)
        database.close()

    app = PlainFirst(
        title="Chiffre",
        version=version("chiffre"),
        description="Trains, tunes and serves small image classifiers.",
        lifespan=lifespan,
        responses=RESPONSES,
    )
    app.state.database, app.state.store, app.state.roster, app.state.streams = database, store, roster, streams
    app.state.uploads = Uploads(config.max_image_bytes)
    # Experiments first: their path is none of a job.
    resources = (experiments, jobs, predictions, events, models, champions, downloads, inference, catalog, health)
    for resource in resources:
        app.include_router(resource.router)
    add_handlers(app)
    document_predict(app)
    document_problems(app)
    app.add_middleware(Departures)
    app.add_middleware(BodyLimit, limit=config.max_body_bytes, images=config.max_image_bytes)
    app.add_middleware(KnownHosts, allowed=config.allowed_hosts)
    put_before(app, readers.around)
    predict = KnownHosts(Predict(roster, executor, config.max_image_bytes), config.allowed_hosts)
    app.plain = {"/predict": predict}
    return app
