"""The search: a study rebuilt from records draws and prunes like the study that made the records."""

import copy
import json
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from ml.networks import networks
from ml.parameters.space import SearchSpace
from ml.records import STEPS_PER_EPOCH, TrialRecord, TrialState
from ml.samplers import Sampler, pruners, samplers
from ml.specs import TuneSpec
from ml.tuning.key_study import FOLLOWS
from ml.tuning.keys import key_names, key_of
from ml.tuning.search import Search

# Optuna warns of the argument `group` for each new TPE sampler; ml ignores the warning, but pytest shows it again.
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

EPOCHS = 9
TRIALS = 25
EVERY_PAIR = pytest.mark.parametrize(("sampler", "pruner"), list(product(samplers, pruners)))

RANGES = {
    "batch_size": {"type": "int", "low": 8, "high": 256, "log": True},
    "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
    "momentum": {"type": "float", "low": 0.0, "high": 0.9, "step": 0.1},
    "weight_decay": 1e-4,
    "hidden_sizes": {
        "type": "list",
        "length": {"type": "int", "low": 1, "high": 3},
        "items": {"type": "int", "low": 16, "high": 64, "step": 16},
    },
}
VALUES = {
    "batch_size": {"type": "grid", "values": [8, 16, 32]},
    "learning_rate": {"type": "grid", "values": [0.1, 0.01, 0.001]},
    "hidden_sizes": {"type": "categorical", "choices": [[16], [32, 16], [32, 32, 32]]},
    "weight_decay": 1e-4,
}
# Few random trials, so that most of the 25 are drawn from earlier results.
SAMPLERS: dict[str, dict[str, Any]] = {"tpe": {"name": "tpe", "n_startup_trials": 3}}


def _spec(sampler: str, pruner: str = "none", **fields: Any) -> TuneSpec:
    body = {
        "model": "mlp",
        "search_space": VALUES if sampler == "grid" else RANGES,
        "sampler": SAMPLERS.get(sampler, {"name": sampler}),
        "pruner": {"name": pruner},
        "budget": {"trials": TRIALS, "epochs": EPOCHS},
    }
    return TuneSpec.model_validate(body | fields)


def _curve(record: TrialRecord) -> list[float]:
    """Return a made-up validation accuracy for each epoch: rising, best near a learning rate of 1e-3."""
    drawn = record.suggestion or {}
    level = np.exp(-abs(np.log10(drawn["learning_rate"]) + 3) - drawn["batch_size"] / 1000)
    noise = np.random.default_rng(record.number).normal(0, 0.02, EPOCHS)
    return [float(v) for v in level * (1 - 0.5 ** np.arange(1, EPOCHS + 1)) + noise]


def _end(number: int, pruned: bool) -> TrialState:
    """Return how a trial ends: most are completed or pruned, some fail, diverge or are cancelled."""
    accidents = {4: TrialState.DIVERGED, 9: TrialState.FAILED, 14: TrialState.CANCELLED, 19: TrialState.STOPPED_EARLY}
    return TrialState.PRUNED if pruned else accidents.get(number, TrialState.COMPLETED)


def _kept(records: list[TrialRecord]) -> list[TrialRecord]:
    """Return the records as a database returns them: through JSON, with steps as numbers again."""
    kept = []
    for record in records:
        row = json.loads(json.dumps(vars(record), allow_nan=False))
        values = {int(step): value for step, value in row["values"].items()}
        kept.append(TrialRecord(**row | {"state": TrialState(row["state"]), "values": values}))
    return kept


def _rebuilt(spec: TuneSpec, records: list[TrialRecord]) -> Search:
    search = Search(spec)
    for record in _kept(records):
        search.apply(record)
    return search


def _play(spec: TuneSpec, rebuild: bool, pack: int = 1, trials: int = TRIALS) -> list[TrialRecord]:
    """Run some trials without training, in one search or in a new one before every draw and every report.

    With a width above 1, trials are drawn in packs, given the key of the first.
    """
    records: list[TrialRecord] = []
    search = Search(spec)
    for number in range(trials):
        search = _rebuilt(spec, records) if rebuild else search
        first = number - number % pack
        _, record = search.ask(number, records[first].suggestion if first < number else None)
        records.append(record)
        pruned = False
        for epoch, value in enumerate(_curve(record), 1):
            search = _rebuilt(spec, records) if rebuild else search
            search.apply(record)
            pruned = search.report({number: (epoch * STEPS_PER_EPOCH, value)})
            record.values[epoch * STEPS_PER_EPOCH] = value
            record.attrs = search.attrs(number)
            if pruned:
                break
        record.state, record.value = _end(number, pruned), max(record.values.values())
        search.apply(record)
    return records


@pytest.mark.long
@EVERY_PAIR
def test_a_rebuilt_search_draws_and_prunes_like_the_original(sampler: str, pruner: str) -> None:
    """A study that is rebuilt from records before every step gives the same 25 trials as one that was kept."""
    spec = _spec(sampler, pruner, seed=3)
    lived, rebuilt = _play(spec, rebuild=False), _play(spec, rebuild=True)

    assert [record.suggestion for record in rebuilt] == [record.suggestion for record in lived]
    assert rebuilt == lived


@pytest.mark.long
@EVERY_PAIR
def test_a_rebuilt_search_draws_packs_like_the_original(sampler: str, pruner: str) -> None:
    """Trials are drawn four at a time, three of them given the key of the first."""
    spec = _spec(sampler, pruner, seed=9)
    lived, rebuilt = (_play(spec, rebuild, pack=4) for rebuild in (False, True))

    assert [record.suggestion for record in rebuilt] == [record.suggestion for record in lived]
    assert rebuilt == lived


@pytest.mark.parametrize("pruner", [name for name in pruners if name != "none"])
def test_the_made_up_curves_are_pruned_in_part(pruner: str) -> None:
    """Each pruner ends some of them and keeps some, so that the comparison above means something."""
    states = [record.state for record in _play(_spec("random", pruner, seed=3), rebuild=False)]

    assert 2 <= states.count(TrialState.PRUNED) <= TRIALS - 5


# --- a finite space


FINITE = {
    "batch_size": {"type": "categorical", "choices": [8, 16]},
    "learning_rate": {"type": "float", "low": 0.1, "high": 0.3, "step": 0.1},
    "hidden_sizes": {
        "type": "list",
        "length": {"type": "int", "low": 1, "high": 2},
        "items": {"type": "int", "low": 16, "high": 32, "step": 16},
    },
}


@pytest.mark.parametrize("pack", [1, 4])
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_each_point_of_a_finite_space_is_tried_once(sampler: str, pack: int) -> None:
    """The search ends after as many trials as there are points; a rebuilt search tries the same points."""
    spec = _spec(sampler, search_space=FINITE, budget={"trials": 100, "epochs": EPOCHS})
    lived, rebuilt = (_play(spec, rebuild, pack, trials=36) for rebuild in (False, True))
    known = {json.dumps(record.suggestion, sort_keys=True) for record in lived}

    assert spec.trial_limit == 2 * 3 * (2 + 4) == 36
    assert len(known) == 36
    assert rebuilt == lived


def test_a_search_of_an_earlier_release_repeats_points() -> None:
    """By rules 1 the number of trials is that of the budget, and each trial keeps its sampler's draw."""
    spec = _spec("random", search_space=FINITE, budget={"trials": 100, "epochs": EPOCHS}).under(1)
    records = _play(spec, rebuild=False, trials=36)

    assert spec.trial_limit == 100
    assert len({json.dumps(record.suggestion, sort_keys=True) for record in records}) < 36


def test_a_person_may_repeat_a_point() -> None:
    """Values that a person chose are kept."""
    search = Search(_spec("random", search_space=FINITE))
    chosen = {"batch_size": 8, "learning_rate": 0.1, "hidden_sizes.length": 1, "hidden_sizes.0": 16}
    suggestions = [search.ask(number, enqueued=chosen)[1].suggestion for number in range(2)]

    assert suggestions == [chosen, chosen]


# --- a pack


def _learned(spec: TuneSpec, seed: int = 0) -> list[TrialRecord]:
    """Return 60 records of random trials, completed, with the value of their last epoch."""
    search, records = Search(spec.model_copy(update={"sampler": samplers["random"](name="random"), "seed": seed})), []
    for number in range(60):
        _, record = search.ask(number)
        record.state, record.value = TrialState.COMPLETED, _curve(record)[-1]
        records.append(record)
    return records


@pytest.mark.parametrize("trials", [0, 60])
@pytest.mark.parametrize("sampler", [name for name in samplers if name != "grid"])
def test_a_trial_drawn_for_a_pack_has_the_packs_key(sampler: str, trials: int) -> None:
    """Early and late in a job, the deciding names have the values of the first trial, and the others are drawn."""
    spec = _spec(sampler)
    search = _rebuilt(spec, _learned(spec)[:trials])
    first, record = search.ask(trials)
    asked = [search.ask(number, record.suggestion) for number in range(trials + 1, trials + 9)]
    suggestions = [drawn.suggestion or {} for _, drawn in asked]

    assert {key_of(spec, params) for params, _ in asked} == {key_of(spec, first)}
    assert key_names(spec) == ("batch_size", "hidden_sizes.length")
    assert len({suggestion["learning_rate"] for suggestion in suggestions}) == 8
    assert all(suggestion.keys() == (record.suggestion or {}).keys() for suggestion in suggestions)


def test_the_values_that_a_pack_fixes_are_recorded_as_if_drawn() -> None:
    """In the study the values of the key are ordinary parameters, and the trial is marked as having adopted them."""
    spec = _spec("random")
    search = Search(spec)
    _, first = search.ask(0)
    _, record = search.ask(1, first.suggestion)
    plain, settled = search.trials()

    assert settled.params == record.suggestion
    assert {name: settled.distributions[name] for name in key_names(spec)} == {
        name: plain.distributions[name] for name in key_names(spec)
    }
    assert (first.attrs, record.attrs) == ({}, {FOLLOWS: True})


def test_later_draws_learn_from_the_trials_of_a_pack() -> None:
    """TPE's next draw for a pack depends on the results of the pack's earlier trials."""
    spec = _spec("tpe")
    records = _learned(spec)
    like = {"batch_size": 8, "hidden_sizes.length": 1}
    drawn = []
    for small_is_better in (True, False):
        search = _rebuilt(spec, records)
        for number in range(60, 84):
            params, record = search.ask(number, like)
            better = (params.learning_rate < 1e-3) == small_is_better
            # Above or below the values of all other trials.
            record.state, record.value = TrialState.COMPLETED, 2.0 if better else 0.0
            search.apply(record)
        drawn.append([search.ask(number, like)[0].learning_rate for number in range(84, 104)])

    assert np.median(drawn[0]) < 1e-3 < np.median(drawn[1])


def test_a_sampler_learns_from_the_trials_of_all_brackets() -> None:
    """A sampler learns after sixteen random trials, although none of hyperband's three brackets has sixteen yet."""

    def rates(startup: int) -> list[float]:
        spec = _spec("tpe", "hyperband").model_copy(update={"sampler": samplers["tpe"](n_startup_trials=startup)})
        search = _rebuilt(spec, _learned(spec)[:16])
        return [search.ask(number)[0].learning_rate for number in range(16, 26)]

    at_random, learned = rates(100), rates(16)

    assert rates(17) == at_random
    assert not set(at_random) & set(learned)


def test_each_trial_of_a_pack_is_drawn_with_its_own_seed() -> None:
    """The same records, number and pack draw the same trial, in any order of calls; another number draws another."""
    spec = _spec("tpe", seed=2)
    records = _learned(spec)
    like = records[0].suggestion
    orders = [[60, 61, 62], [62, 60, 61]]
    asked = []
    for order in orders:
        found = {}
        for number in order:
            search = _rebuilt(spec, records)
            found[number] = search.ask(number, like)
        asked.append(found)

    assert asked[0] == asked[1]
    assert len({params.learning_rate for params, _ in asked[0].values()}) == 3


def test_the_learning_rate_is_drawn_for_the_packs_batch_size() -> None:
    """Small batches need a small learning rate here and large ones a large rate, and packs of each get it."""
    spec = _spec("tpe", search_space={name: RANGES[name] for name in ("batch_size", "learning_rate")})
    records = [record for seed in range(4) for record in _learned(spec, seed)]
    for number, record in enumerate(records):
        drawn = record.suggestion or {}
        best = -4 + 2 * np.log2(drawn["batch_size"] / 8) / 5  # 1e-4 at a batch of 8, 1e-2 at one of 256
        record.number, record.value = number, float(np.exp(-abs(np.log10(drawn["learning_rate"]) - best)))
    rates = {}
    for batch in (8, 256):
        search = _rebuilt(spec, records)
        asked = [search.ask(number, {"batch_size": batch})[0] for number in range(240, 260)]
        rates[batch] = np.log10([params.learning_rate for params in asked])

    assert abs(np.median(rates[8]) - -4) < 0.4
    assert abs(np.median(rates[256]) - -2) < 0.4


@pytest.mark.parametrize("kind", ["TPESampler", "QMCSampler"])
def test_a_new_sampler_that_ignores_packs_draws_for_them(kind: str) -> None:
    """A sampler that ignores fixed values draws the other values as usual, and the pack's key is kept."""

    class Newcomer(Sampler):
        optuna_class = f"optuna.samplers.{kind}"
        name: str = "newcomer"

        def arguments(self, space: SearchSpace, seed: int) -> dict[str, Any]:
            flags = {"scramble": True} if kind == "QMCSampler" else {"multivariate": True, "constant_liar": False}
            return {"seed": seed} | flags

    spec = _spec("random").model_copy(update={"sampler": Newcomer()})
    records = _learned(spec)
    drawn = {}
    for batch in (8, 256):
        search = _rebuilt(spec, records)
        like = {"batch_size": batch, "hidden_sizes.length": 1}
        drawn[batch] = [search.ask(number, like) for number in range(60, 64)]

    for batch, asked in drawn.items():
        assert {params.batch_size for params, _ in asked} == {batch}
        assert {len(record.suggestion or {}) for _, record in asked} == {6}
    assert [params.learning_rate for params, _ in drawn[8]] == [params.learning_rate for params, _ in drawn[256]]


# --- two trainers


def _exchange(spec: TuneSpec, searches: list[Search]) -> list[TrialRecord]:
    """Run trials two at a time, one in each search, and apply every change to both; one search may be given twice."""
    records: list[TrialRecord] = []
    for first in range(0, TRIALS - 1, 2):
        running = {}
        for number in (first, first + 1):
            running[number] = searches[number % 2].ask(number)[1]
            records.append(running[number])
            _share(searches, running[number])
        for epoch in range(1, EPOCHS + 1):
            for number, record in list(running.items()):
                value = _curve(record)[epoch - 1]
                pruned = searches[number % 2].report({number: (epoch * STEPS_PER_EPOCH, value)})
                record.values[epoch * STEPS_PER_EPOCH] = value
                record.attrs = searches[number % 2].attrs(number)
                if pruned or epoch == EPOCHS:
                    record.state, record.value = _end(number, pruned), max(record.values.values())
                    del running[number]
                _share(searches, record)
    return records


def _share(searches: list[Search], record: TrialRecord) -> None:
    for search in searches:
        search.apply(*_kept([record]))


@pytest.mark.long
@EVERY_PAIR
def test_two_trainers_draw_and_prune_as_one_would(sampler: str, pruner: str) -> None:
    """Two searches that exchange records, with trials running in both, give the trials of one search."""
    spec = _spec(sampler, pruner, seed=4)
    alone, pair = Search(spec), [Search(spec), Search(spec)]

    assert _exchange(spec, pair) == _exchange(spec, [alone, alone])


@pytest.mark.parametrize("sampler", samplers)
def test_two_trainers_keep_each_trials_number(sampler: str) -> None:
    """A trial has the job's number in both studies."""
    spec = _spec(sampler)
    searches = [Search(spec), Search(spec)]
    records = _exchange(spec, searches)
    studies = [search.trials() for search in searches]

    assert [record.number for record in records] == list(range(TRIALS - 1))
    for trials in studies:
        assert [trial.number for trial in trials] == list(range(TRIALS - 1))
        assert [trial.params for trial in trials] == [record.suggestion for record in records]


def test_a_trial_may_be_drawn_before_those_with_lower_numbers() -> None:
    """A trainer that first hears of trial 7 creates the seven before it."""
    spec = _spec("random")
    search, in_order = Search(spec), Search(spec)
    late = search.ask(7)
    early = search.ask(2)

    assert [in_order.ask(number) for number in range(8)][7] == late
    assert in_order.ask(2)[0] == early[0]


# --- applied records


def test_applying_twice_changes_nothing() -> None:
    """A record that arrives again, even after the trial has ended, leaves the search as it is."""
    spec = _spec("tpe", "median", seed=5)
    records = _play(spec, rebuild=False)
    once, twice = _rebuilt(spec, records), _rebuilt(spec, records)
    for record in records:
        twice.apply(copy.deepcopy(record))

    assert twice.ask(TRIALS) == once.ask(TRIALS)


def test_the_order_of_records_does_not_matter() -> None:
    """If records arrive in another order than the trials', the same next trial is drawn."""
    spec = _spec("tpe", "hyperband", seed=6)
    records = _play(spec, rebuild=False)

    assert _rebuilt(spec, records[::-1]).ask(TRIALS) == _rebuilt(spec, records).ask(TRIALS)


@pytest.mark.parametrize("state", list(TrialState))
def test_every_state_of_a_trial_can_be_applied(state: TrialState) -> None:
    """A search accepts a trial in any state, with a value if it was judged and without one if not."""
    spec = _spec("tpe")
    _, record = Search(spec).ask(0)
    record.state, record.value = state, 0.5 if state.judged else None
    search = _rebuilt(spec, [record])

    assert search.ask(1)[1].number == 1
    assert _rebuilt(spec, [record]).ask(1) == search.ask(1)


def test_a_trial_that_diverged_late_is_not_among_the_best() -> None:
    """Its earlier values do not count: the next trials are drawn as if it had diverged at once."""
    spec = _spec("tpe", "median", seed=3)
    records = [replace(record, state=TrialState.PRUNED, value=None) for record in _play(spec, rebuild=False)]
    for record in records:
        record.values = dict(list(record.values.items())[:1])
    late, at_once = (
        [replace(records[0], state=TrialState.DIVERGED, values=values), *records[1:]]
        for values in ({10 * epoch: 0.99 for epoch in range(1, 9)}, {})
    )

    assert _rebuilt(spec, late).ask(TRIALS) == _rebuilt(spec, at_once).ask(TRIALS)


def test_a_search_that_missed_a_second_run_of_a_trial_learns_its_result() -> None:
    """A trial failed, ran again elsewhere, and completed before this search heard of it."""
    spec = _spec("tpe", "median", seed=4)
    records = _play(spec, rebuild=False)
    failed = [replace(records[0], state=TrialState.FAILED, value=None, values={}), *records[1:]]
    search = _rebuilt(spec, failed)
    search.apply(records[0])

    assert search.ask(TRIALS) == _rebuilt(spec, records).ask(TRIALS)


# --- resuming a trial


@EVERY_PAIR
def test_a_resumed_trial_has_the_parameters_it_was_drawn_with(sampler: str, pruner: str) -> None:
    """`recall` returns from the record what `ask` returned, through JSON and in another search."""
    spec = _spec(sampler, pruner, seed=7)
    search = Search(spec)
    asked = [search.ask(number) for number in range(10)]
    resumed = [Search(spec).recall(*_kept([record])) for _, record in asked]

    assert resumed == [params for params, _ in asked]


@pytest.mark.parametrize("model", networks)
def test_a_trial_of_the_default_space_can_be_resumed(model: str) -> None:
    """`recall` returns what `ask` returned for the default space of every network."""
    spec = TuneSpec.model_validate({"model": model})
    params, record = Search(spec).ask(0)

    assert Search(spec).recall(*_kept([record])) == params


@pytest.mark.parametrize("ended", [TrialState.RUNNING, TrialState.FAILED, TrialState.COMPLETED])
@pytest.mark.parametrize("pruner", pruners)
def test_a_trial_that_begins_again_is_judged_from_its_start(pruner: str, ended: TrialState) -> None:
    """Its earlier measurements are forgotten: it is pruned as if it had never been measured before."""
    spec = _spec("random", pruner, seed=8)
    records = _play(spec, rebuild=False)
    _, fresh = _rebuilt(spec, records).ask(TRIALS)
    verdicts = []
    for values in ({}, {epoch * STEPS_PER_EPOCH: 0.9 for epoch in range(1, 5)}):
        begun = TrialRecord(TRIALS, ended if values else TrialState.RUNNING, fresh.suggestion, fresh.attrs, values, 0.9)
        search = _rebuilt(spec, [*records, begun])
        search.apply(TrialRecord(TRIALS, TrialState.RUNNING, fresh.suggestion, fresh.attrs))
        verdicts.append([search.report({TRIALS: (epoch * STEPS_PER_EPOCH, 0.01)}) for epoch in range(1, EPOCHS + 1)])

    assert verdicts[1] == verdicts[0]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_enqueued_values_are_not_drawn(sampler: str) -> None:
    """An enqueued trial has the requested values; the others are drawn as usual."""
    spec = _spec(sampler)
    name, value = "learning_rate", 0.0123
    params, record = Search(spec).ask(0, None, {name: value})
    _, free = Search(spec).ask(0)

    assert params.learning_rate == value
    assert (record.suggestion or {})[name] == value
    assert set(record.suggestion or {}) == set(free.suggestion or {})


def test_a_raised_budget_does_not_change_the_study() -> None:
    """A job with a raised budget continues like a job that was posted with that budget."""
    names = {Search(_spec("tpe", budget={"trials": n, "seconds": s})).name for n, s in ((5, 10), (50, 1000))}

    assert len(names) == 1
    assert Search(_spec("tpe", budget={"trials": 5, "epochs": 7})).name not in names


def test_a_trial_that_was_ended_elsewhere_is_not_judged() -> None:
    """If a trial was cancelled while its epoch was measured, no more is recorded for it."""
    search = Search(_spec("random", "median"))
    _, record = search.ask(0)
    search.apply(TrialRecord(0, TrialState.CANCELLED, record.suggestion))

    assert search.report({0: (STEPS_PER_EPOCH, 0.5)}) == set()


# --- fields of the specification


def test_the_objective_decides_which_values_are_better() -> None:
    """A job for accuracy prunes the lower of two values, and a job for loss the higher."""
    verdicts = {}
    for objective in ("val_accuracy", "val_loss"):
        search = Search(_spec("random", "median", objective=objective))
        for number in range(6):
            _, record = search.ask(number)
            search.report({number: (STEPS_PER_EPOCH, 0.5)})
            record.values = {STEPS_PER_EPOCH: 0.5}
            record.state, record.value = TrialState.COMPLETED, 0.5
            search.apply(record)
        search.ask(6)
        search.ask(7)
        verdicts[objective] = search.report({6: (STEPS_PER_EPOCH, 0.9), 7: (STEPS_PER_EPOCH, 0.1)})

    assert verdicts == {"val_accuracy": {7}, "val_loss": {6}}


def test_a_space_of_fixed_values_draws_them() -> None:
    """Without a range, each trial has the fixed values, and its suggestion is empty."""
    params, record = Search(_spec("tpe", search_space={"batch_size": 5, "hidden_sizes": [7, 9]})).ask(0)

    assert params.model_dump(include={"batch_size", "hidden_sizes"}) == {"batch_size": 5, "hidden_sizes": [7, 9]}
    assert record.suggestion == {}
