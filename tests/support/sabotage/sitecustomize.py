"""Register a fragile network and a gate in every process whose PYTHONPATH has this folder.

Python imports a module of this name at its start, so the product needs no code for it.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any, ClassVar, Literal

from pydantic import Field

from ml.layers import Flatten, Layer, Linear, Shape, Wrapped
from ml.networks import network
from ml.parameters.params import Params

Fault = Literal["none", "abort", "allocate"]


@dataclass(frozen=True)
class Fragile(Wrapped):
    """A layer that changes nothing, and has the fault `fault` after some steps of training."""

    module: ClassVar[str] = "fragile.Fragile"
    fault: str

    def output_shape(self, shape: Shape) -> Shape:
        return shape


class FragileParams(Params):
    """The fault of the network."""

    fault: Fault = Field("none", description="what happens in the middle of training")


@network("fragile", FragileParams, space={})
def fragile(channels: int, height: int, width: int, classes: int, params: FragileParams) -> list[Layer]:
    """Return a linear layer behind a layer that breaks."""
    return [Flatten(), Fragile(params.fault), Linear(channels * height * width, classes)]


def _gated(gate: Path) -> None:
    """Make this trainer wait at a gate, if it is closed, after each measurement that it records.

    The gate is a file with a number: a trial waits once it has this many measurements. A trainer that is told to stop
    or to cancel trials does not wait.
    """
    from ml.records import Measured
    from worker.training.ledger_book import LedgerBook

    recorded = LedgerBook.record
    times: dict[tuple[str, int], int] = {}

    def record(self: LedgerBook, events: Any) -> None:
        recorded(self, events)
        for event in events:
            if isinstance(event, Measured):
                trial = (self.claim.job_id, event.number)
                times[trial] = times.get(trial, 0) + 1
                while _shut(gate, times[trial]) and self.orders.stop is None and not self.orders.cancelled:
                    sleep(0.01)

    LedgerBook.record = record  # type: ignore[method-assign]


def _shut(gate: Path, measured: int) -> bool:
    try:
        return measured >= int(gate.read_text() or sys.maxsize)
    except FileNotFoundError:
        return False


if "worker.trainer" in sys.orig_argv:
    _gated(Path(os.environ["CHIFFRE_HOME"], "gate"))
