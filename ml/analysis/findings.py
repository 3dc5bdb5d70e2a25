"""What an analysis finds: the shape of its answer. Nothing here is computed, so that nothing heavy is imported."""

from pydantic import BaseModel, ConfigDict, Field

Matrix = list[list[float | None]]


class Finding(BaseModel):
    """A part of an analysis; where it cannot say something it says null, and why."""

    # A figure that is not finite is a mistake of ours, and ends the analysis rather than being told.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Group(Finding):
    """Trials with like values of a parameter, and what they reached."""

    label: str = Field(description="the value, or the first and the last of the range")
    trials: int
    val_accuracy: float | None = Field(description="the mean; null where no trial has one")
    val_accuracy_sd: float | None = Field(description="the standard deviation (n - 1); null for less than two trials")
    seconds: float | None = Field(description="the mean of each trial's share of its pack's time")
    seconds_sd: float | None


class Effect(Finding):
    """Accuracy and time against one parameter."""

    parameter: str
    groups: list[Group] = Field(description="each value where there are at most six, else six ranges of about as many")
    reason: str | None = Field(description="why there is nothing to compare")


class Gap(Finding):
    """Why two variables have no coefficient."""

    one: str
    other: str
    reason: str


class Correlations(Finding):
    """How variables move together, two at a time, over the trials that have both.

    Rows and columns are `variables`: the parameters, then what was reached. A parameter whose values are names has a
    variable for each name but the first, 1 where the trial has it. Pearson's r is that of the values as they are, not
    of their logarithms; its p-value and that of Spearman's rho are two-sided and not corrected for their number.
    """

    variables: list[str]
    n: list[list[int]] = Field(description="trials that have both")
    pearson: Matrix
    pearson_p: Matrix
    spearman: Matrix
    spearman_p: Matrix
    reasons: list[Gap] = Field(description="of each pair without a coefficient")


class Importance(Finding):
    """How much each parameter matters for the objective, by one method."""

    method: str = Field(description="ped_anova or fanova")
    source: str = Field(description="who described it")
    values: dict[str, float] | None = Field(description="by Optuna's name of the parameter; they add up to 1")
    trials: int = Field(description="that it was computed from")
    reason: str | None = Field(description="why there are no values")


class Cell(Finding):
    """Trials with like values of two parameters."""

    trials: int
    mean: float | None = Field(description="of the outcome; null where there is no such trial")


class Interaction(Finding):
    """Whether the effect of one parameter depends on another: then neither can be read alone.

    Trials are grouped by both. Each group's own mean is held against the sum of an effect of the one and an effect of
    the other (Fisher's two-way analysis of variance with sums of squares of type II, as the groups differ in size).
    """

    one: str
    other: str
    outcome: str = Field(description="val_accuracy or seconds")
    trials: int
    one_groups: list[str] = Field(description="the rows of cells")
    other_groups: list[str] = Field(description="the columns of cells")
    cells: list[list[Cell]]
    share_one: float | None = Field(description="of the outcome's variance that the one explains beside the other")
    share_other: float | None = Field(description="of the variance that the other explains beside the one")
    share: float | None = Field(description="of the variance that their interaction explains beside both: eta squared")
    f: float | None = Field(description="the interaction's F statistic")
    f_df: tuple[int, int] | None = Field(description="its degrees of freedom")
    p: float | None = Field(description="of an F as large without any interaction")
    p_holm: float | None = Field(description="the same, corrected by Holm's method for the pairs of this outcome")
    reason: str | None = Field(description="why there is no test")


class Analysis(Finding):
    """What a job's trials say about its hyper-parameters.

    All but the counts is from trials that ran to their end (completed, or stopped early by their patience): what the
    pruner or the job's limit ended early reached less and took less for that reason. A list is looked at as its length
    and the mean of its items.
    """

    trials: dict[str, int] = Field(description="by state")
    used: int = Field(description="trials that ran to their end")
    parameters: list[str] = Field(description="what the job searches")
    effects: list[Effect]
    correlations: Correlations
    importances: list[Importance]
    interactions: list[Interaction] = Field(description="of every two parameters, the least likely by chance first")
