"""The results of an analysis, as answers of the API; this module imports nothing heavy."""

from pydantic import BaseModel, ConfigDict, Field

Matrix = list[list[float | None]]


class Finding(BaseModel):
    """A part of an analysis; a value that cannot be computed is null, with a reason."""

    # A number that is not finite is a bug, so it ends the analysis and is never answered.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Group(Finding):
    """Trials with similar values of a parameter, and their results."""

    label: str = Field(description="the value, or the lowest and highest of the range")
    trials: int
    val_accuracy: float | None = Field(description="mean; null if no trial has one")
    val_accuracy_sd: float | None = Field(description="standard deviation (n - 1); null for fewer than two trials")
    seconds: float | None = Field(
        description="mean of each trial's share of its pack's time; by rules 1 all trials of a pack have equal shares"
    )
    seconds_sd: float | None


class Effect(Finding):
    """Accuracy and time by the values of one parameter."""

    parameter: str
    groups: list[Group] = Field(description="one per value if there are at most six, else six ranges of similar size")
    reason: str | None = Field(description="why there are no groups to compare")


class Gap(Finding):
    """The reason why two variables have no coefficient."""

    one: str
    other: str
    reason: str


class Correlations(Finding):
    """Correlation matrices of all pairs of variables, over the trials that have both.

    Rows and columns are `variables`: first the parameters, then the outcomes. A parameter with names as values has one
    variable for each name except the first, which is 1 in trials with that name. Pearson's r is of the values, not of
    their logarithms. A parameter that all trials of a pack share has one observation per pack, with the pack's means.
    The p-values are two-sided and not corrected for multiple tests. They are null if the draws are not independent.
    """

    variables: list[str]
    n: list[list[int]] = Field(description="number of trials that have both")
    n_effective: list[list[int]] = Field(description="number of observations: trials, or packs if they share a value")
    pearson: Matrix
    pearson_p: Matrix
    spearman: Matrix
    spearman_p: Matrix
    reasons: list[Gap] = Field(description="one for each pair without a coefficient")
    p_reason: str | None = Field(description="why there are no p-values")


class Importance(Finding):
    """The importance of each parameter for the objective, by one method."""

    method: str = Field(description="ped_anova or fanova")
    source: str = Field(description="publication of the method")
    values: dict[str, float] | None = Field(description="by Optuna's name of the parameter; the sum is 1")
    trials: int = Field(description="number of trials used")
    ranked: bool = Field(
        description="true if the values are of ranks among trials of the same time, because the sampler learned"
    )
    undetermined: list[str] = Field(description="parameters that all trials of a pack share, which are left out")
    reason: str | None = Field(description="why there are no values")


class Cell(Finding):
    """Trials with similar values of two parameters."""

    trials: int
    mean: float | None = Field(description="mean of the outcome; null if there is no such trial")


class Interaction(Finding):
    """A test of whether the effect of one parameter depends on another; if so, neither can be read alone.

    Trials are grouped by both parameters. The mean of each cell is compared with the sum of two separate effects: a
    two-way analysis of variance (Fisher) with type II sums of squares, because the cells differ in size.
    """

    one: str
    other: str
    outcome: str = Field(description="val_accuracy or seconds")
    trials: int
    one_groups: list[str] = Field(description="labels of the rows of cells")
    other_groups: list[str] = Field(description="labels of the columns of cells")
    cells: list[list[Cell]]
    share_one: float | None = Field(description="share of the outcome's variance that `one` explains beyond `other`")
    share_other: float | None = Field(description="share of the variance that `other` explains beyond `one`")
    share: float | None = Field(
        description="share of the variance that the interaction explains beyond both: eta squared"
    )
    f: float | None = Field(description="F statistic of the interaction")
    f_df: tuple[int, int] | None = Field(description="degrees of freedom of the F statistic")
    p: float | None = Field(
        description="p-value: the probability of such an F without an interaction; null if draws are not independent"
    )
    p_holm: float | None = Field(description="p-value corrected by Holm's method for all pairs of this outcome")
    reason: str | None = Field(description="why there is no test or no p-value")


class Analysis(Finding):
    """The analysis of a job's hyper-parameters.

    Everything except the counts uses only trials that ran to their end: completed, or stopped early by their patience.
    Trials that the pruner or the job's time limit ended reached less and took less time for that reason. A list
    parameter is analysed by its length and the mean of its items.
    """

    trials: dict[str, int] = Field(description="number of trials by state")
    used: int = Field(description="number of trials that ran to their end")
    parameters: list[str] = Field(description="parameters that the job searches")
    effects: list[Effect]
    correlations: Correlations
    importances: list[Importance]
    interactions: list[Interaction] = Field(description="one per pair of parameters and outcome, by p-value")
