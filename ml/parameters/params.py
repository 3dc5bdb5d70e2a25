"""The hyper-parameters that every network has; a network adds others in `ml/networks.py`."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from ml.errors import UnknownName
from ml.optimizers import LearningRate, Momentum, Optimizer, WeightDecay, optimizers
from ml.parameters.recipes import ScheduleName


def _known_optimizer(name: str) -> str:
    try:
        optimizers[name]
    except UnknownName as error:
        raise ValueError(str(error)) from None
    return name


OptimizerName = Annotated[
    str, AfterValidator(_known_optimizer), WithJsonSchema({"type": "string", "enum": list(optimizers)})
]


class Params(BaseModel):
    """The hyper-parameters of one trial."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    batch_size: int = Field(64, ge=1, le=4096, description="images per step")
    learning_rate: LearningRate = 1e-3
    optimizer: OptimizerName = "adam"
    momentum: Momentum = 0.0
    weight_decay: WeightDecay = 0.0
    epochs: int | None = Field(None, ge=1, le=1000, description="epochs of this trial; the budget limits them")
    schedule: ScheduleName | None = Field(
        None, description="change of the learning rate over the trial's epochs; constant by default"
    )
    label_smoothing: float | None = Field(
        None, ge=0, lt=1, description="share of the target that is spread evenly over all classes"
    )
    ema_decay: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of the weights' moving average kept at each step; the average is evaluated and saved",
    )
    shift: float | None = Field(None, ge=0, le=64, description="training images are shifted by up to this many pixels")
    rotation: float | None = Field(
        None, ge=0, le=180, description="training images are rotated by up to this many degrees"
    )
    scale: float | None = Field(None, ge=0, le=0.5, description="training images are scaled by up to this share")
    shear: float | None = Field(None, ge=0, le=60, description="training images are sheared by up to this many degrees")
    elastic: float | None = Field(
        None, ge=0, le=1000, description="strength of an elastic distortion of training images, Simard's alpha"
    )
    elastic_sigma: float | None = Field(
        None, ge=0.5, le=100, description="smoothness of the elastic distortion in pixels; 4 by default"
    )

    def of_optimizer(self) -> Optimizer:
        """Return the optimizer that these parameters describe."""
        return optimizers[self.optimizer].model_validate(self.model_dump())


def describe(model: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """Return the parameters of `model` as JSON Schema: type, range, default and description."""
    fields: dict[str, dict[str, Any]] = model.model_json_schema()["properties"]
    return {name: {k: v for k, v in field.items() if k != "title"} for name, field in fields.items()}
