"""What the processes of a cluster do at their start: learn of a network whose trials can bring a trainer down.

Python imports a module of this name by itself, and a cluster's PYTHONPATH leads here: the product knows nothing of it.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

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
