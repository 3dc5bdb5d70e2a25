"""Each optimizer as a pydantic class: its parameters and the import path of its torch class."""

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from ml.registry import Registry

ADAM_BETAS = (0.9, 0.999)  # as in Kingma and Ba, and torch's default
ADAM_EPSILON = 1e-8

LearningRate = Annotated[float, Field(gt=0, description="step size")]
Momentum = Annotated[float, Field(ge=0, lt=1, description="share of the last step that is kept (SGD only)")]
WeightDecay = Annotated[float, Field(ge=0, le=1, description="L2 penalty added to the gradient")]


class Optimizer(BaseModel):
    """The parameters of one optimizer, with the names of a trial's hyper-parameters."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    torch_class: ClassVar[str]

    learning_rate: LearningRate = 1e-3
    weight_decay: WeightDecay = 0.0

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments for the torch class."""
        return {"lr": self.learning_rate, "weight_decay": self.weight_decay}


optimizers: Registry[type[Optimizer]] = Registry("optimizer")


@optimizers.register("adam")
class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015), with β 0.9 and 0.999 and ε 1e-8."""

    torch_class = "torch.optim.Adam"

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "betas": ADAM_BETAS, "eps": ADAM_EPSILON}


@optimizers.register("sgd")
class Sgd(Optimizer):
    """Stochastic gradient descent."""

    torch_class = "torch.optim.SGD"

    momentum: Momentum = 0.0

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "momentum": self.momentum}
