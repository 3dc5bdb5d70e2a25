"""The API: routers, error handlers and what lives as long as the process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI

from api.errors import add_handlers
from api.middleware import BodyLimit, KnownHosts
from api.problems import RESPONSES, document_problems
from api.routes import catalog, health, jobs, models, predict
from api.serving import Roster
from worker.db import Database
from worker.logs import configure_logging
from worker.settings import settings


def create_app() -> FastAPI:
    """The application, as the settings describe it."""
    config = settings()
    configure_logging("api")
    database = Database(config.database)
    roster = Roster(database, config.artifact_folder)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        current_default_thread_limiter().total_tokens = 40  # as many as the pool has connections
        roster.start()
        yield
        roster.close()
        database.close()

    app = FastAPI(
        title="Chiffre",
        version=version("chiffre"),
        description="Trains, tunes and serves small image classifiers.",
        lifespan=lifespan,
        responses=RESPONSES,
    )
    app.state.database, app.state.roster = database, roster
    for resource in (jobs, predict, models, catalog, health):
        app.include_router(resource.router)
    add_handlers(app)
    document_problems(app)
    app.add_middleware(BodyLimit, limit=config.max_body_bytes)
    app.add_middleware(KnownHosts, allowed=config.allowed_hosts)
    return app
