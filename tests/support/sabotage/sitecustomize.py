"""What processes do at their start if their PYTHONPATH leads here: learn of a fragile network, and of a gate.

Python imports a module of this name by itself: the product knows nothing of it.
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
    """A layer that changes nothing, and after some steps of training has the fault that it is named for."""

    module: ClassVar[str] = "fragile.Fragile"
    fault: str

    def output_shape(self, shape: Shape) -> Shape:
        return shape


class FragileParams(Params):
    """What goes wrong."""

    fault: Fault = Field("none", description="what happens in the middle of training")


@network("fragile", FragileParams, space={})
def fragile(channels: int, height: int, width: int, classes: int, params: FragileParams) -> list[Layer]:
    """A linear layer, and one that breaks."""
    return [Flatten(), Fragile(params.fault), Linear(channels * height * width, classes)]


def _gated(gate: Path) -> None:
    """Let this trainer wait at a gate, if it is shut, whenever it has recorded what a trial reached.

    The gate is a file: a trial passes it until it has been measured as many times as the file says. It opens to a
    trainer that is told to stop or to leave out trials.
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
                    sleep(0.001)

    LedgerBook.record = record  # type: ignore[method-assign]


def _shut(gate: Path, measured: int) -> bool:
    try:
        return measured >= int(gate.read_text() or sys.maxsize)
    except FileNotFoundError:
        return False


if "worker.trainer" in sys.orig_argv:
    _gated(Path(os.environ["CHIFFRE_HOME"], "gate"))
