"""The samplers and pruners: a contract that each keeps, and tests of single ones."""

import inspect
import json
import statistics
from itertools import groupby, product
from pydoc import locate
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import kstest

from ml.records import TrialRecord, TrialState
from ml.samplers import STEPS_PER_EPOCH, Pruner, Sampler, pruners, samplers
from ml.specs import TuneSpec
from ml.tuning.search import Search

# Optuna warns of the argument `group` for each new TPE sampler; ml ignores the warning, but pytest shows it again.
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

EACH_SAMPLER = pytest.mark.parametrize("sampler", samplers)
EACH_PRUNER = pytest.mark.parametrize("pruner", pruners)

RANGES = {
    "batch_size": {"type": "int", "low": 8, "high": 256, "log": True},
    "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
}
VALUES = {
    "batch_size": {"type": "grid", "values": [8, 16, 32, 64]},
    "learning_rate": {"type": "grid", "values": [0.1, 0.01, 0.001]},
    "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
}

# Arguments of Optuna's classes that our classes do not set, each with the reason. They must set all others.
LEFT_ALONE: dict[str, dict[str, tuple[Any, str]]] = {
    "tpe": {
        "consider_prior": (True, "deprecated in 4.3, without effect"),
        "prior_weight": (1.0, "deprecated in 4.9: stating it warns, and it goes in 6"),
        "consider_magic_clip": (True, "deprecated in 4.9: stating it warns, and it goes in 6"),
        "consider_endpoints": (False, "deprecated in 4.9: stating it warns, and it goes in 6"),
        "gamma": (lambda n: min(n, 25), "deprecated in 4.9: stating it warns, and it goes in 6"),
        "weights": (np.ones, "deprecated in 4.9: stating it warns, and it goes in 6"),
        "warn_independent_sampling": (False, "deprecated in 4.9, and touches no result"),
        "constraints_func": (lambda trial: (0.0,), "deprecated in 5.0; we have no constraints"),
    },
}


def _spec(sampler: str, pruner: str | dict[str, Any] = "none", **fields: Any) -> TuneSpec:
    space = VALUES if sampler == "grid" else RANGES
    chosen = {"name": pruner} if isinstance(pruner, str) else pruner
    body = {"model": "cnn", "search_space": space, "sampler": {"name": sampler}, "pruner": chosen}
    return TuneSpec.model_validate(body | {"budget": {"trials": 24, "epochs": 9}} | fields)


def _class(entry: type[Sampler] | type[Pruner]) -> Any:
    return locate(entry.optuna_class)


def _stated(spec: TuneSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of the sampler's class and of the pruner's."""
    return spec.sampler.arguments(spec.search_space, 7), spec.pruner.arguments(spec.budget.epochs)


def _parameters(kind: Any) -> set[str]:
    """Return the argument names of a class; a class without its own `__init__` has none."""
    return set() if kind.__init__ is object.__init__ else set(inspect.signature(kind).parameters)


# --- the contract


@EACH_SAMPLER
def test_a_sampler_is_the_optuna_class_it_names(sampler: str) -> None:
    """The class exists in Optuna, is a sampler, and takes the arguments given."""
    kind = _class(samplers[sampler])

    assert issubclass(kind, optuna.samplers.BaseSampler)
    assert isinstance(kind(**_stated(_spec(sampler))[0]), kind)


@EACH_PRUNER
@pytest.mark.parametrize("epochs", [1, 2, 9, 1000])
def test_a_pruner_is_the_optuna_class_it_names(pruner: str, epochs: int) -> None:
    """The class exists in Optuna, is a pruner, and takes the arguments given for any trial length."""
    kind = _class(pruners[pruner])
    arguments = pruners[pruner](name=pruner).arguments(epochs)

    assert issubclass(kind, optuna.pruners.BasePruner)
    assert isinstance(kind(**arguments), kind)


@EACH_SAMPLER
def test_every_argument_of_a_sampler_is_stated(sampler: str) -> None:
    """No default of Optuna decides: each argument is given, except those excluded above."""
    stated = set(_stated(_spec(sampler))[0])
    left_alone = set(LEFT_ALONE.get(sampler, {}))

    assert stated | left_alone == _parameters(_class(samplers[sampler]))
    assert not stated & left_alone


@EACH_PRUNER
def test_every_argument_of_a_pruner_is_stated(pruner: str) -> None:
    """No default of Optuna decides: each argument is given."""
    assert set(_stated(_spec("random", pruner))[1]) == _parameters(_class(pruners[pruner]))


@pytest.mark.parametrize(("sampler", "argument"), [(s, a) for s, found in LEFT_ALONE.items() for a in found])
def test_arguments_that_are_not_set_are_deprecated(sampler: str, argument: str) -> None:
    """Optuna warns if one of these arguments is given."""
    value, reason = LEFT_ALONE[sampler][argument]

    assert "deprecated" in reason
    with pytest.warns(FutureWarning, match=argument):
        _class(samplers[sampler])(**{argument: value})


@EACH_SAMPLER
def test_a_sampler_is_named_as_it_is_registered(sampler: str) -> None:
    """A sampler keeps its name in JSON, and refuses arguments that it does not have."""
    kept = _spec(sampler).model_dump(mode="json")["sampler"]

    assert kept["name"] == sampler
    with pytest.raises(ValidationError, match="n_jobs"):
        samplers[sampler].model_validate({"name": sampler, "n_jobs": 2})


@EACH_PRUNER
def test_a_pruner_is_named_as_it_is_registered(pruner: str) -> None:
    """A pruner keeps its name in JSON, and refuses arguments that it does not have."""
    kept = _spec("random", pruner).model_dump(mode="json")["pruner"]

    assert kept["name"] == pruner
    with pytest.raises(ValidationError, match="n_jobs"):
        pruners[pruner].model_validate({"name": pruner, "n_jobs": 2})


# --- draws


def _value(record: TrialRecord) -> float:
    """Return a made-up accuracy: best at a learning rate of 1e-3 and small batches."""
    drawn = record.suggestion or {}
    distance = abs(np.log10(drawn["learning_rate"]) + 3) + np.log2(drawn["batch_size"]) / 20
    return float(np.exp(-distance))


def _history(spec: TuneSpec, trials: int) -> list[TrialRecord]:
    """Return the records of completed trials, one after another."""
    search, records = Search(spec), []
    for number in range(trials):
        _, record = search.ask(number)
        record.state, record.value = TrialState.COMPLETED, _value(record)
        search.apply(record)
        records.append(record)
    return records


@EACH_SAMPLER
@pytest.mark.parametrize("trials", [0, 3, 15])
def test_the_same_seed_and_history_draw_the_same(sampler: str, trials: int) -> None:
    """Two searches with the same seed and the same records draw the same next trial."""
    spec = _spec(sampler, seed=5)
    history = _history(spec, trials)
    drawn = []
    for _ in range(2):
        search = Search(spec)
        for record in history:
            search.apply(record)
        drawn.append(search.ask(trials))

    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_another_seed_draws_other_trials(sampler: str) -> None:
    """The job's seed decides the draws, and each trial draws other values."""
    draws = [str(Search(_spec(sampler, seed=seed)).ask(number)[0]) for seed in (0, 1) for number in range(10)]

    assert len(set(draws)) == len(draws)


@EACH_PRUNER
def test_tpe_learns_from_earlier_trials(pruner: str) -> None:
    """After its startup trials TPE is closer to the best region than random draws, with any pruner."""
    tpe, random = (_history(_spec(name, pruner, seed=1), 60)[20:] for name in ("tpe", "random"))

    assert statistics.mean(map(_value, tpe)) > 1.5 * statistics.mean(map(_value, random))


def test_random_draws_fill_the_range() -> None:
    """200 random learning rates are uniform on a log scale, by a Kolmogorov-Smirnov test."""
    search = Search(_spec("random"))
    rates = [search.ask(number)[0].learning_rate for number in range(200)]

    assert kstest((np.log10(rates) + 5) / 4, "uniform").pvalue > 0.01


# --- the grid


def _points(search: Search, numbers: list[int]) -> list[tuple[Any, ...]]:
    drawn = [search.ask(number)[0] for number in numbers]
    return [(params.batch_size, params.learning_rate, params.optimizer) for params in drawn]


def test_a_grid_visits_every_combination_exactly_once() -> None:
    """As many trials as there are points visit each point once."""
    spec = _spec("grid")
    found = _points(Search(spec), list(range(spec.trial_limit)))

    assert sorted(found) == sorted(product([8, 16, 32, 64], [0.1, 0.01, 0.001], ["adam", "sgd"]))


def test_a_trials_number_is_its_place_in_the_grid() -> None:
    """Trainers that take numbers in any order visit the same points as a single trainer."""
    spec = _spec("grid")
    numbers = list(range(24))
    shuffled = np.random.default_rng(0).permutation(24).tolist()
    in_order = dict(zip(numbers, _points(Search(spec), numbers), strict=True))
    jumped = dict(zip(shuffled, _points(Search(spec), shuffled), strict=True))

    assert jumped == in_order


def test_a_grid_is_shuffled() -> None:
    """A grid that ends early has tried several regions, one key after another."""
    seen = _points(Search(_spec("grid")), list(range(8)))

    assert all(len(set(values)) > 1 for values in zip(*seen, strict=True))
    assert [batch for batch, _ in groupby(point[0] for point in seen)] == list(dict.fromkeys(p[0] for p in seen))


def test_a_grid_of_lists_visits_each_list() -> None:
    """Values that are lists are drawn as lists."""
    widths = [[64], [128, 64], [32, 32, 32]]
    body = {
        "model": "mlp",
        "search_space": {"hidden_sizes": {"type": "grid", "values": widths}},
        "sampler": {"name": "grid"},
        "budget": {"epochs": 1},
    }
    search = Search(TuneSpec.model_validate(body))
    drawn = [search.ask(number)[0].model_dump()["hidden_sizes"] for number in range(3)]

    assert sorted(drawn) == sorted(widths)


# --- pruning


def _verdicts(spec: TuneSpec, curves: list[list[float]]) -> list[int | None]:
    """Return, for each trial in turn, the epoch in which the pruner ended it."""
    search, found = Search(spec), []
    for number, curve in enumerate(curves):
        _, record = search.ask(number)
        ended = next((e for e, v in enumerate(curve, 1) if search.report({number: (e * STEPS_PER_EPOCH, v)})), None)
        record.state = TrialState.COMPLETED if ended is None else TrialState.PRUNED
        record.value = max(curve[:ended]) if spec.maximize else min(curve[:ended])
        search.apply(record)
        found.append(ended)
    return found


def _curves(seed: int, trials: int = 40, epochs: int = 9) -> list[list[float]]:
    """Return rising learning curves in 0..1, each to its own level."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.02, (trials, epochs))
    return (rng.random((trials, 1)) * (1 - 0.5 ** np.arange(1, epochs + 1)) + noise).tolist()


@EACH_PRUNER
def test_the_same_history_gives_the_same_verdicts(pruner: str) -> None:
    """A pruner ends the same trials at the same epochs each time."""
    spec, curves = _spec("random", pruner), _curves(0)

    assert _verdicts(spec, curves) == _verdicts(spec, curves)


@EACH_PRUNER
@pytest.mark.parametrize("objective", ["val_accuracy", "val_loss"])
def test_a_pruner_ends_the_worse_trials(pruner: str, objective: str) -> None:
    """Pruned trials would have ended worse on average than the others; `none` prunes nothing."""
    maximize = objective == "val_accuracy"
    curves = [curve if maximize else [1 - value for value in curve] for curve in _curves(1)]
    ends = _verdicts(_spec("random", pruner, objective=objective), curves)
    pruned = [curve[-1] for curve, end in zip(curves, ends, strict=True) if end is not None]
    kept = [curve[-1] for curve, end in zip(curves, ends, strict=True) if end is None]

    assert bool(pruned) == (pruner != "none")
    assert not pruned or (statistics.mean(kept) - statistics.mean(pruned)) * (1 if maximize else -1) > 0.1


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), startup=st.integers(0, 5), warmup=st.integers(0, 4))
def test_the_median_pruner_compares_with_the_median(seed: int, startup: int, warmup: int) -> None:
    """A trial ends in the first epoch after its warm-up that is below the median of completed trials."""
    curves = _curves(seed, trials=12, epochs=6)
    pruner = {"name": "median", "n_startup_trials": startup, "n_warmup_epochs": warmup}
    completed: list[list[float]] = []
    expected = []
    for curve in curves:
        judged = range(max(warmup, 1), 7) if len(completed) >= max(startup, 1) else ()
        worse = (e for e in judged if max(curve[:e]) < statistics.median(other[e - 1] for other in completed))
        expected.append(next(worse, None))
        completed += [curve] if expected[-1] is None else []

    assert _verdicts(_spec("random", pruner=pruner), curves) == expected


@pytest.mark.parametrize("pruner", ["successive_halving", "hyperband"])
def test_halving_prunes_only_at_its_rungs(pruner: str) -> None:
    """With a reduction of 3 from epoch 1, trials end only after 1, 3 or 9 epochs."""
    ends = _verdicts(_spec("random", pruner), _curves(2, trials=60, epochs=9))

    assert {end for end in ends if end is not None} <= {1, 3, 9}
    assert {1, 3} <= set(ends)


# --- rungs in tenths of an epoch


@pytest.mark.parametrize(
    ("pruner", "rungs"),
    [
        ({"name": "none"}, [10, 20, 30]),
        ({"name": "median"}, [10, 20, 30]),
        ({"name": "median", "n_warmup_epochs": 2}, [10, 20, 30]),
        ({"name": "successive_halving"}, [10, 20, 30]),
        ({"name": "successive_halving", "min_epochs": 2}, [10, 20, 30]),
        ({"name": "successive_halving", "min_epochs": 1.5}, [10, 20, 30]),
        ({"name": "successive_halving", "min_epochs": 0.1}, [1, 3, 9, 10, 20, 30]),
        ({"name": "successive_halving", "min_epochs": 0.3}, [3, 9, 10, 20, 30]),
        ({"name": "successive_halving", "min_epochs": 0.1, "min_early_stopping_rate": 1}, [3, 9, 10, 20, 30]),
        ({"name": "successive_halving", "min_epochs": 0.1, "min_early_stopping_rate": 20}, [10, 20, 30]),
        ({"name": "successive_halving", "min_epochs": 0.5, "reduction_factor": 2}, [5, 10, 20, 30]),
        ({"name": "hyperband"}, [10, 20, 30]),
        ({"name": "hyperband", "min_epochs": 0.1}, [1, 3, 9, 10, 20, 30]),
        ({"name": "hyperband", "min_epochs": 0.1, "reduction_factor": 2}, [1, 2, 4, 8, 10, 20, 30]),
        ({"name": "hyperband", "min_epochs": 0.7, "reduction_factor": 100}, [7, 10, 20, 30]),
    ],
)
def test_a_trial_is_measured_at_whole_epochs_and_early_rungs(pruner: dict[str, Any], rungs: list[int]) -> None:
    """Every pruner measures each whole epoch, and halving its early rungs too; in tenths, ascending."""
    assert list(_spec("random", pruner).pruner.rungs(3)) == rungs


@EACH_PRUNER
@given(epochs=st.integers(1, 1000), tenths=st.integers(1, 100), factor=st.integers(2, 100))
def test_rungs_ascend_to_the_last_epoch(pruner: str, epochs: int, tenths: int, factor: int) -> None:
    """Rungs ascend without repeats from at least one tenth to the trial's last epoch."""
    halving = {"min_epochs": tenths / 10, "reduction_factor": factor}
    chosen = pruners[pruner](name=pruner, **(halving if "min_epochs" in pruners[pruner].model_fields else {}))
    rungs = chosen.rungs(epochs)

    assert list(rungs) == sorted(set(rungs))
    assert set(range(10, 10 * epochs + 1, 10)) <= set(rungs)
    assert rungs[0] >= 1
    assert rungs[-1] == 10 * epochs


def _judged(spec: TuneSpec, trials: int) -> dict[int, list[int]]:
    """Return, for each trial, the steps at which Optuna's halving noted that it completed a rung."""
    search = Search(spec)
    steps = spec.pruner.rungs(spec.budget.epochs)
    found: dict[int, list[int]] = {}
    for number in range(trials):
        search.ask(number)
        rungs: list[int] = []
        for step in steps:
            pruned = search.report({number: (step, step / 1000 + 0.01 * number)})
            if len(search.attrs(number)) > len(rungs):
                rungs.append(step)
            if pruned:
                break
        found[number] = rungs
    return found


def test_halving_judges_at_its_early_rungs() -> None:
    """The best trial completes rungs at 0.1, 0.3 and 0.9 epochs, and those of 2.7 and 8.1 at 3 and 9."""
    halving = {"name": "successive_halving", "min_epochs": 0.1}

    assert set(map(tuple, _judged(_spec("random", halving), 10).values())) == {(1, 3, 9, 30, 90)}


@pytest.mark.long
def test_each_bracket_of_hyperband_judges_at_its_early_rungs() -> None:
    """A trial's first rung is that of its bracket: 0.1, 0.3, 0.9, … epochs, measured exactly there if below one."""
    found = set(map(tuple, _judged(_spec("random", {"name": "hyperband", "min_epochs": 0.1}), 200).values()))

    assert found == {(1, 3, 9, 30, 90), (3, 9, 30, 90), (9, 30, 90), (30, 90), (90,)}


@pytest.mark.parametrize("order", [1, -1])
def test_trials_that_reach_a_rung_together_are_judged_together(order: int) -> None:
    """The best third of twelve trials continues, in any order; the first trial gets no exception."""
    search = Search(_spec("random", {"name": "successive_halving", "min_epochs": 0.1}))
    levels = dict(enumerate(np.random.default_rng(0).random(12).tolist()))
    for number in levels:
        search.ask(number)
    ended = search.report({number: (1, levels[number]) for number in list(levels)[::order]})
    best = sorted(levels, key=lambda number: -levels[number])

    assert levels.keys() - ended == set(best[:4])
    assert min(levels) in ended


def test_an_early_rung_ends_the_worse_trials() -> None:
    """After a tenth of an epoch, about two thirds of the trials have ended, and they are the worse ones."""
    spec = _spec("random", {"name": "successive_halving", "min_epochs": 0.1})
    search = Search(spec)
    levels = np.random.default_rng(0).random(60)
    gone = []
    for number, level in enumerate(levels):
        search.ask(number)
        gone.append(bool(search.report({number: (1, level)})))

    assert 30 <= sum(gone) <= 50
    assert statistics.mean(levels[gone]) < statistics.mean(levels[~np.array(gone)]) - 0.3


@pytest.mark.parametrize("pruner", ["successive_halving", "hyperband"])
@pytest.mark.parametrize("value", [1, 1.0, 3, 0.1, 0.3, 0.7, 1.5, 1000, 0.1 + 0.2])
def test_the_first_rung_is_a_multiple_of_a_tenth(pruner: str, value: float) -> None:
    """Whole epochs, as int or float, and tenths are accepted and stay the same in JSON."""
    spec = _spec("random", {"name": pruner, "min_epochs": value})
    kept = TuneSpec.model_validate(json.loads(json.dumps(spec.model_dump(mode="json"))))

    assert spec.pruner.min_epochs == pytest.approx(value)  # type: ignore[attr-defined]
    assert spec.pruner.arguments(1000)["min_resource"] == round(value * STEPS_PER_EPOCH)
    assert kept.model_dump_json() == spec.model_dump_json()


@pytest.mark.parametrize("pruner", ["successive_halving", "hyperband"])
def test_the_first_rung_is_one_epoch_by_default(pruner: str) -> None:
    """The study has the same name if one epoch is given and if none is given."""
    written, left_out = (_spec("random", {"name": pruner, **f}) for f in ({"min_epochs": 1}, {}))

    assert Search(written).name == Search(left_out).name


def test_hyperband_starts_brackets_at_several_rungs() -> None:
    """Hyperband prunes fewer trials after their first epoch than halving from the first epoch does."""
    curves = _curves(3, trials=80)
    halving, hyperband = (_verdicts(_spec("random", name), curves) for name in ("successive_halving", "hyperband"))

    assert 0 < hyperband.count(1) < halving.count(1)


@EACH_PRUNER
def test_a_trial_of_one_epoch_can_be_drawn_and_reported(pruner: str) -> None:
    """Every pruner works if a job's trials last one epoch."""
    ends = _verdicts(_spec("random", pruner, budget={"trials": 5, "epochs": 1}), _curves(4, trials=5, epochs=1))

    assert len(ends) == 5


@EACH_SAMPLER
def test_a_samplers_notes_are_json(sampler: str) -> None:
    """Optuna's notes on a trial survive JSON, the form in which a job keeps them."""
    history = _history(_spec(sampler), 15)
    noted = [(record.suggestion, record.attrs) for record in history]

    assert [tuple(pair) for pair in json.loads(json.dumps(noted, allow_nan=False))] == noted
