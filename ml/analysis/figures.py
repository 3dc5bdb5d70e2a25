"""A job's figures as plotly's JSON, drawn by Optuna if it has them."""

import base64
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from math import isfinite
from typing import Any

import numpy as np
import optuna
import plotly.graph_objects as go
from optuna import visualization
from optuna.trial import FrozenTrial, TrialState

from ml.analysis.correlations import correlations
from ml.analysis.design import Design
from ml.analysis.importances import LEAST, ped_anova, ranked
from ml.analysis.interactions import interactions
from ml.analysis.observations import Observation, Observations
from ml.analysis.plots import PLOTS, PlotOptions
from ml.analysis.studies import finished, of_trials, ran_to_end, study_of
from ml.records import epochs_of
from ml.registry import Registry
from ml.tuning.search import Search

MOST_AT_ONCE = 4  # parameters that are shown in pairs: sixteen panels
MOST_CURVES = 500  # learning curves; more are a block of colour and many megabytes

TOO_FEW = "fewer than two parameters differ between trials"

Draw = Callable[[optuna.Study, PlotOptions], go.Figure]
figures: Registry[Draw] = Registry("plot")


class NothingToShow(Exception):
    """The reason why a figure would be empty."""


def figure(name: str, search: Search, trials: Sequence[Observation], options: PlotOptions) -> dict[str, Any]:
    """Return a figure as plotly's JSON, with every number finite or null; without data a blank one says why."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna warns about trials that a figure leaves out
        try:
            if name in OF_OBSERVATIONS:
                observed = Observations.of(search.spec.search_space, trials, Design.of(search.spec))
                made = OF_OBSERVATIONS[name](observed, study_of(search, trials), options)
            else:
                made = figures[name](study_of(search, trials, options.min_accuracy), options)
        except NothingToShow as nothing:
            made = _blank(str(nothing))
    if name not in ("contour", "rank", "slice", "interactions"):  # these have titles already
        made.update_layout(title_text=PLOTS[name].title)  # a subtitle stays
    return dict(_plain(made.to_dict()))


@figures.register("optimization_history")
def _history(study: optuna.Study, options: PlotOptions) -> go.Figure:
    return visualization.plot_optimization_history(_with_trials(study), **_target(study, options))


@figures.register("intermediate_values")
def _curves(study: optuna.Study, options: PlotOptions) -> go.Figure:
    shown = [trial for trial in study.get_trials(deepcopy=False) if trial.intermediate_values]
    shown = [trial for trial in shown if trial.state != TrialState.FAIL][-MOST_CURVES:]
    if not shown:
        raise NothingToShow("no trial has been measured yet")
    figure = visualization.plot_intermediate_values(of_trials(study, shown))
    for trace, trial in zip(figure.data, shown, strict=True):
        trace.name, trace.x = f"Trial{trial.number}", [epochs_of(step) for step in sorted(trial.intermediate_values)]
    return figure.update_layout(xaxis_title="Epoch")


@figures.register("parallel_coordinate")
def _parallel(study: optuna.Study, options: PlotOptions) -> go.Figure:
    study = _with_trials(study)
    return visualization.plot_parallel_coordinate(study, params=_of_all(study), **_target(study, options))


@figures.register("slice")
def _slice(study: optuna.Study, options: PlotOptions) -> go.Figure:
    study = _with_trials(study)
    _of_all(study)
    return visualization.plot_slice(study, **_target(study, options))


@figures.register("contour")
def _contour(study: optuna.Study, options: PlotOptions) -> go.Figure:
    return _pairwise(visualization.plot_contour, study, options)


@figures.register("rank")
def _rank(study: optuna.Study, options: PlotOptions) -> go.Figure:
    return _pairwise(visualization.plot_rank, study, options)


@figures.register("timeline")
def _timeline(study: optuna.Study, options: PlotOptions) -> go.Figure:
    # Trials that ended before they were drawn have no times, and Optuna would give them the present.
    begun = [trial for trial in study.get_trials(deepcopy=False) if "seconds" in trial.user_attrs]
    if not begun:
        raise NothingToShow("no trial has begun yet")
    return visualization.plot_timeline(of_trials(study, begun))


def _importances(observed: Observations, study: optuna.Study, options: PlotOptions) -> go.Figure:
    study = ran_to_end(study)
    target = _target(study, options)
    if len(trials := finished(study)) < LEAST["ped_anova"]:
        raise NothingToShow(f"fewer than {LEAST['ped_anova']} trials have run to their end")
    names = [name for name in _of_all(study) if not observed.per_pack(name)]
    if not names:
        raise NothingToShow("all trials of a pack share every parameter, so importances cannot be determined")
    if observed.design.learned and not target:
        study = ranked(study)
    target |= _lowered(target, options)
    drawn = visualization.plot_param_importances(study, evaluator=ped_anova(len(trials)), params=names, **target)
    left = [name for name in _of_all(study) if name not in names]
    if left:
        note = f"Not determined, because all trials of a pack share them: {', '.join(left)}"
        drawn.update_layout(title_subtitle_text=note)
    return drawn


@figures.register("edf")
def _edf(study: optuna.Study, options: PlotOptions) -> go.Figure:
    return visualization.plot_edf(_with_trials(study), **_target(study, options))


@figures.register("pareto_front")
def _pareto(study: optuna.Study, options: PlotOptions) -> go.Figure:
    """Draw accuracy against a cost for all judged trials that have both, pruned ones included."""
    both = optuna.create_study(directions=["minimize", "maximize"])
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
        if {options.cost, "val_accuracy"} <= trial.user_attrs.keys():
            values = [float(trial.user_attrs[name]) for name in (options.cost, "val_accuracy")]
            both.add_trial(optuna.trial.create_trial(values=values, user_attrs={"trial": trial.number}))
    if not both.get_trials(deepcopy=False):
        raise NothingToShow(f"no trial has both accuracy and {options.cost}")
    return visualization.plot_pareto_front(both, target_names=[options.cost, "val_accuracy"])


def _correlations(observed: Observations, _: optuna.Study, options: PlotOptions) -> go.Figure:
    """Draw coefficients as a heat map; the one under the pointer has its number of observations and its p-value."""
    found = correlations(observed)
    given, chances = getattr(found, options.coefficient), getattr(found, f"{options.coefficient}_p")
    if not any(value is not None for row in given for value in row):
        raise NothingToShow(found.reasons[0].reason)
    chance = ", p %{customdata[1]:.2g}" if found.p_reason is None else ""
    rows = zip(found.n_effective, chances, strict=True)
    heat = go.Heatmap(
        x=found.variables,
        y=found.variables,
        z=[[1.0 if i == j else value for j, value in enumerate(row)] for i, row in enumerate(given)],
        customdata=[list(zip(counts, p_values, strict=True)) for counts, p_values in rows],
        hovertemplate=f"%{{y}}, %{{x}}: %{{z:.3f}}, n %{{customdata[0]}}{chance}<extra></extra>",
        zmin=-1,
        zmax=1,
        colorscale="RdBu",
        texttemplate="%{z:.2f}",
    )
    note = None if found.p_reason is None else f"No p-values: {found.p_reason}"
    return go.Figure(heat).update_yaxes(autorange="reversed").update_layout(title_subtitle_text=note)


def _interactions(observed: Observations, _: optuna.Study, __: PlotOptions) -> go.Figure:
    """Draw the outcome by the two parameters whose interaction has the lowest p-value, or the largest share."""
    found = next(iter(interactions(observed)), None)
    if found is None or found.f is None:
        raise NothingToShow(found.reason if found and found.reason else TOO_FEW)
    heat = go.Heatmap(
        x=found.other_groups,
        y=found.one_groups,
        z=[[cell.mean for cell in row] for row in found.cells],
        customdata=[[cell.trials for cell in row] for row in found.cells],
        hovertemplate="%{z:.4g}, mean of %{customdata} trials<extra></extra>",
        texttemplate="%{z:.4g}",
    )
    title = f"{found.outcome}: {found.one} and {found.other}"
    if found.p is not None:
        title += f", p {found.p:.2g}, by Holm {found.p_holm:.2g}"
    made = go.Figure(heat).update_layout(title=title)
    return made.update_xaxes(title=found.other, type="category").update_yaxes(title=found.one, type="category")


OF_OBSERVATIONS: dict[str, Callable[[Observations, optuna.Study, PlotOptions], go.Figure]] = {
    "param_importances": _importances,
    "correlations": _correlations,
    "interactions": _interactions,
}


def _pairwise(draw: Callable[..., go.Figure], study: optuna.Study, options: PlotOptions) -> go.Figure:
    """Draw a figure of pairs of parameters, the most important ones if there are many."""
    study = _with_trials(study)
    names, target = _of_all(study), _target(study, options)
    if len(names) < 2:
        raise NothingToShow(TOO_FEW)
    if len(names) > MOST_AT_ONCE:
        evaluator, lowered = ped_anova(len(finished(study))), _lowered(target, options)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=names, **lowered)
        names = sorted(list(found)[:MOST_AT_ONCE])
    return draw(study, params=names, **target)


def _with_trials(study: optuna.Study) -> optuna.Study:
    if not finished(study):
        raise NothingToShow("no trial has run to its end with this accuracy")
    return study


def _of_all(study: optuna.Study) -> list[str]:
    """Return the parameters that every finished trial has and that differ between these trials."""
    trials = finished(study)
    common = set.intersection(*(set(trial.params) for trial in trials))
    names = sorted(name for name in common if len({trial.params[name] for trial in trials}) > 1)
    if not names:
        raise NothingToShow("no parameter differs between the trials that ran to their end")
    return names


def _target(study: optuna.Study, options: PlotOptions) -> dict[str, Any]:
    """Return the arguments that make Optuna's functions show the target; {} for the objective."""
    if options.target == "objective":
        return {}
    if any(options.target not in trial.user_attrs for trial in finished(study)):
        raise NothingToShow(f"not every trial has {options.target}")
    return {"target": partial(_attribute, options.target), "target_name": options.target}


def _lowered(target: dict[str, Any], options: PlotOptions) -> dict[str, Any]:
    """Return the target as Optuna's importances take it, the lower the better; {} for the objective."""
    if not target:
        return {}
    sign, value = -1.0 if options.target == "val_accuracy" else 1.0, target["target"]
    return {"target": lambda trial: sign * value(trial)}


def _attribute(name: str, trial: FrozenTrial) -> float:
    return float(trial.user_attrs[name])


def _blank(reason: str) -> go.Figure:
    figure = go.Figure()
    figure.add_annotation(text=reason, showarrow=False, font_size=16)
    return figure.update_xaxes(visible=False).update_yaxes(visible=False)


def _plain(value: Any) -> Any:
    """Return plotly's values as JSON: arrays as lists, values that are not finite as null."""
    if isinstance(value, dict):
        return _array(value).tolist() if "bdata" in value else {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not isfinite(value) else value


def _array(packed: dict[str, Any]) -> Any:
    """An array that plotly has packed: base64 of its bytes, its type and its shape."""
    flat = np.frombuffer(base64.b64decode(packed["bdata"]), np.dtype(packed["dtype"]))
    shape = [int(size) for size in str(packed.get("shape", len(flat))).split(",")]
    return np.array(_plain(flat.tolist()), object).reshape(shape)
