"""The result of a run-off, as recorded and answered; accuracies are shares, 0..1, of validation images."""

from pydantic import BaseModel


class Disagreement(BaseModel, frozen=True):
    """McNemar's test on one split: the validation images that only one of two networks got right."""

    only_leader: int
    only_other: int
    exact: float
    mid: float


class Duel(BaseModel, frozen=True):
    """The leader compared with another finalist: mean difference of accuracy, 95 % interval and p-values.

    Interval, `error` and `p` are for this pair alone. `p_adjusted` is adjusted after Holm for all pairs.
    """

    trial: int
    difference: float
    error: float | None = None  # standard error of the difference; None in verdicts of release 0.2
    low: float
    high: float
    t: float | None
    p: float
    p_adjusted: float
    tied: bool
    disagreements: list[Disagreement]  # one per split


class Contender(BaseModel, frozen=True):
    """A finalist over all splits: mean accuracy, 95 % interval, and the drop from the accuracy in the search."""

    trial: int
    weights: int | None
    flops: int | None  # of one image
    searched: float
    accuracies: list[float]
    accuracy: float
    low: float
    high: float
    drop: float
    tied: bool  # as good as the leader by the rules, or the leader itself


class Verdict(BaseModel, frozen=True):
    """The result of a run-off."""

    rules: int = 1  # the rules of the job, which decide who is tied with the leader
    cuts: int  # splits into training and validation
    train_images: int
    validation_images: int
    contenders: list[Contender]  # the most accurate first
    duels: list[Duel]  # in the order of contenders
    leader: int | None  # the most accurate; None if no trial was trained to its end
    winner: int | None  # the smallest of the leader and those tied with it
    lost: dict[int, str]  # trials that were not trained to their end on every split, with the reason
