"""The points of a finite search space that no trial has tried."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from ml.parameters.space import Scalar, point, points
from ml.seeds import SeedPurpose, derive
from ml.specs import TuneSpec


class UntriedPoints:
    """A sampler may draw a point again; in a finite space the trial then tries another point instead."""

    def __init__(self, spec: TuneSpec) -> None:
        self._seed = spec.seed
        self._all = [(point(draws), draws) for draws in points(spec.search_space)]

    def instead_of(
        self, number: int, suggestion: dict[str, Any], fixed: Mapping[str, Any], trials: Sequence[FrozenTrial]
    ) -> dict[str, Scalar] | None:
        """Return the point that a trial tries instead of its suggestion.

        Args:
            number: of the trial.
            suggestion: the draws of its sampler.
            fixed: draws that were given, not drawn: a person's, or the key of the trial's pack.
            trials: of the study.

        Returns:
            An untried point with the fixed draws, or any untried point; None if the suggestion is untried or no point
            is.
        """
        tried = {point(trial.params) for trial in trials if trial.number != number}
        if point(suggestion) not in tried:
            return None
        free = [draws for at, draws in self._all if at not in tried]
        given = set(point(fixed))
        near = [draws for draws in free if given <= point(draws)] or free
        if not near:
            return None
        draw = np.random.default_rng(derive(self._seed, SeedPurpose.SAMPLER, number))
        return near[int(draw.integers(len(near)))]
