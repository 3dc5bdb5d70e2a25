"""Replay: any trial of a pack is trained again, alone, from its record."""

from typing import Any

import pytest
from support.solo import DEVICES

from ml.datasets import Arrays
from ml.records import Event, Finished, Measured, RungResult, Started
from ml.specs import TuneSpec
from ml.training.lane import TrainingData
from ml.training.replay import Recipe, replay
from ml.tuning.book import MemoryBook
from ml.tuning.search import Search
from ml.tuning.tune import tune

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

RATES = {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}, "batch_size": 16}


@pytest.fixture(scope="module", params=[way.device for way in DEVICES])
def mnist_data(mnist: Arrays, request: pytest.FixtureRequest) -> TrainingData:
    """Return 640 training and 2,000 validation images of MNIST on each device; one of the latter is 0.05 points."""
    whole = TrainingData.of(mnist, None, "random", 0)
    return TrainingData(whole.train.first(640), whole.validation.first(2000)).to(request.param)


def _recorded(spec: TuneSpec, data: TrainingData) -> tuple[dict[int, Started], dict[int, list[RungResult]]]:
    """Run a job; return the start and the measurements of each trial."""
    events: list[Event] = []
    tune(spec, data, MemoryBook(spec, events.append), Search(spec))
    starts = {event.number: event for event in events if isinstance(event, Started)}
    measured: dict[int, list[RungResult]] = {number: [] for number in starts}
    for event in events:
        if isinstance(event, Measured):
            measured[event.number].append(event.measurement)
    assert len([event for event in events if isinstance(event, Finished)]) == len(starts)
    return starts, measured


def _recipe(start: Started, until: int) -> Recipe:
    return Recipe(start.number, start.params, start.init_seed, start.stream_seed, start.start_step, until)


@pytest.mark.parametrize("model", ["perceptron", "shallow", "mlp", "cnn"])
def test_every_trial_can_be_replayed_alone(model: str, mnist_data: TrainingData) -> None:
    """Each trial is within 0.3 points of its record, if it began with the pack or joined later, pruned or not."""
    body: dict[str, Any] = {"model": model, "dataset": "mnist", "search_space": RATES, "lanes": 3}
    pruner = {"name": "hyperband", "min_epochs": 0.3}
    spec = TuneSpec.model_validate({**body, "pruner": pruner, "budget": {"trials": 8, "epochs": 2}})
    starts, measured = _recorded(spec, mnist_data)

    assert len({start.start_step for start in starts.values()}) > 1
    for number, start in starts.items():
        recorded = measured[number]
        found = list(replay(spec, _recipe(start, recorded[-1].step), mnist_data))
        assert [(m.step, m.images_seen) for m in found] == [(m.step, m.images_seen) for m in recorded]
        for one, other in zip(found, recorded, strict=True):
            assert one.val_accuracy == pytest.approx(other.val_accuracy, abs=0.003)
            assert one.val_loss == pytest.approx(other.val_loss, rel=0.01)


def test_another_record_gives_another_run(digits_data: TrainingData) -> None:
    """Every field of the record matters: the seeds and the step at which the trial began."""
    body = {"model": "perceptron", "dataset": "digits", "search_space": RATES, "lanes": 2, "pruner": {"name": "none"}}
    spec = TuneSpec.model_validate({**body, "budget": {"trials": 2, "epochs": 1}})
    starts, measured = _recorded(spec, digits_data)
    right = _recipe(starts[1], 10)
    changes: list[dict[str, Any]] = [{"init_seed": 1}, {"stream_seed": 1}, {"start_step": 50}]
    wrong = [Recipe(**{**vars(right), **change}) for change in changes]
    recorded = measured[1][0].val_loss or 0.0
    near, *far = (abs((next(replay(spec, r, digits_data)).val_loss or 0.0) - recorded) for r in (right, *wrong))

    assert near < 1e-5
    assert min(far) > 10 * near
