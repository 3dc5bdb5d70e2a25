"""Training of a lane, compared with plain torch and scikit-learn."""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pydoc import locate
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error
from torch import Tensor, nn
from torch.nn import functional

from ml.datasets import Arrays, Stream
from ml.errors import SpecError
from ml.lanes.lanes import LaneState
from ml.network.evaluate import Images, evaluate, loss_of, probabilities, scaled
from ml.network.modules import module_of
from ml.networks import networks
from ml.optimizers import optimizers
from ml.parameters.params import Params
from ml.records import RungResult, TrialState
from ml.specs import TuneSpec
from ml.training.lane import Lane, TrainingData, objective
from ml.training.pack import LanePack

SGD = {"optimizer": "sgd", "learning_rate": 0.1}


def _never() -> bool:
    return False


class _Wild(Lane):
    """A lane whose initial weights are so large that the first steps overflow float32."""

    def initial(self, steps: int, given: Mapping[str, Tensor]) -> LaneState:
        state = super().initial(steps, given)
        for tensor in state.weights.values():
            tensor.mul_(1e15)
        return state


def _lane(params: dict[str, Any], model: str = "mlp", epochs: int = 3, kind: type[Lane] = Lane, **fields: Any) -> Lane:
    """Return a lane on the small data set, by default with small hidden layers."""
    small = {"mlp": {"hidden_sizes": [24, 16]}, "shallow": {"hidden_size": 24}}.get(model, {})
    body = {"model": model, "dataset": "digits", "budget": {"trials": 1, "epochs": epochs}}
    spec = TuneSpec.model_validate(body | fields)
    return kind(0, spec, spec.params(small | {"batch_size": 32} | params), init_seed=5, stream_seed=6)


@dataclass
class _Solo:
    """A lane that trains as a pack of one."""

    lane: Lane
    data: TrainingData
    start_step: int = 0
    weights: dict[str, torch.Tensor] = field(default_factory=dict)  # at the last rung

    def run(self, cut_now: Callable[[], bool] = _never) -> Iterator[RungResult]:
        pack = LanePack.of(self.lane.spec, self.data, self.lane.params, self.lane.stream_seed)
        pack.position = self.start_step
        pack.join(self.lane)
        for rungs in pack.run(cut_now):
            if not rungs:
                return
            ((_, measured),) = rungs
            assert pack._fused is not None
            self.weights = pack._fused.state(0).weights
            yield measured


def _fit(lane: Lane, data: TrainingData, cut_now: Callable[[], bool] = _never) -> Iterator[RungResult]:
    """Train a lane alone; return its measurements."""
    return _Solo(lane, data).run(cut_now)


def _trained(lane: Lane, data: TrainingData, start_step: int = 0) -> torch.Tensor:
    """Train a lane alone to its end; return all its weights."""
    solo = _Solo(lane, data, start_step)
    for _ in solo.run():
        pass
    return _flat(solo.weights)


def _module(lane: Lane, weights: dict[str, torch.Tensor]) -> nn.Sequential:
    module = module_of(lane.spec.layers(lane.params), lane.init_seed)
    module.load_state_dict(weights)
    return module


def _flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in weights.values()])


def _normal(probabilities: np.ndarray) -> np.ndarray:
    """Return float32 probabilities that sum to 1 in float64 too, as scikit-learn requires."""
    exact = probabilities.astype(np.float64)
    return exact / exact.sum(1, keepdims=True)


@pytest.fixture(scope="session")
def mnist_data(mnist: Arrays) -> TrainingData:
    """Return the first 2,000 images of MNIST, split for training."""
    return TrainingData.of(Arrays(mnist.images[:2000], mnist.labels[:2000]), None, "random", 0)


# --- the loop

OPTIMIZERS = [
    {"optimizer": "adam", "learning_rate": 0.003},
    {"optimizer": "adam", "learning_rate": 0.003, "weight_decay": 0.01, "momentum": 0.9},
    SGD,
    SGD | {"momentum": 0.9, "weight_decay": 0.01},
]


def _plain_optimizer(module: nn.Module, params: Params) -> torch.optim.Optimizer:
    """Return the optimizer as its papers define it, with every number written out."""
    common: dict[str, Any] = {"lr": params.learning_rate, "weight_decay": params.weight_decay}
    if params.optimizer == "adam":
        return torch.optim.Adam(module.parameters(), betas=(0.9, 0.999), eps=1e-8, amsgrad=False, **common)
    return torch.optim.SGD(module.parameters(), momentum=params.momentum, dampening=0, nesterov=False, **common)


def _plain_mlp(lane: Lane) -> nn.Sequential:
    """Return the lane's network written by hand, with the lane's initial weights."""
    module = nn.Sequential(
        *(nn.Flatten(), nn.Linear(784, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 10))
    )
    module.load_state_dict(module_of(lane.spec.layers(lane.params), lane.init_seed).state_dict())
    return module


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("params", OPTIMIZERS, ids=str)
def test_an_epoch_ends_with_the_weights_of_a_plain_loop(
    digits_data: TrainingData, params: dict[str, Any], loss: str
) -> None:
    """A hand-written torch loop over the same batches, from the same weights, ends with equal weights and loss."""
    lane = _lane(params, epochs=1, loss=loss)
    plain = _plain_mlp(lane)
    solo = _Solo(lane, digits_data)
    (measured,) = solo.run()
    optimizer = _plain_optimizer(plain, lane.params)
    pixels, labels = digits_data.train.images.to(torch.float32) / 255, digits_data.train.labels
    stream, losses = Stream(len(labels), 32, lane.stream_seed), []
    for step in range(-(-len(labels) // 32)):
        batch = torch.from_numpy(stream.batch(step))
        outputs, targets = plain(pixels[batch]), labels[batch]
        wrong = (
            functional.cross_entropy(outputs, targets)
            if loss == "cross_entropy"
            else ((outputs - torch.eye(10)[targets]) ** 2).mean()
        )
        optimizer.zero_grad()
        wrong.backward()
        optimizer.step()
        losses.append(wrong.item())

    torch.testing.assert_close(_flat(solo.weights), _flat(plain.state_dict()), rtol=1e-5, atol=1e-6)
    assert measured.train_loss == pytest.approx(np.mean(losses), rel=1e-5)


def test_momentum_affects_only_sgd(digits_data: TrainingData) -> None:
    """With another momentum, Adam ends with the same weights and SGD with others."""
    flats = {}
    for name in optimizers:
        for momentum in (0.0, 0.9):
            lane = _lane({"optimizer": name, "momentum": momentum, "learning_rate": 0.01}, epochs=1)
            flats[name, momentum] = _trained(lane, digits_data)

    assert torch.equal(flats["adam", 0.0], flats["adam", 0.9])
    assert not torch.equal(flats["sgd", 0.0], flats["sgd", 0.9])


@pytest.mark.parametrize("name", optimizers)
def test_an_optimizer_is_the_torch_class_it_names(name: str) -> None:
    """Each optimizer's class is found in torch, and takes the stated arguments."""
    optimizer = Params(optimizer=name, learning_rate=0.5, weight_decay=0.25, momentum=0.125).of_optimizer()
    kind: Any = locate(optimizers[name].torch_class)
    (group,) = kind(nn.Linear(2, 2).parameters(), **optimizer.arguments()).param_groups

    assert type(optimizer) is optimizers[name]
    assert (group["lr"], group["weight_decay"], group.get("momentum", 0.125)) == (0.5, 0.25, 0.125)
    assert set(optimizer.arguments()) <= set(inspect.signature(kind).parameters)


def test_a_lane_may_start_anywhere_in_its_stream(digits_data: TrainingData) -> None:
    """The start step belongs to a lane's run: a lane that joins later sees other batches."""
    first, later = _lane(SGD, epochs=1), _lane(SGD, epochs=1)
    flats = [_trained(first, digits_data), _trained(later, digits_data, start_step=7)]
    expected = []
    for lane in (first, later):
        plain = _plain_mlp(first)
        optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
        for step in range(41):
            batch = torch.from_numpy(Stream(1294, 32, 6).batch(lane.start_step + step))
            optimizer.zero_grad()
            outputs = plain(digits_data.train.images[batch].float() / 255)
            functional.cross_entropy(outputs, digits_data.train.labels[batch]).backward()
            optimizer.step()
        expected.append(_flat(plain.state_dict()))

    assert (first.start_step, later.start_step, Stream(1294, 32, 6).steps(10)) == (0, 7, 41)
    torch.testing.assert_close(flats[0], expected[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(flats[1], expected[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", networks)
def test_the_same_seeds_give_the_same_weights(model: str, digits_data: TrainingData) -> None:
    """Trained twice from the same seeds, a lane has the same measurements and bit-equal weights."""
    solos = [_Solo(_lane({}, model, epochs=2), digits_data) for _ in range(2)]
    measured = [[asdict(m) | {"seconds": 0} for m in solo.run()] for solo in solos]

    assert measured[0] == measured[1]
    assert torch.equal(_flat(solos[0].weights), _flat(solos[1].weights))


@pytest.mark.parametrize("seed", ["init_seed", "stream_seed"])
def test_each_seed_changes_the_result(seed: str, digits_data: TrainingData) -> None:
    """Other initial weights, or another order of the images, give other final weights."""
    lanes = [_lane({}, epochs=1), _lane({}, epochs=1)]
    setattr(lanes[1], seed, 99)
    first, second = (_trained(lane, digits_data) for lane in lanes)

    assert not torch.equal(first, second)


@pytest.mark.parametrize(("model", "accuracy"), [("perceptron", 0.75), ("shallow", 0.8), ("mlp", 0.75), ("cnn", 0.85)])
def test_every_network_learns(model: str, accuracy: float, mnist_data: TrainingData) -> None:
    """Six epochs over 1,440 images of MNIST bring each network far above chance."""
    lane = _lane({"learning_rate": 0.003}, model, epochs=6)
    list(_fit(lane, mnist_data))

    assert lane.best is not None
    assert (lane.best.val_accuracy or 0) > accuracy


# --- measurements


def test_steps_are_tenths_of_an_epoch_and_images_are_counted(digits_data: TrainingData) -> None:
    """An epoch is ten steps; the images seen are all images per epoch, rounded up to whole batches."""
    lane = _lane({"batch_size": 100}, epochs=3)
    measured = list(_fit(lane, digits_data))

    assert [m.step for m in measured] == [10, 20, 30]
    assert [m.epoch for m in measured] == [1, 2, 3]
    assert [m.images_seen for m in measured] == [1300, 2600, 3900]  # 1,294 · k, in hundreds
    assert all(m.seconds > 0 for m in measured)


def test_every_loss_is_of_trained_images(digits_data: TrainingData) -> None:
    """A batch larger than the training images is refused; otherwise every epoch reports a loss of trained images."""
    measured: list[RungResult] = []
    try:
        lane = _lane({"batch_size": 2048}, epochs=4, search_space={"batch_size": 2048})
    except SpecError:
        pass
    else:
        measured = list(_fit(lane, digits_data))

    assert [m.epoch for m in measured if m.train_loss == 0] == []


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_the_best_epochs_weights_are_kept(loss: str, digits_data: TrainingData) -> None:
    """Evaluated by scikit-learn, the kept weights have the recorded accuracy and loss of the best epoch."""
    lane = _lane({"learning_rate": 0.03, "batch_size": 8}, epochs=8, loss=loss)
    measured = list(_fit(lane, digits_data))
    module = _module(lane, lane.best_weights)
    found = probabilities(module, digits_data.validation.images)
    labels = digits_data.validation.labels.numpy()
    with torch.inference_mode():
        outputs = module(digits_data.validation.images.float() / 255).numpy()
    expected = (
        log_loss(labels, _normal(found), labels=range(10))
        if loss == "cross_entropy"
        else mean_squared_error(np.eye(10)[labels], outputs)
    )

    assert lane.best is not None
    assert lane.best.val_accuracy == max(m.val_accuracy or 0 for m in measured) > measured[-1].val_accuracy
    assert lane.best.val_accuracy == pytest.approx(accuracy_score(labels, found.argmax(1)))
    assert lane.best.val_loss == pytest.approx(expected, rel=1e-4)


def test_the_objective_decides_which_epoch_is_best(digits_data: TrainingData) -> None:
    """val_loss keeps the epoch with the lowest loss, val_accuracy the first with the highest accuracy."""
    bests, measured = {}, []
    for name in ("val_loss", "val_accuracy"):
        # One layer is convex, so that rounding does not decide which epoch is best.
        lane = _lane({"learning_rate": 0.001}, "perceptron", epochs=12, objective=name)
        measured = list(_fit(lane, digits_data))
        bests[name] = lane.best.step if lane.best else None

    assert bests["val_loss"] == min(measured, key=lambda m: m.val_loss).step
    assert bests["val_accuracy"] == max(measured, key=lambda m: m.val_accuracy).step
    assert bests["val_loss"] != bests["val_accuracy"]


def test_kept_weights_stay_unchanged(digits_data: TrainingData) -> None:
    """The best epoch's weights are a copy, which later epochs do not change."""
    lane = _lane({"learning_rate": 0.03, "batch_size": 8}, epochs=8)
    solo = _Solo(lane, digits_data)
    at_best = torch.empty(0)
    for measured in solo.run():
        if measured is lane.best:
            at_best = _flat(solo.weights)

    assert torch.equal(_flat(lane.best_weights), at_best)
    assert not torch.equal(_flat(lane.best_weights), _flat(solo.weights))


# --- the end of a lane


def test_a_lane_that_trains_for_all_its_epochs_is_completed(digits_data: TrainingData) -> None:
    """A trial without early stopping ends as completed after the budget's epochs."""
    lane = _lane({}, epochs=2)
    measured = list(_fit(lane, digits_data))

    assert (len(measured), lane.state) == (2, TrialState.COMPLETED)


@pytest.mark.parametrize(("asked", "epochs"), [(1, 1), (3, 3), (9, 3)])
def test_a_trials_own_epochs_are_capped_by_the_budget(asked: int, epochs: int, digits_data: TrainingData) -> None:
    """A trial's parameter shortens it, and never lengthens it."""
    lane = _lane({"epochs": asked}, epochs=3)
    measured = list(_fit(lane, digits_data))

    assert (len(measured), lane.state) == (epochs, TrialState.COMPLETED)


def test_a_learning_rate_far_too_high_diverges(digits_data: TrainingData) -> None:
    """SGD with a learning rate of 10 on squared errors diverges in its first epoch, and training ends there."""
    params = {"optimizer": "sgd", "learning_rate": 10.0, "batch_size": 64, "hidden_sizes": [256, 128]}
    lane = _lane(params, epochs=5, loss="mse")
    measured = list(_fit(lane, digits_data))

    assert (len(measured), lane.state) == (1, TrialState.DIVERGED)
    assert "learning rate" in lane.reason


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_a_diverged_trial_is_recorded_with_null(loss: str, digits_data: TrainingData) -> None:
    """A trial whose loss is not finite ends as diverged, with null in its last measurement, never NaN."""
    lane = _lane(SGD, epochs=5, loss=loss, kind=_Wild)
    (measured,) = _fit(lane, digits_data)
    text = json.dumps(asdict(measured), allow_nan=False)

    assert lane.state == TrialState.DIVERGED
    assert measured.val_accuracy is None
    assert None in (measured.train_loss, measured.val_loss)
    assert lane.best is None
    assert "null" in text


def test_a_diverged_trial_keeps_its_earlier_measurements(digits_data: TrainingData) -> None:
    """If training diverges in a later epoch, earlier measurements stay, and the best of them is known."""
    whole = _lane(SGD, epochs=4)
    pack = LanePack.of(whole.spec, digits_data, whole.params, stream_seed=6)
    pack.join(whole)
    rungs = pack.run(_never)
    begun = [next(rungs), next(rungs)]
    checkpoint = pack.checkpoint()
    for name, array in checkpoint.weights.items():
        array *= 1e15 if name.startswith("0/weights/") else 1
    resumed = LanePack.resumed(checkpoint, digits_data)
    (lane,) = resumed.lanes
    measured = [m for found in [*begun, *resumed.run(_never)] for _, m in found]

    assert lane.state == TrialState.DIVERGED
    assert [m.finite for m in measured] == [True, True, False]
    assert lane.best in measured[:2]


def test_a_diverged_epoch_counts_the_images_it_saw(digits_data: TrainingData) -> None:
    """An epoch that ends early because the loss is not finite counts only the images that it trained on."""
    lane = _lane({"batch_size": 1, "optimizer": "sgd"}, epochs=1, kind=_Wild)
    (measured,) = _fit(lane, digits_data)

    assert lane.state == TrialState.DIVERGED
    assert measured.images_seen < len(digits_data.train)


def test_early_stopping_ends_a_trial(digits_data: TrainingData) -> None:
    """If no loss improves enough, a trial ends when its patience is used up."""
    lane = _lane({}, epochs=9, early_stopping={"patience": 3, "min_delta": 100.0})
    measured = list(_fit(lane, digits_data))

    assert (len(measured), lane.state) == (4, TrialState.STOPPED_EARLY)
    assert lane.best in measured


def test_early_stopping_watches_the_validation_loss(digits_data: TrainingData) -> None:
    """A trial with patience 2 ends after the first two epochs in a row without an improvement."""
    lane = _lane({"learning_rate": 0.03, "batch_size": 8}, epochs=40, early_stopping={"patience": 2, "min_delta": 0.0})
    losses = [m.val_loss or 0 for m in _fit(lane, digits_data)]
    worse = [i > 0 and losses[i] > min(losses[:i]) for i in range(len(losses))]

    assert lane.state == TrialState.STOPPED_EARLY
    assert worse[-2:] == [True, True]
    assert not any(worse[i] and worse[i + 1] for i in range(len(worse) - 2))


def test_a_lane_is_interrupted_at_the_next_step(digits_data: TrainingData) -> None:
    """Interrupted after 50 steps, a lane has measured the finished epoch and is still running."""
    lane = _lane({}, epochs=9)
    asked: list[int] = []

    def after_fifty() -> bool:
        asked.append(1)
        return len(asked) > 50

    measured = list(_fit(lane, digits_data, after_fifty))

    assert Stream(1294, 32, 0).steps(10) == 41
    assert (len(measured), len(asked), lane.state) == (1, 51, TrialState.RUNNING)


def test_training_can_be_given_up_after_an_epoch(digits_data: TrainingData) -> None:
    """If the caller closes the generator, the lane stays as it was after that epoch."""
    lane = _lane({}, epochs=9)
    training = _fit(lane, digits_data)
    first = next(training)
    training.close()  # type: ignore[attr-defined]

    assert lane.best is first
    assert list(training) == []


# --- evaluation


def _linear(classes: int = 10) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, classes))


@pytest.mark.parametrize("n", [1, 999, 1000, 1001, 1797])
def test_evaluation_equals_scikit_learns(n: int, digits: Arrays) -> None:
    """Loss and accuracy are equal for any number of images, including a partial last batch."""
    module, data = _linear(), Images.of(digits.take(np.arange(n)))
    found = probabilities(module, data.images)
    labels = data.labels.numpy()
    with torch.inference_mode():
        outputs = module(data.images.float() / 255).numpy()
    loss, accuracy = evaluate(module, data, "cross_entropy")
    squares, again = evaluate(module, data, "mse")

    assert accuracy == again == pytest.approx(accuracy_score(labels, found.argmax(1)))
    assert loss == pytest.approx(log_loss(labels, _normal(found), labels=range(10)), rel=1e-5)
    assert squares == pytest.approx(mean_squared_error(np.eye(10)[labels], outputs), rel=1e-5)


@pytest.mark.parametrize("classes", [2, 10, 26])
def test_mse_compares_with_one_hot_targets(classes: int) -> None:
    """The squared error equals scikit-learn's between outputs and one-hot targets."""
    outputs = torch.randn(50, classes, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % classes
    expected = mean_squared_error(np.eye(classes)[labels.numpy()], outputs.numpy())

    assert loss_of("mse", outputs, labels).item() == pytest.approx(expected, rel=1e-6)


def test_scaling_pixels_leaves_the_images_unchanged() -> None:
    """0..255 becomes 0..1 in float32, and the images in memory stay uint8."""
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    found = scaled(images)

    assert found.dtype == torch.float32
    assert torch.equal(found.flatten() * 255, torch.arange(256.0))
    assert images.flatten().tolist() == list(range(256))


def test_a_loss_that_is_not_finite_is_returned(digits: Arrays) -> None:
    """The caller decides about it."""
    module = _linear()
    with torch.no_grad():
        module[1].weight.fill_(float("nan"))
    loss, accuracy = evaluate(module, Images.of(digits.take(np.arange(10))), "cross_entropy")

    assert np.isnan(loss)
    assert 0 <= accuracy <= 1


@pytest.mark.parametrize(
    ("train_loss", "val_loss", "accuracy", "loss"),
    [(0.5, 0.4, 0.9, 0.4), (None, 0.4, None, None), (0.5, None, None, None), (None, None, None, None)],
)
def test_a_measurement_that_is_not_finite_has_no_objective(
    train_loss: float | None, val_loss: float | None, accuracy: float | None, loss: float | None
) -> None:
    """Only a measurement with two finite losses can be the best."""
    measured = RungResult(10, 100, train_loss, val_loss, 0.9, 1.0)
    specs = [TuneSpec.model_validate({"model": "cnn", "objective": name}) for name in ("val_accuracy", "val_loss")]

    assert [objective(spec, measured) for spec in specs] == [accuracy, loss]
    assert [objective(spec, None) for spec in specs] == [None, None]
