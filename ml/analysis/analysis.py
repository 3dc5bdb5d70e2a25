"""The analysis of a job's trials."""

from collections import Counter
from collections.abc import Sequence

from ml.analysis.correlations import correlations
from ml.analysis.design import Design
from ml.analysis.findings import Analysis
from ml.analysis.groups import effects
from ml.analysis.importances import importances
from ml.analysis.interactions import interactions
from ml.analysis.observations import Observation, Observations
from ml.analysis.studies import study_of
from ml.tuning.search import Search


def analysis(search: Search, trials: Sequence[Observation]) -> Analysis:
    """Analyse trials by the hyper-parameters that a job searches; `search` has applied their records."""
    observed = Observations.of(search.spec.search_space, trials, Design.of(search.spec))
    return Analysis(
        trials=dict(sorted(Counter(str(trial.state) for trial in trials).items())),
        used=len(observed.trials),
        parameters=[column.name for column in observed.columns],
        effects=effects(observed),
        correlations=correlations(observed),
        importances=importances(study_of(search, trials), observed),
        interactions=interactions(observed),
    )
