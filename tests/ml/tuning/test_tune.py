"""Tuning: whole jobs on the small data set, with the in-memory book."""

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import count, pairwise
from math import inf
from time import monotonic
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from sklearn.metrics import accuracy_score, log_loss

from ml.artifacts import load_checkpoint, save_checkpoint
from ml.lanes.layer import Form, LaneLayer
from ml.lanes.layers import LANE_LAYERS
from ml.layers import Flatten, Layer, Linear, Shape, ShapeError, from_json
from ml.network.evaluate import probabilities
from ml.network.modules import module_of
from ml.networks import Network, networks
from ml.parameters.params import Params
from ml.records import (
    Checkpoint,
    Event,
    Finished,
    Measured,
    PackRecord,
    RungResult,
    Started,
    Stop,
    TrialRecord,
    TrialState,
)
from ml.samplers import pruners, samplers
from ml.seeds import SeedPurpose, derive
from ml.specs import TrainSpec, TuneSpec
from ml.training.lane import TrainingData, objective
from ml.tuning.admission import Room
from ml.tuning.book import MemoryBook
from ml.tuning.search import Search
from ml.tuning.tune import tune

# Optuna warns of the argument `group` for each new TPE sampler; ml ignores the warning, but pytest shows it again.
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

RATES = {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}, "batch_size": 64}


def _spec(**fields: Any) -> TuneSpec:
    """Return a job, by default of four short trials of a perceptron, one after another."""
    body = {
        "model": "perceptron",
        "dataset": "digits",
        "search_space": RATES,
        "sampler": {"name": "random"},
        "pruner": {"name": "none"},
        "lanes": 1,
        "budget": {"trials": 4, "epochs": 2},
    }
    return TuneSpec.model_validate(body | fields)


def _grid(rates: list[float], **fields: Any) -> TuneSpec:
    """Return a job that tries each learning rate once."""
    space = {"learning_rate": {"type": "grid", "values": rates}, "batch_size": 64}
    return _spec(**{"search_space": space, "sampler": {"name": "grid"}, "budget": {"epochs": 2}} | fields)


def _run(spec: TuneSpec, data: TrainingData, kind: type[MemoryBook] = MemoryBook) -> tuple[MemoryBook, list[Event]]:
    """Run a job to its end; return its book and its events."""
    events: list[Event] = []
    book = kind(spec, events.append)
    tune(spec, data, book, Search(spec))
    return book, events


def _states(book: MemoryBook) -> list[TrialState]:
    return [trial.state for trial in book.trials.values()]


def _finished(events: list[Event]) -> list[Finished]:
    return [event for event in events if isinstance(event, Finished)]


def _started(events: list[Event]) -> list[Started]:
    return [event for event in events if isinstance(event, Started)]


def _curves(events: list[Event]) -> dict[int, list[RungResult]]:
    """Return the measurements of each trial."""
    found: dict[int, list[RungResult]] = defaultdict(list)
    for event in events:
        if isinstance(event, Measured):
            found[event.number].append(event.measurement)
    return found


def _timeless(event: Event) -> str:
    """Return everything about an event except durations; weights as their bits."""
    return repr(_without_seconds(asdict(event)))


def _without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_seconds(v) for k, v in value.items() if k != "seconds"}
    return value.tobytes() if isinstance(value, np.ndarray) else value


# --- the events, in order


def test_every_trial_starts_is_measured_and_finishes_once(digits_data: TrainingData) -> None:
    """The events of a trial are one start, a measurement per epoch and one end; numbers start at 0."""
    book, events = _run(_spec(), digits_data)
    kinds = [(event.number, type(event)) for event in events]

    assert kinds == [(n, kind) for n in range(4) for kind in (Started, Measured, Measured, Finished)]
    assert _states(book) == [TrialState.COMPLETED] * 4


@pytest.mark.parametrize("lanes", [2, 3, 4])
def test_every_trial_of_a_pack_starts_is_measured_and_finishes_once(lanes: int, digits_data: TrainingData) -> None:
    """In any pack, a trial's events are one start, a measurement per epoch and one end."""
    book, events = _run(_spec(lanes=lanes), digits_data)
    kinds = {n: [type(event) for event in events if event.number == n] for n in range(4)}
    begun = [start.number for start in _started(events)]

    assert list(kinds.values()) == [[Started, Measured, Measured, Finished]] * 4
    assert begun == list(range(4))
    assert all(isinstance(event, Started) for event in events[:lanes])
    assert _states(book) == [TrialState.COMPLETED] * 4


def test_a_start_event_has_everything_that_a_run_depends_on(digits_data: TrainingData) -> None:
    """It has all hyper-parameters, and the seeds that follow from the job's seed and the trial's number."""
    _, events = _run(_spec(seed=12), digits_data)
    starts = _started(events)

    used = {name for name, value in Params() if value is not None}  # null is a recipe that is not used

    assert all(set(start.params) == used for start in starts)
    assert [start.init_seed for start in starts] == [derive(12, SeedPurpose.INIT, n) for n in range(4)]
    assert [start.stream_seed for start in starts] == [derive(12, SeedPurpose.STREAM, n) for n in range(4)]
    assert [start.start_step for start in starts] == [0] * 4


def test_trials_of_a_pack_share_its_first_trials_stream(digits_data: TrainingData) -> None:
    """Each trial has its own initial weights; a trial that replaces a finished one starts at the stream's position."""
    _, events = _run(_spec(seed=12, lanes=2), digits_data)  # an epoch is 21 steps, two are 41
    starts = _started(events)

    assert [start.init_seed for start in starts] == [derive(12, SeedPurpose.INIT, n) for n in range(4)]
    assert [start.stream_seed for start in starts] == [derive(12, SeedPurpose.STREAM, 0)] * 4
    assert [start.start_step for start in starts] == [0, 0, 41, 41]


def _lowest_free(events: list[Event]) -> dict[int, int]:
    """Return each trial's expected lane: the lowest that no running trial holds when it starts."""
    held: dict[int, int] = {}
    found: dict[int, int] = {}
    for event in events:
        if isinstance(event, Started):
            found[event.number] = held[event.number] = min(set(range(len(held) + 1)) - set(held.values()))
        elif isinstance(event, Finished):
            del held[event.number]
    return found


EPOCHS_DIFFER = {"epochs": {"type": "grid", "values": [1, 2, 3, 4, 5, 6]}, "batch_size": 256}


def test_a_trial_takes_the_lowest_free_lane(digits_data: TrainingData) -> None:
    """Trials that begin together have lanes 0, 1, 2; one that joins later has the lane of one that ended."""
    _, events = _run(_grid([], search_space=EPOCHS_DIFFER, lanes=3, budget={"epochs": 6}), digits_data)
    lanes = {start.number: start.lane for start in _started(events)}

    assert list(lanes.values())[:3] == [0, 1, 2]
    assert lanes == _lowest_free(events)
    assert sorted(list(lanes.values())[3:]) != [0, 0, 0]


@pytest.mark.parametrize("after", [5, 12, 20])
def test_a_resumed_pack_assigns_the_same_lanes(after: int, digits_data: TrainingData) -> None:
    """A pack that is released and opened again gives the trials that join it the lanes they would have had."""
    spec = _grid([], search_space=EPOCHS_DIFFER, lanes=3, budget={"epochs": 6})
    expected = {start.number: start.lane for start in _started(_run(spec, digits_data)[1])}
    events: list[Event] = []
    book = _Lost(spec, events.append)
    asked = count()
    book.should_stop = lambda: Stop.RELEASED if next(asked) > after else None  # type: ignore[method-assign]
    tune(spec, digits_data, book, Search(spec))
    begun = len(_started(events))
    del book.should_stop
    book.take_up()
    tune(spec, digits_data, book, Search(spec))

    assert begun < 6
    assert {start.number: start.lane for start in _started(events)} == expected


def test_a_trial_that_is_moved_to_its_own_pack_has_the_first_lane(
    monkeypatch: pytest.MonkeyPatch, digits_data: TrainingData
) -> None:
    """A trial whose layers turn out to be of other kinds trains alone; the next trial takes lane 1."""

    def uneven(channels: int, height: int, width: int, classes: int, params: Params) -> list[Layer]:
        inputs = channels * height * width
        hidden = [Linear(inputs, 4)] if 0.2 < params.weight_decay < 0.8 else []  # no corner of the space shows it
        return [Flatten(), *hidden, Linear(4 if hidden else inputs, classes)]

    monkeypatch.setitem(networks, "uneven", Network(uneven, Params, {}, "For a test."))
    space = {"weight_decay": {"type": "grid", "values": [0.0, 0.5, 0.9]}, "batch_size": 64}
    book, events = _run(_grid([], model="uneven", search_space=space, lanes=3), digits_data)
    lanes = {start.params["weight_decay"]: start.lane for start in _started(events)}

    assert _states(book) == [TrialState.COMPLETED] * 3
    assert sorted(lanes.values()) == [0, 0, 1]
    assert lanes[0.5] == 0


def test_everything_recorded_is_finite_or_null(digits_data: TrainingData) -> None:
    """All events, even of a diverged trial, are JSON without NaN; weights are not compared."""
    wild = {"learning_rate": {"type": "grid", "values": [0.01, 10.0]}, "optimizer": "sgd", "hidden_sizes": [256, 128]}
    spec = _spec(model="mlp", loss="mse", search_space=wild, sampler={"name": "grid"}, budget={"epochs": 2})
    book, events = _run(spec, digits_data)
    rows = [{k: v for k, v in asdict(event).items() if k != "checkpoint"} for event in events]
    cards = [event.checkpoint.card for event in _finished(events) if event.checkpoint]

    assert sorted(_states(book)) == [TrialState.COMPLETED, TrialState.DIVERGED]
    assert json.loads(json.dumps([rows, cards], allow_nan=False))


# --- budgets


@pytest.mark.parametrize("sampler", samplers)
@pytest.mark.parametrize(("trials", "lanes"), [(1, 1), (7, 1), (7, 3), (2, 3)])
def test_a_budget_of_trials_is_exact(sampler: str, trials: int, lanes: int, digits_data: TrainingData) -> None:
    """As many trials begin as the budget says, with any number of lanes, and each of them ends."""
    grid = {"learning_rate": {"type": "grid", "values": [n / 1000 for n in range(1, 10)]}}
    space = grid if sampler == "grid" else RATES
    budget = {"trials": trials, "epochs": 1}
    spec = _spec(search_space=space, sampler={"name": sampler}, budget=budget, lanes=lanes)
    book, events = _run(spec, digits_data)

    assert len(book.trials) == len(_finished(events)) == trials


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_grid_ends_with_its_points(lanes: int, digits_data: TrainingData) -> None:
    """A grid without a budget tries each point once."""
    rates = [0.1, 0.01, 0.001]
    _, events = _run(_grid(rates, lanes=lanes), digits_data)
    tried = [event.params["learning_rate"] for event in _started(events)]

    assert sorted(tried, reverse=True) == rates


def test_a_grid_is_tried_one_key_at_a_time(digits_data: TrainingData) -> None:
    """Points with different batch sizes never share a pack, and each is tried once."""
    space = {
        "learning_rate": {"type": "grid", "values": [0.1, 0.01, 0.001]},
        "batch_size": {"type": "grid", "values": [64, 128]},
    }
    _, events = _run(_grid([], search_space=space, lanes=4), digits_data)
    packs = defaultdict(set)
    for start in _started(events):
        packs[start.stream_seed].add(start.params["batch_size"])

    assert len(_started(events)) == 6
    assert sorted(packs.values(), key=min) == [{64}, {128}]


def test_the_time_limit_ends_a_trial_that_has_been_measured(digits_data: TrainingData) -> None:
    """When time is up, the running trial ends as stopped early and may win, and no other begins."""
    spec = _spec(budget={"seconds": 0.5, "epochs": 1000}, search_space={"batch_size": 1})
    began = monotonic()
    book, events = _run(spec, digits_data)

    assert _states(book) in ([TrialState.STOPPED_EARLY], [TrialState.CANCELLED])  # the latter on a very slow machine
    assert 0.5 < monotonic() - began < 10
    assert len(_curves(events)[0]) < 1000


def test_no_trial_begins_after_the_time_limit(digits_data: TrainingData) -> None:
    """A job without time left ends at once, with no trial and no winner."""
    book, events = _run(_spec(budget={"seconds": 1e-9}), digits_data)

    assert (events, book.trials, book.winner) == ([], {}, None)


@dataclass
class _Watched(MemoryBook):
    """A book that stops after `patience` calls of `should_stop`: one before each trial and each training step."""

    stop: Stop = Stop.SECONDS
    patience: int = 30
    asked: int = 0

    def should_stop(self) -> Stop | None:
        self.asked += 1
        return self.stop if self.asked > self.patience else None


@pytest.mark.parametrize(
    ("stop", "patience", "measured", "state"),
    [
        (Stop.SECONDS, 10, 0, TrialState.CANCELLED),
        (Stop.SECONDS, 30, 1, TrialState.STOPPED_EARLY),
        (Stop.CANCELLED, 10, 0, TrialState.CANCELLED),
        (Stop.CANCELLED, 30, 1, TrialState.CANCELLED),
    ],
)
def test_a_stop_ends_the_running_trial_at_its_next_step(
    stop: Stop, patience: int, measured: int, state: TrialState, digits_data: TrainingData
) -> None:
    """When time is up, measurements count; a cancelled trial, or one that was never measured, cannot win."""
    spec = _spec()  # an epoch is 21 steps
    events: list[Event] = []
    book = _Watched(spec, events.append, stop=stop, patience=patience)
    tune(spec, digits_data, book, Search(spec))
    (finished,) = _finished(events)

    assert (len(_curves(events)[0]), finished.state) == (measured, state)
    assert (finished.checkpoint is not None) == state.judged
    assert (book.winner is finished) == state.judged


@pytest.mark.parametrize(
    ("stop", "state"), [("seconds", TrialState.STOPPED_EARLY), ("cancelled", TrialState.CANCELLED)]
)
def test_a_stop_ends_every_running_trial(stop: str, state: TrialState, digits_data: TrainingData) -> None:
    """All lanes of a pack end at its next step, and no other trial begins."""
    spec = _spec(lanes=3)  # an epoch is 21 steps
    events: list[Event] = []
    book = _Watched(spec, events.append, stop=Stop(stop), patience=30)
    tune(spec, digits_data, book, Search(spec))

    assert _states(book) == [state] * 3
    assert [len(curve) for curve in _curves(events).values()] == [1] * 3


# --- the ends of trials


def test_early_stopping_ends_trials_and_they_may_win(digits_data: TrainingData) -> None:
    """A trial that no longer improves ends as stopped early, and its best epoch counts."""
    book, events = _run(_spec(early_stopping={"patience": 1, "min_delta": 50.0}, budget={"trials": 2}), digits_data)

    assert _states(book) == [TrialState.STOPPED_EARLY] * 2
    assert [len(curve) for curve in _curves(events).values()] == [2, 2]
    assert book.winner is not None


def test_a_trials_epochs_parameter_is_capped_by_the_budget(digits_data: TrainingData) -> None:
    """In a search over `epochs`, each trial ends after its own number of epochs, or after the budget's if lower."""
    space = {"epochs": {"type": "grid", "values": [1, 2, 5]}, "batch_size": 256}
    _, events = _run(_grid([], search_space=space, budget={"epochs": 3}), digits_data)
    asked = {event.number: event.params["epochs"] for event in events if isinstance(event, Started)}

    assert sorted((asked[n], len(curve)) for n, curve in _curves(events).items()) == [(1, 1), (2, 2), (5, 3)]


def _median_prunes(curves: dict[int, list[float]]) -> dict[int, bool]:
    """Return, for each trial in turn, whether it falls below the median of the trials completed before it."""
    pruned: dict[int, bool] = {}
    for number, curve in curves.items():
        done = [curves[n] for n, early in pruned.items() if not early]
        below = [max(curve[:e]) < statistics.median(d[e - 1] for d in done) for e in range(1, len(curve) + 1) if done]
        pruned[number] = any(below[:-1]) or (len(curve) < 3 and any(below))
    return pruned


def test_trials_below_the_median_are_pruned(digits_data: TrainingData) -> None:
    """Among good and bad learning rates, exactly the trials below the median of the completed ones are pruned."""
    rates = [0.01, 0.02, 1e-7, 2e-7, 3e-7, 4e-7, 0.03, 5e-7]
    spec = _grid(rates, pruner={"name": "median", "n_startup_trials": 1}, budget={"epochs": 3})
    book, events = _run(spec, digits_data)
    curves = {number: [m.val_accuracy or 0 for m in curve] for number, curve in _curves(events).items()}
    pruned = {number: trial.state == TrialState.PRUNED for number, trial in book.trials.items()}

    assert pruned == _median_prunes(curves)
    assert 0 < sum(pruned.values()) < 8
    assert all(len(curves[number]) < 3 for number, early in pruned.items() if early)


def test_a_pruned_trial_may_win(digits_data: TrainingData) -> None:
    """The results of a pruned trial count: it has a checkpoint of its best epoch."""
    spec = _grid([0.01, 1e-7, 2e-7, 3e-7], pruner={"name": "median", "n_startup_trials": 1}, budget={"epochs": 3})
    _, events = _run(spec, digits_data)
    pruned = [event for event in _finished(events) if event.state == TrialState.PRUNED]

    assert pruned
    assert all(event.checkpoint and event.best and event.reason.startswith("pruned") for event in pruned)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> str:
    """Register, during a test, a network that torch cannot run if its hidden size is odd."""
    monkeypatch.setattr(Layer, "kinds", dict(Layer.kinds))

    @dataclass(frozen=True)
    class GLU(Layer):
        """A layer that gates one half of the features by the other half; torch raises if their number is odd."""

        def output_shape(self, shape: Shape) -> Shape:
            return (shape[0] // 2,)

    class LaneGLU(LaneLayer):
        def build(self, layers: Sequence[Any], form: Form) -> Form:
            return Form((form.shape[0] // 2,), [torch.arange(form.shape[0] // 2) for _ in layers])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.x = x
            return torch.nn.functional.glu(x, 2)

        def backward(self, delta: torch.Tensor, *, wanted: bool) -> torch.Tensor:
            asked: torch.Tensor = torch.ops.aten.glu_backward(delta, self.x, 2)
            return asked

    class GatedParams(Params):
        hidden_size: int = Field(8, ge=2)

    def gated(channels: int, height: int, width: int, classes: int, params: GatedParams) -> list[Layer]:
        hidden = params.hidden_size
        return [Flatten(), Linear(channels * height * width, hidden), GLU(), Linear(hidden // 2, classes)]

    monkeypatch.setitem(LANE_LAYERS, GLU, LaneGLU)
    monkeypatch.setitem(networks, "gated", Network(gated, GatedParams, {}, "For a test."))
    return "gated"


@pytest.mark.parametrize("lanes", [1, 4, None])
def test_an_error_ends_its_trial_and_the_job_goes_on(lanes: int | None, broken: str, digits_data: TrainingData) -> None:
    """A trial in which torch raises fails, with the error as reason and without a checkpoint; the others complete."""
    space = {"hidden_size": {"type": "grid", "values": [8, 9, 10, 11]}}
    book, events = _run(_grid([], model=broken, search_space=space, lanes=lanes), digits_data)
    sizes = {event.number: event.params["hidden_size"] for event in _started(events)}
    failed = [event for event in _finished(events) if event.state == TrialState.FAILED]

    assert sorted(sizes[event.number] for event in failed) == [9, 11]
    assert all(event.checkpoint is None and event.best is None for event in failed)
    assert all(event.reason.startswith("RuntimeError: Halving dimension must be even") for event in failed)
    assert sorted(_states(book)) == [TrialState.COMPLETED] * 2 + [TrialState.FAILED] * 2


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_network_that_cannot_be_built_ends_only_its_trial(
    lanes: int, monkeypatch: pytest.MonkeyPatch, digits_data: TrainingData
) -> None:
    """If a network's function raises, the trial fails before its first step, and the others complete."""

    class PickyParams(Params):
        hidden_size: int = Field(8, ge=2)

    def picky(channels: int, height: int, width: int, classes: int, params: PickyParams) -> list[Layer]:
        if params.hidden_size == 9 and params.weight_decay > 0:
            raise ShapeError("not together")
        return [Flatten(), Linear(channels * height * width, classes)]

    monkeypatch.setitem(networks, "picky", Network(picky, PickyParams, {}, "For a test."))
    values = {"hidden_size": [8, 9], "weight_decay": [0.0, 0.5]}
    space = {name: {"type": "grid", "values": listed} for name, listed in values.items()}
    book, events = _run(_grid([], model="picky", search_space=space, lanes=lanes), digits_data)
    (failed,) = [event for event in _finished(events) if event.state == TrialState.FAILED]
    params = next(start.params for start in _started(events) if start.number == failed.number)

    assert failed.reason == "ShapeError: not together"
    assert (params["hidden_size"], params["weight_decay"]) == (9, 0.5)
    assert sorted(_states(book)) == [TrialState.COMPLETED] * 3 + [TrialState.FAILED]


def test_a_diverged_trial_does_not_end_the_job(digits_data: TrainingData) -> None:
    """A trial that diverges gives its reason and has no checkpoint, and the others go on."""
    space = {"learning_rate": {"type": "grid", "values": [10.0, 0.01]}, "optimizer": "sgd", "hidden_sizes": [256, 128]}
    spec = _spec(model="mlp", loss="mse", search_space=space, sampler={"name": "grid"}, budget={"epochs": 2})
    book, events = _run(spec, digits_data)
    (diverged,) = [event for event in _finished(events) if event.state == TrialState.DIVERGED]

    assert diverged.checkpoint is None
    assert "learning rate" in diverged.reason
    assert book.winner is not None
    assert book.winner.state == TrialState.COMPLETED


# --- the winner

accuracies = st.integers(0, 8).map(lambda n: n / 8)
endings = st.lists(st.tuples(st.sampled_from(TrialState), accuracies, accuracies), max_size=12)


@given(endings=endings, name=st.sampled_from(["val_accuracy", "val_loss"]))
def test_the_winner_is_the_best_judged_trial(endings: list[tuple[TrialState, float, float]], name: str) -> None:
    """The best objective of trials with a checkpoint wins, or the first of equals; without any there is no winner."""
    spec = _spec(objective=name, budget={"trials": 12})
    book = MemoryBook(spec)
    judged = {}
    for number, (state, loss, accuracy) in enumerate(endings):
        book.reserve(lambda number: True)
        best = RungResult(10, 1, 0.5, loss, accuracy, 1.0)
        event = Finished(number, state, "", best, objective(spec, best), Checkpoint({}, {}) if state.judged else None)
        book.record([event])
        if state.judged:
            judged[number] = accuracy if name == "val_accuracy" else -loss

    assert (book.winner and book.winner.number) == (max(judged, key=lambda n: judged[n]) if judged else None)


@pytest.mark.parametrize("name", ["val_accuracy", "val_loss"])
def test_the_winner_has_the_best_of_all_measurements(name: str, digits_data: TrainingData) -> None:
    """After a job, no trial has measured a better value than the winner's best."""
    spec = _spec(objective=name, budget={"trials": 5, "epochs": 3})
    book, events = _run(spec, digits_data)
    values = [objective(spec, m) for curve in _curves(events).values() for m in curve]
    best = max if spec.maximize else min

    assert book.winner is not None
    assert objective(spec, book.winner.best) == best(v for v in values if v is not None)


def test_a_checkpoint_is_the_winners_network(tmp_path: Any, digits_data: TrainingData) -> None:
    """Saved, loaded and rebuilt from its card, the winner's network has the recorded accuracy and loss."""
    book, _ = _run(_spec(model="mlp", search_space={"hidden_sizes": [20, 10]}, budget={"trials": 2}), digits_data)
    assert book.winner is not None
    assert book.winner.checkpoint is not None

    saved = save_checkpoint(tmp_path / "best.safetensors", book.winner.checkpoint)
    checkpoint = load_checkpoint(tmp_path / "best.safetensors", saved.sha256)
    card = checkpoint.card
    module = module_of(from_json(card["layers"]), 0)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in checkpoint.weights.items()})
    validation = digits_data.validation.to("cpu")
    found = probabilities(module, validation.images).astype(np.float64)
    labels = validation.labels.numpy()

    assert accuracy_score(labels, found.argmax(1)) == pytest.approx(card["val_accuracy"])
    assert log_loss(labels, found / found.sum(1, keepdims=True)) == pytest.approx(card["val_loss"], rel=1e-4)
    assert (card["shape"], card["classes"]) == ([1, 28, 28], list("0123456789"))
    assert (card["trial"], card["params"]["hidden_sizes"]) == (book.winner.number, [20, 10])
    assert TuneSpec.model_validate(card["spec"]) == book.spec


# --- repeated jobs


@pytest.mark.long
@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize(
    ("sampler", "pruner"), [("random", "none"), ("random", "hyperband"), *(("tpe", pruner) for pruner in pruners)]
)
def test_a_seed_gives_the_same_job(sampler: str, pruner: str, lanes: int, digits_data: TrainingData) -> None:
    """A job that is run twice has the same trials, measurements, ends and weights, bit for bit."""
    chosen = {"tpe": {"name": "tpe", "n_startup_trials": 2}}.get(sampler, {"name": sampler})
    budget = {"trials": 6, "epochs": 3}
    spec = _spec(sampler=chosen, pruner={"name": pruner}, budget=budget, seed=2, lanes=lanes)
    first, second = ([_timeless(event) for event in _run(spec, digits_data)[1]] for _ in range(2))

    assert first == second


def test_another_seed_gives_another_job(digits_data: TrainingData) -> None:
    """The seed decides draws and initial weights."""
    accuracies = [[e.best for e in _finished(_run(_spec(seed=seed), digits_data)[1])] for seed in (0, 1)]

    assert all(one and two and one.val_loss != two.val_loss for one, two in zip(*accuracies, strict=True))


def test_a_training_job_trains_as_a_trial_does(digits_data: TrainingData) -> None:
    """A training job is one trial with the requested parameters."""
    body = {"model": "shallow", "dataset": "digits", "params": {"hidden_size": 12}, "budget": {"epochs": 2}}
    book, events = _run(TrainSpec.model_validate(body).as_tune(), digits_data)
    (started,) = [event for event in events if isinstance(event, Started)]

    assert started.params["hidden_size"] == 12
    assert _states(book) == [TrialState.COMPLETED]
    assert book.winner is not None


# --- a lost pack


class _Killed(Exception):
    """The trainer was killed."""


@dataclass
class _Lost(MemoryBook):
    """A book that outlives its trainer, which is killed at a given call, before or after the call's work was done."""

    calls: int = 0
    kill_at: int = -1
    before: bool = False
    kept: Checkpoint | None = None
    pack: list[int] = field(default_factory=list)  # the trials of the open pack
    opening: bool = False

    def open(self) -> PackRecord | None:
        self.opening = True  # a claim and its first trial are one transaction
        opened = super().open()
        self.opening = False
        self.pack = [trial.number for trial in opened.trials] if opened else []
        self.kept = opened.checkpoint if opened else None
        return opened

    def reserve(self, fits: Callable[[int], bool]) -> TrialRecord | None:
        if self.opening:
            return super().reserve(fits)
        with self._call():
            reserved = super().reserve(fits)
            self.pack += [] if reserved is None else [reserved.number]
            return reserved

    def record(self, events: Sequence[Event]) -> None:
        with self._call():
            super().record(events)

    def keep(self, checkpoint: Checkpoint) -> None:
        with self._call():
            arrays = {name: array.copy() for name, array in checkpoint.weights.items()}
            self.kept = Checkpoint(arrays, json.loads(json.dumps(checkpoint.card)))

    def divide(self, groups: Sequence[Sequence[int]]) -> None:
        with self._call():
            super().divide(groups)
            self.pack = [number for number in self.pack if not any(number in group for group in groups)]

    def take_up(self) -> None:
        """Offer the lost pack to the next trainer, which knows nothing of it."""
        if self._opened is not None:
            trials = [replace(self.trials[n], rungs=dict(self.trials[n].rungs)) for n in self.pack]
            self._divided.insert(0, replace(self._opened, trials=trials, lanes=self._width or 1, checkpoint=self.kept))
        self._changed = list(self.trials.values())

    @contextmanager
    def _call(self) -> Iterator[None]:
        self.calls += 1
        if self.calls == self.kill_at and self.before:
            raise _Killed
        yield
        if self.calls == self.kill_at:
            raise _Killed


def _survived(
    spec: TuneSpec, data: TrainingData, kill_at: int, before: bool, every: float
) -> tuple[_Lost, list[Event]]:
    """Run a job whose trainer is killed once; return the book and all events."""
    events: list[Event] = []
    book = _Lost(spec, events.append, checkpoint_seconds=every, kill_at=kill_at, before=before)
    try:
        tune(spec, data, book, Search(spec))
    except _Killed:
        book.take_up()
        tune(spec, data, book, Search(spec))
    return book, events


TWO_KEYS = {**RATES, "batch_size": {"type": "categorical", "choices": [32, 64]}}
SURVIVORS: list[dict[str, Any]] = [
    {"lanes": 1, "pruner": {"name": "median", "n_startup_trials": 1}},
    {"lanes": 2, "pruner": {"name": "hyperband", "min_epochs": 0.1}},
    {"lanes": 3, "early_stopping": {"patience": 1, "min_delta": 0.3}, "pruner": {"name": "none"}},
]


@pytest.mark.long
@pytest.mark.parametrize("every", [0.0, 0.05, inf], ids=["often", "now and then", "never"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("shape", SURVIVORS, ids=lambda shape: f"{shape['lanes']} lanes")
def test_a_lost_pack_ends_as_if_it_had_never_been_lost(
    shape: dict[str, Any], before: bool, every: float, digits_data: TrainingData
) -> None:
    """If a trainer is killed at any call, trials, measurements, ends and weights are the same, each recorded once."""
    tpe = {"name": "tpe", "n_startup_trials": 2}
    spec = _spec(sampler=tpe, budget={"trials": 5, "epochs": 2}, seed=3, search_space=TWO_KEYS, **shape)
    book, events = _survived(spec, digits_data, -1, before, inf)
    expected = [_timeless(event) for event in events]
    calls = _survived(spec, digits_data, -1, before, every)[0].calls if every else 40
    # The calls of all cases together are every third one; with no checkpoints each costs a whole search.
    for kill_at in range(4 if before else 1, min(calls, 40) + 1, 6 if every else 14):
        survivor, again = _survived(spec, digits_data, kill_at, before, every)

        assert [_timeless(event) for event in again] == expected, f"killed at call {kill_at}"
        assert survivor.winner is not None
        assert book.winner is not None
        assert survivor.winner.number == book.winner.number


def test_a_released_pack_resumes_where_it_stopped(digits_data: TrainingData) -> None:
    """It is checkpointed at the step of the request, and no end of a trial is recorded."""
    spec = _spec(seed=3, lanes=2)
    expected = [_timeless(event) for event in _run(spec, digits_data)[1]]
    events: list[Event] = []
    book = _Lost(spec, events.append)
    asked = count()
    book.should_stop = lambda: Stop.RELEASED if next(asked) > 50 else None  # type: ignore[method-assign]
    tune(spec, digits_data, book, Search(spec))
    kept = book.kept
    del book.should_stop
    book.take_up()
    tune(spec, digits_data, book, Search(spec))

    assert kept is not None
    assert kept.card["position"] > 10
    assert [_timeless(event) for event in events] == expected


def test_a_trial_that_is_cancelled_leaves_its_pack_at_the_next_step(digits_data: TrainingData) -> None:
    """The other trial goes on, and no more is recorded of the cancelled trial."""
    spec = _spec(seed=3, lanes=2, budget={"trials": 2, "epochs": 2})
    events: list[Event] = []
    book = _Lost(spec, events.append)
    book.cancelled = lambda: {1} if any(isinstance(event, Measured) for event in events) else ()  # type: ignore[method-assign]
    tune(spec, digits_data, book, Search(spec))

    assert [m.step for m in _curves(events)[0]] == [10, 20]
    assert [m.step for m in _curves(events)[1]] == [10]
    assert [e.number for e in _finished(events)] == [0]


@dataclass
class _Clocked(MemoryBook):
    """A book with its own clock: a call takes 10 ms, a checkpoint a given time."""

    cost: float = 0.0
    now: float = 0.0
    keeps: int = 0

    def should_stop(self) -> Stop | None:
        self.now += 0.01
        return None

    def keep(self, checkpoint: Checkpoint) -> None:
        self.now += self.cost
        self.keeps += 1


@pytest.mark.long
@pytest.mark.parametrize("cost", [0.001, 0.02, 0.1])
def test_checkpoints_take_at_most_two_percent_of_the_time(
    cost: float, digits_data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds for any cost of a checkpoint, even without a minimum time between two."""
    spec = _spec(budget={"trials": 4, "epochs": 20})
    book = _Clocked(spec, cost=cost, checkpoint_seconds=0.0)
    monkeypatch.setattr("ml.training.checkpointing.monotonic", lambda: book.now)
    tune(spec, digits_data, book, Search(spec))

    assert book.keeps >= 2
    assert book.keeps * cost <= 0.02 * book.now + 4 * cost  # each of four packs makes its first at once


# --- keys


def test_a_search_in_wide_packs_meets_many_keys(digits_data: TrainingData) -> None:
    """Of 48 trials with 8 lanes, the first packs have one trial each, and all three batch sizes are tried."""
    batches = {"type": "categorical", "choices": [16, 32, 64]}
    fields = {"search_space": {**RATES, "batch_size": batches}, "lanes": 8, "budget": {"trials": 48, "epochs": 1}}
    book, events = _run(_spec(**fields), digits_data)
    packs = Counter(event.stream_seed for event in events if isinstance(event, Started))
    earlier, _ = _run(_spec(**fields).under(1), digits_data)

    assert set(list(packs.values())[:28]) == {1}
    assert max(packs.values()) == 3
    assert _batch_sizes(book) == {16, 32, 64}
    assert len(_batch_sizes(earlier)) < 3


def _batch_sizes(book: MemoryBook) -> set[int]:
    return {(trial.suggestion or {})["batch_size"] for trial in book.trials.values()}


@pytest.mark.parametrize(
    ("first", "room"), [(0, (1, 0)), (27, (1, 0)), (28, (2, 0)), (111, (7, 0)), (112, (8, 0)), (336, (8, 16))]
)
def test_a_pack_takes_a_fourteenth_of_the_trials_before_it(first: int, room: tuple[int, int]) -> None:
    """It has at most eight lanes here, and at most two refills for each."""
    found = Room.spread(first, 8)

    assert (found.lanes, found.refills) == room


# --- the book


def test_a_book_reports_each_change_once(digits_data: TrainingData) -> None:
    """A second call returns no changes."""
    book = MemoryBook(_spec())
    trial = book.reserve(lambda number: True)
    assert trial is not None

    book.record([Measured(trial.number, RungResult(10, 64, 0.5, 0.4, 0.9, 1.0), {"rung": 1})])
    told = [[(t.number, t.values, t.attrs) for t in book.changes()] for _ in range(2)]

    assert told == [[(0, {10: 0.9}, {"rung": 1})], []]


def test_the_book_keeps_what_a_search_needs(digits_data: TrainingData) -> None:
    """A search that is rebuilt from the book after a job draws the trial that would have come next."""
    sampler = {"name": "tpe", "n_startup_trials": 2}
    spec = _spec(sampler=sampler, pruner={"name": "median"}, budget={"trials": 6, "epochs": 2}, seed=4)
    longer = _spec(sampler=sampler, pruner={"name": "median"}, budget={"trials": 7, "epochs": 2}, seed=4)
    book, _ = _run(spec, digits_data)
    _, events = _run(longer, digits_data)
    search = Search(longer)
    for trial in book.trials.values():
        search.apply(trial)
    next_drawn = [event.suggestion for event in events if isinstance(event, Started)][6]

    assert search.ask(6)[1].suggestion == next_drawn


def test_measurements_arrive_in_order(digits_data: TrainingData) -> None:
    """Steps and images of a trial only grow."""
    _, events = _run(_spec(budget={"trials": 2, "epochs": 4}), digits_data)

    assert all(
        one.step < two.step and one.images_seen < two.images_seen
        for curve in _curves(events).values()
        for one, two in pairwise(curve)
    )
