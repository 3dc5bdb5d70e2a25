"""What a run-off came to, as it is recorded and answered. Accuracies are shares, 0..1, of validation images."""

from pydantic import BaseModel


class Disagreement(BaseModel, frozen=True):
    """One cut's validation images that one of two networks got right and the other did not: McNemar's test."""

    only_leader: int
    only_other: int
    exact: float
    mid: float


class Duel(BaseModel, frozen=True):
    """The leader against another: mean difference of accuracy, its 95 % interval, p, and p adjusted after Holm.

    Interval and p are those of this pair alone; the adjusted p, which decides, is for all pairs of finalists.
    """

    trial: int
    difference: float
    low: float
    high: float
    t: float | None
    p: float
    p_adjusted: float
    tied: bool
    disagreements: list[Disagreement]  # a cut


class Contender(BaseModel, frozen=True):
    """A finalist over all cuts: mean accuracy, its 95 % interval, and how far that is below what the search showed."""

    trial: int
    weights: int | None
    flops: int | None  # of one image
    searched: float
    accuracies: list[float]
    accuracy: float
    low: float
    high: float
    drop: float
    tied: bool  # with the leader, or the leader itself


class Verdict(BaseModel, frozen=True):
    """What a run-off came to."""

    cuts: int
    train_images: int
    validation_images: int
    contenders: list[Contender]  # the most accurate first
    duels: list[Duel]  # in the same order
    leader: int | None  # the most accurate, None where none was trained to its end
    winner: int | None  # the smallest of those that are tied with the leader
    lost: dict[int, str]  # trials that were not trained to their end on every cut, and why
