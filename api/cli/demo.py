"""The demonstration: tune a CNN on MNIST and classify images with it, on private temporary services."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel

from api.cli.output.display import picture
from api.cli.output.live import follow_job
from api.client import Chiffre
from api.connection import ApiError
from ml.datasets import data_split, datasets
from worker.local import free_port, local_services
from worker.settings import Settings

SPEC: dict[str, Any] = {
    "model": "cnn",
    "dataset": "mnist",
    "search_space": {
        "batch_size": {"type": "int", "low": 32, "high": 96, "log": True},
        "learning_rate": {"type": "float", "low": 1e-3, "high": 4e-3, "log": True},
    },
    "pruner": {"name": "median", "n_startup_trials": 2, "n_warmup_epochs": 1},
    "budget": {"trials": 6, "seconds": 110, "epochs": 8},
    "lanes": 3,
}
IMAGES = 8  # test images to classify


def run_demo(console: Console, spec: dict[str, Any] = SPEC) -> dict[str, Any]:
    """Tune a CNN on MNIST, classify some test images with it, and return the published version."""
    with TemporaryDirectory(prefix="chiffre-demo-") as home:
        settings = Settings(home=Path(home), database_url=None, broker_url=None, artifacts=None)
        console.print("Starting the database, a private Valkey, the worker and the API …")
        with local_services(settings, "127.0.0.1", free_port()) as services, Chiffre(services.url) as client:
            return _main_job(client, spec, console)


def _main_job(client: Chiffre, spec: dict[str, Any], console: Console) -> dict[str, Any]:
    console.print(f"[bold]POST {client.url}/jobs/tune[/]")
    console.print_json(data=spec)
    job = follow_job(client, client.tune(spec)["id"], console)
    if job["state"] != "completed":
        raise ApiError(f"the job is {job['state']}: {job['error']}")
    version: dict[str, Any] = client.version("cnn", job["version"]["version"])
    console.print(f"\n[bold]POST {client.url}/predict[/], with test images that no trial has used:")
    console.print(Columns(_answers(client), padding=(0, 2)))
    console.print(f"\nServed: version {version['version']}, trial {version['trial']} of job {version['job_id']}")
    console.print(f"Test accuracy on {len(_test_images()):,} images: [bold]{100 * version['test_accuracy']:.2f} %[/]")
    return version


def _answers(client: Chiffre) -> Iterator[Panel]:
    """Yield some test images drawn in characters, titled with prediction and label."""
    arrays = datasets["mnist"].load().take(_test_images()[:IMAGES])
    for image, label in zip(arrays.images, arrays.labels, strict=True):
        pixels = [float(value) for value in image.ravel()]
        answer = client.predict(pixels, model="cnn")
        percent = 100 * max(answer["probabilities"])
        colour = "green" if answer["digit"] == label else "red"
        title = f"[{colour}]{answer['label']}[/] ({percent:.1f} %), label {label}"
        yield Panel(picture(image[0].tolist()), title=title, width=34)


def _test_images() -> np.ndarray:
    mnist = datasets["mnist"]
    return data_split(mnist.size, mnist.official_test, "random", seed=0).test
