"""The `chiffre` command: services to start, and clients of the HTTP API."""

import os
import signal
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from api.cli import datasets, experiments, jobs, models, predictions, presets, reports, watch
from api.cli.demo import run_demo
from api.cli.output.terminal import err, fail, out, reporting_errors
from worker.database import migrations
from worker.database.engine import Database
from worker.local import WORKER, local_services
from worker.settings import Settings

HELP = "Train, tune and serve image classifiers. `up` and `worker` start services; the others are clients of the API."
EXIT_STATUS = "Exit status: 0 success, 1 failure, 2 usage error, 3 API unreachable, 130 interrupted."

app = typer.Typer(help=HELP, epilog=EXIT_STATUS, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def up(
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="port to listen on")] = 8000,
    home: Annotated[Path, typer.Option(envvar="CHIFFRE_HOME", help="folder for all state")] = Path(".chiffre"),
) -> None:
    """Start a private Valkey, a worker and the API in the foreground. Ctrl-C stops all of them."""
    # SIGINT too: a shell starts background jobs with it ignored.
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    with reporting_errors(), local_services(Settings(home=home), host, port) as services:
        try:
            print(f"Chiffre is ready at {services.url}", flush=True)
            services.watch()
        except KeyboardInterrupt:
            err.print("Stopping …")


@app.command()
def worker() -> None:
    """Run a worker on this machine, with the database and the broker from the environment."""
    with reporting_errors():
        broker = Settings().broker
    if broker is None:
        fail("no broker: set CHIFFRE_BROKER_URL and CHIFFRE_DATABASE_URL, or use `chiffre up`")
    os.execv(WORKER[0], WORKER)


@app.command()
def migrate() -> None:
    """Upgrade the schema of the database from the environment to this release."""
    with reporting_errors():
        migrations.migrate(Database(Settings().database))


@app.command()
def demo() -> None:
    """Start private services, tune a CNN on MNIST, and classify test images with it."""
    signal.signal(signal.SIGTERM, _interrupt)
    with reporting_errors():
        run_demo(out)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


for module in (jobs, models, predictions, reports, watch, experiments, presets):
    app.add_typer(module.app)
app.add_typer(datasets.app, name="datasets")


if __name__ == "__main__":
    app()
