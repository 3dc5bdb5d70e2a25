"""The hyper-parameters that every network's training takes; a network adds its own in `networks.py`."""

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

    batch_size: int = Field(64, ge=1, le=4096, description="images a step")
    learning_rate: LearningRate = 1e-3
    optimizer: OptimizerName = "adam"
    momentum: Momentum = 0.0
    weight_decay: WeightDecay = 0.0
    epochs: int | None = Field(None, ge=1, le=1000, description="epochs of this trial; never more than the budget's")
    schedule: ScheduleName | None = Field(
        None, description="how the learning rate changes over the trial's epochs; left out, it is constant"
    )
    label_smoothing: float | None = Field(
        None, ge=0, lt=1, description="share of a target that all classes have in common"
    )
    ema_decay: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of the moving average of the weights kept at a step; the average is what is judged and kept",
    )
    shift: float | None = Field(None, ge=0, le=64, description="training images move by up to this many pixels")
    rotation: float | None = Field(None, ge=0, le=180, description="training images turn by up to this many degrees")
    scale: float | None = Field(None, ge=0, le=0.5, description="training images stretch by up to this share")
    shear: float | None = Field(None, ge=0, le=60, description="training images slant by up to this many degrees")
    elastic: float | None = Field(
        None, ge=0, le=1000, description="strength of an elastic distortion of training images: Simard's alpha"
    )
    elastic_sigma: float | None = Field(
        None, ge=0.5, le=100, description="smoothness of the elastic distortion in pixels; left out, 4"
    )

    def of_optimizer(self) -> Optimizer:
        """The optimizer that these parameters describe."""
        return optimizers[self.optimizer].model_validate(self.model_dump())


def describe(model: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """Every parameter of `model` as JSON Schema: type, range, default, description."""
    fields: dict[str, dict[str, Any]] = model.model_json_schema()["properties"]
    return {name: {k: v for k, v in field.items() if k != "title"} for name, field in fields.items()}
