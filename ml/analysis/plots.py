"""The plots that there are of a job, and what can be asked of each. Nothing heavy is imported: `figures.py` draws."""

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
    """What a plot shows."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min_accuracy: float | None = Field(None, ge=0, le=1, description="only trials with at least this on validation")
    target: Target = Field("objective", description="what of a trial is shown")
    cost: Cost = Field("seconds", description="what accuracy is held against; latency is known of published trials")
    coefficient: Coefficient = Field("spearman", description="how variables are correlated")


@dataclass(frozen=True)
class Plot:
    """A plot: what it is called, and which options it has."""

    title: str
    options: frozenset[str] = frozenset({"min_accuracy", "target"})


PLOTS: dict[str, Plot] = {
    "optimization_history": Plot("Optimization history"),
    "intermediate_values": Plot("Learning curves", frozenset({"min_accuracy"})),
    "parallel_coordinate": Plot("Parallel coordinates"),
    "slice": Plot("Each parameter alone"),
    "contour": Plot("Two parameters at a time"),
    "rank": Plot("Ranks, two parameters at a time"),
    "timeline": Plot("Timeline", frozenset()),
    "param_importances": Plot("Importances of parameters"),
    "edf": Plot("Empirical distribution"),
    "pareto_front": Plot("Accuracy against cost", frozenset({"min_accuracy", "cost"})),
    "correlations": Plot("Correlations", frozenset({"coefficient"})),
    "interactions": Plot("Two parameters whose effects depend on each other", frozenset()),
}
