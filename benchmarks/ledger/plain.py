"""The baseline of benchmarks.ledger: a plain Celery application whose task takes one optimizer step.

Its worker has one process. PLAIN_BROKER is the URL of the broker, which also keeps the results.
"""

import os

import torch
from celery import Celery

BROKER = os.environ.get("PLAIN_BROKER", "redis://localhost")

app = Celery("plain", broker=BROKER, backend=BROKER)
app.conf.update(task_serializer="json", accept_content=["json"], worker_prefetch_multiplier=1)

_model = torch.nn.Linear(784, 10)
_optimizer = torch.optim.Adam(_model.parameters())
_images, _labels = torch.rand(256, 784), torch.randint(10, (256,))


@app.task
def step() -> float:
    """Take one optimizer step, and return the loss."""
    _optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(_model(_images), _labels)
    loss.backward()  # type: ignore[no-untyped-call]
    _optimizer.step()
    return float(loss)


@app.task
def nothing() -> None:
    """Do nothing, so that only the message takes time."""
