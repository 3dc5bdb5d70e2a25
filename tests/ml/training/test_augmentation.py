"""Augmentation: distorted minibatches, compared with SciPy and used in a pack."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from support.solo import distance, train_alone

from ml.artifacts import checkpoint_bytes, checkpoint_of
from ml.datasets import Arrays, Stream
from ml.layers import from_json
from ml.network.evaluate import Images, evaluate
from ml.network.modules import module_of
from ml.records import Event, Started
from ml.specs import TuneSpec
from ml.training.augmentation import Augmentation
from ml.training.distortion import Distortion, Minibatches, affine_maps
from ml.training.lane import Lane, TrainingData
from ml.training.pack import LanePack
from ml.training.replay import Recipe, replay
from ml.tuning.book import MemoryBook
from ml.tuning.keys import key_names, key_of
from ml.tuning.search import Search
from ml.tuning.tune import tune

CPU = torch.device("cpu")
STRONG = Augmentation(shift=2, rotation=20, scale=0.2, shear=10, elastic=34)

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture(scope="session")
def images(mnist: Arrays) -> Images:
    """Return the first 500 images of MNIST."""
    return Images.of(mnist.take(np.arange(500)))


# --- the images


def test_distorted_images_equal_scipys(images: Images) -> None:
    """Each pixel is SciPy's interpolation at its source, rounded; pixels from outside the image are dark."""
    distort = Distortion(STRONG, (1, 28, 28), 3, CPU)
    raw = images.images[:40]
    found = distort(raw, step=9).numpy()
    x, y = distort.sources(9, 40).double().numpy().swapaxes(0, 1) + 13.5
    expected = [
        ndimage.map_coordinates(image[0].double().numpy(), [y[b], x[b]], order=1, mode="grid-constant")
        for b, image in enumerate(raw)
    ]

    assert found.dtype == np.uint8
    assert np.abs(found[:, 0] - np.stack(expected)).max() < 0.51  # half for rounding, the rest for float32


def test_elastic_displacements_are_smoothed_as_scipy_smooths() -> None:
    """Displacements are noise filtered by a Gaussian, with zeros beyond the edges, times the strength."""
    augmentation = Augmentation(elastic=34, elastic_sigma=3)
    distort = Distortion(augmentation, (1, 20, 31), 0, CPU)
    noise = torch.rand(2, 2, 20, 31, generator=torch.Generator().manual_seed(0)) * 2 - 1
    smoothed = ndimage.gaussian_filter(noise.double().numpy(), 3, mode="constant", truncate=20, axes=(2, 3))

    assert distort.displacement(noise).numpy() == pytest.approx(34 * smoothed, abs=1e-4)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"shift": 3}, [[1, 0, 3], [0, 1, -3]]),
        ({"rotation": 90}, [[0, -1, 0], [1, 0, 0]]),
        ({"scale": 0.5}, [[1 / 1.5, 0, 0], [0, 2, 0]]),
        ({"shear": 45}, [[1, 1, 0], [0, 1, 0]]),
    ],
)
def test_affine_maps_shift_rotate_scale_and_shear(asked: dict[str, float], expected: list[list[float]]) -> None:
    """The draws are at their limits."""
    draws = np.array([[1, -1, 1, 1, -1, 1]], np.float32)

    assert affine_maps(Augmentation(**asked), draws)[0].numpy() == pytest.approx(np.array(expected), abs=1e-6)


def test_distortions_differ_between_steps_and_between_places_in_a_batch(images: Images) -> None:
    """One image at two places of two batches gives four images, none distorted beyond the limits."""
    one = images.images[:1].repeat(2, 1, 1, 1)
    distort = Distortion(Augmentation(shift=2), (1, 28, 28), 3, CPU)
    found = {distort(one, step)[place].numpy().tobytes() for step in (0, 1) for place in (0, 1)}
    corner = torch.stack([distort.sources(step, 64)[:, :, 0, 0] for step in range(20)]) + 13.5

    assert len(found) == 4
    assert 1.9 < corner.abs().max() <= 2
    assert abs(corner.mean()) < 0.1


def test_without_augmentation_no_image_is_copied(images: Images) -> None:
    """A minibatch is then the data set itself and the indices of its images."""
    stream = Stream(len(images), 20, 1)
    data, indices = Minibatches(images, stream, Augmentation()).at(7)

    assert data is images
    assert (indices == stream.batch(7)).all()


# --- the pack


def _spec(model: str = "shallow", **fields: Any) -> TuneSpec:
    body = {"model": model, "dataset": "digits", "budget": {"trials": 8, "epochs": 2}, "pruner": {"name": "none"}}
    return TuneSpec.model_validate(body | fields)


EVERYTHING = {"batch_size": 32, "schedule": "one_cycle", "label_smoothing": 0.1, "ema_decay": 0.9, "dropout": 0.3}
DISTORTED = EVERYTHING | {"shift": 1.5, "rotation": 10.0, "elastic": 20.0}


def _lane(spec: TuneSpec, number: int, **params: Any) -> Lane:
    return Lane(number, spec, spec.params(DISTORTED | params), init_seed=100 + number, stream_seed=5)


def _pack(data: TrainingData, *lanes: Lane) -> LanePack:
    pack = LanePack.of(lanes[0].spec, data, lanes[0].params, stream_seed=5)
    for lane in lanes:
        pack.join(lane)
    return pack


def _finish(pack: LanePack) -> None:
    for _ in pack.run(lambda: False):
        pass


@pytest.mark.parametrize("model", ["shallow", "cnn"])
def test_a_pack_that_resumes_from_its_checkpoint_is_bit_equal(model: str, digits_data: TrainingData) -> None:
    """With every recipe, weights, averages, learning rates and images equal those of an uninterrupted run."""
    spec = _spec(model)
    other = {"learning_rate": 5e-3, "dropout": 0.0, "label_smoothing": 0.0, "schedule": "cosine"}
    whole, cut = (_pack(digits_data, _lane(spec, 0), _lane(spec, 1, **other)) for _ in range(2))
    _finish(whole)
    left = iter(range(37))
    next(cut.run(lambda: next(left, None) is None))
    content = checkpoint_bytes(cut.checkpoint())
    resumed = LanePack.resumed(checkpoint_of(content, "pack"), digits_data)
    _finish(resumed)

    for one, again in zip(whole.lanes, resumed.lanes, strict=True):
        assert one.best is not None
        assert (one.best.val_loss, one.best.train_loss) == (again.best.val_loss, again.best.train_loss)
        assert all(torch.equal(tensor, again.best_weights[name]) for name, tensor in one.best_weights.items())
        assert one.best_weights.keys() == again.best_weights.keys()


def test_a_lane_of_a_pack_ends_as_plain_torch_does_on_the_same_images(digits_data: TrainingData) -> None:
    """The kept weights are the moving average, after a schedule over the trial's own epochs."""
    spec = _spec(objective="val_loss")
    lanes = _lane(spec, 0, epochs=1), _lane(spec, 1, hidden_size=50)
    pack = _pack(digits_data, *lanes)
    _finish(pack)
    data, stream = digits_data.train, Stream(len(digits_data.train), 32, 5)
    distorted = [Minibatches(data, stream, pack.augmentation).at(step)[0] for step in range(stream.steps(20))]
    shown = Images(torch.cat([d.images for d in distorted]), torch.cat([d.labels for d in distorted]))

    for lane, epochs in zip(lanes, (1, 2), strict=True):
        steps = stream.steps(10 * epochs)
        order = np.arange(32 * steps).reshape(steps, 32)
        alone = train_alone(lane.initial(steps, {}), shown, order, dtype=torch.float32)

        assert lane.best is not None
        assert lane.best.step == 10 * epochs
        assert distance(lane.best_weights, alone.state_dict()) < 1e-3


def test_a_trial_that_is_replayed_sees_the_same_images(digits_data: TrainingData) -> None:
    """Trained alone from its record, a trial measures the same as in its pack."""
    spec = _spec()
    pack = _pack(digits_data, _lane(spec, 0), _lane(spec, 1))
    measured = [m for rungs in pack.run(lambda: False) for lane, m in rungs if lane.number == 1]
    recipe = Recipe(1, _lane(spec, 1).params.model_dump(exclude_none=True), 101, 5, 0, until=20)
    again = list(replay(spec, recipe, digits_data))

    assert [m.val_loss for m in again] == pytest.approx([m.val_loss for m in measured], rel=1e-4)
    assert len(again) == 2


# --- the key


def test_augmentation_decides_the_key_and_a_lanes_recipe_does_not() -> None:
    """Trials with the same augmentation train together, with any schedules, averages and dropout."""
    ranges = {
        name: {"type": "float", "low": 0.0, "high": 0.5}
        for name in ("dropout", "label_smoothing", "ema_decay", "scale", "elastic")
    }
    schedule = {"type": "categorical", "choices": ["constant", "cosine", "one_cycle"]}
    spec = _spec(search_space={**ranges, "schedule": schedule, "rotation": 10.0})
    search = Search(spec)
    first, record = search.ask(0)
    others = [search.ask(number, record.suggestion)[0] for number in range(1, 6)]

    assert key_names(spec) == ("scale", "elastic")
    assert {key_of(spec, params) for params in others} == {key_of(spec, first)}
    assert len({params.dropout for params in others}) == 5


def test_a_grid_is_grouped_by_augmentation() -> None:
    """The points of a key are drawn one after another, and each once."""
    grid = {
        "batch_size": {"type": "grid", "values": [16, 32]},
        "rotation": {"type": "grid", "values": [0.0, 10.0]},
        "elastic": {"type": "grid", "values": [0.0, 10.0, 20.0]},
        "learning_rate": {"type": "grid", "values": [0.001, 0.01]},
    }
    spec = _spec(search_space=grid, sampler={"name": "grid"}, budget={"epochs": 1})
    search = Search(spec)
    drawn = [search.ask(number)[0] for number in range(24)]
    keys = [str(key_of(spec, params)) for params in drawn]

    assert len({(key, params.learning_rate) for key, params in zip(keys, drawn, strict=True)}) == 24
    assert all(keys[i] == keys[i + 1] for i in range(0, 24, 2))
    assert len(set(keys)) == 12


# --- the search


def test_a_search_of_recipes_publishes_the_weights_that_were_judged(digits_data: TrainingData) -> None:
    """Trials with all kinds of recipe train as lanes, and the winner's checkpoint has the recorded accuracy."""
    space = {
        "batch_size": 32,
        "rotation": {"type": "categorical", "choices": [0.0, 10.0]},
        "schedule": {"type": "categorical", "choices": ["constant", "cosine", "one_cycle"]},
        "ema_decay": {"type": "float", "low": 0.5, "high": 0.95},
        "dropout": {"type": "float", "low": 0.0, "high": 0.4},
        "label_smoothing": {"type": "float", "low": 0.0, "high": 0.2},
        "hidden_size": {"type": "int", "low": 16, "high": 64},
    }
    spec = _spec(search_space=space, pruner={"name": "hyperband"}, lanes=3, budget={"trials": 7, "epochs": 3})
    started: dict[int, Started] = {}

    def note(event: Event) -> None:
        if isinstance(event, Started):
            started[event.number] = event

    book = MemoryBook(spec, note)
    tune(spec, digits_data, book, Search(spec))
    winner = book.winner
    assert winner is not None
    assert winner.best is not None
    assert winner.checkpoint is not None
    module = module_of(from_json(winner.checkpoint.card["layers"]), 0)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in winner.checkpoint.weights.items()})
    loss, accuracy = evaluate(module, digits_data.validation, "cross_entropy")
    began = started[winner.number]
    seeds = (began.init_seed, began.stream_seed, began.start_step)
    *_, replayed = replay(spec, Recipe(winner.number, began.params, *seeds, winner.best.step), digits_data)

    assert [trial.state.judged for trial in book.trials.values()] == [True] * 7
    assert (loss, accuracy) == pytest.approx((winner.best.val_loss, winner.best.val_accuracy), rel=1e-4)
    assert replayed.val_accuracy == pytest.approx(winner.best.val_accuracy, abs=0.0063)  # two of 323 images
