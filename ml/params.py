"""The hyper-parameters that every network's training takes; a network adds its own in `networks.py`."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from ml.errors import UnknownName
from ml.optimizers import LearningRate, Momentum, Optimizer, WeightDecay, optimizers


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

    def of_optimizer(self) -> Optimizer:
        """The optimizer that these parameters describe."""
        return optimizers[self.optimizer].model_validate(self.model_dump())


def describe(model: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """Every parameter of `model` as JSON Schema: type, range, default, description."""
    fields: dict[str, dict[str, Any]] = model.model_json_schema()["properties"]
    return {name: {k: v for k, v in field.items() if k != "title"} for name, field in fields.items()}
