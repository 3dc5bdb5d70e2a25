"""The plots of a job and their options; `figures.py` draws them, and nothing heavy is imported here."""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ml.analysis.pareto import Cost

PlotName = Literal[
    "optimization_history",
    "intermediate_values",
    "parallel_coordinate",
    "slice",
    "contour",
    "rank",
    "timeline",
    "param_importances",
    "edf",
    "pareto_front",
    "correlations",
    "interactions",
]
Target = Literal["objective", "val_accuracy", "val_loss", "seconds"]
Coefficient = Literal["spearman", "pearson"]


class PlotOptions(BaseModel):
    """The options of a plot."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min_accuracy: float | None = Field(None, ge=0, le=1, description="least validation accuracy of the trials to show")
    target: Target = Field("objective", description="value of a trial to show")
    cost: Cost = Field("seconds", description="cost to plot accuracy against; only published trials have a latency")
    coefficient: Coefficient = Field("spearman", description="correlation coefficient to show")


@dataclass(frozen=True)
class Plot:
    """A plot's title and options."""

    title: str
    options: frozenset[str] = frozenset({"min_accuracy", "target"})


PLOTS: dict[str, Plot] = {
    "optimization_history": Plot("Optimization history"),
    "intermediate_values": Plot("Learning curves", frozenset({"min_accuracy"})),
    "parallel_coordinate": Plot("Parallel coordinates"),
    "slice": Plot("Slice (one parameter)"),
    "contour": Plot("Contour (two parameters)"),
    "rank": Plot("Rank (two parameters)"),
    "timeline": Plot("Timeline", frozenset()),
    "param_importances": Plot("Parameter importance"),
    "edf": Plot("Empirical distribution"),
    "pareto_front": Plot("Accuracy against cost", frozenset({"min_accuracy", "cost"})),
    "correlations": Plot("Correlations", frozenset({"coefficient"})),
    "interactions": Plot("Parameter interactions", frozenset()),
}
