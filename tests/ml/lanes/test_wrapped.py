"""Layers that wrap a torch module: such a network trains alone, and torch exports it."""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from support.solo import batches, distance, train_alone

from api.routes.catalog import catalog
from ml.artifacts import checkpoint_bytes, checkpoint_of
from ml.datasets import Arrays, datasets
from ml.errors import LanesError, SpecError
from ml.lanes.lanes import Lanes, LaneState
from ml.layers import Conv2d, Flatten, Layer, Linear, MaxPool2d, ReLU, Shape, Wrapped
from ml.network.evaluate import Images, evaluate, probabilities
from ml.network.modules import module_of
from ml.network.torch_export import exported
from ml.networks import Network, networks
from ml.optimizers import Adam, Optimizer, Sgd
from ml.parameters.params import Params
from ml.prediction.predictor import Predictor
from ml.records import TrialState
from ml.specs import TuneSpec
from ml.training.lane import Lane, TrainingData
from ml.training.pack import LanePack
from ml.tuning.width import measured_width

IMAGE = (1, 28, 28)
NO_UPLOADS: Any = SimpleNamespace(newest=dict, find=datasets.__getitem__)


class SameShape(Wrapped):
    """A layer whose output has the shape of its input."""

    def output_shape(self, shape: Shape) -> Shape:
        return shape


@dataclass(frozen=True)
class BatchNorm2d(SameShape):
    """A layer that gives each channel mean 0 and variance 1: a module with weights and buffers, with torch's name."""

    num_features: int

    def weights(self) -> dict[str, Shape]:
        return {"weight": (self.num_features,), "bias": (self.num_features,)}


@dataclass(frozen=True)
class Noise(SameShape):
    """A layer without weights that draws random numbers; its name is not that of its module."""

    module: ClassVar[str] = "torch.nn.modules.dropout.Dropout"
    p: float


@dataclass(frozen=True)
class Wrong(SameShape):
    """A layer that forgets to name its module's weights."""

    module: ClassVar[str] = "torch.nn.BatchNorm1d"
    num_features: int


@dataclass(frozen=True)
class Nowhere(SameShape):
    """A layer whose module does not exist."""

    module: ClassVar[str] = "torch.nn.Nowhere"


def normed(channels: int, height: int, width: int, classes: int, params: Params) -> list[Layer]:
    """Build a network with a wrapped module among other layers."""
    rows = 4 * ((height - 2) // 2) * ((width - 2) // 2)
    convolved = [Conv2d(channels, 4, 3), BatchNorm2d(4), ReLU(), MaxPool2d(2), Flatten()]
    return [*convolved, Linear(rows, 12), Noise(0.0), ReLU(), Linear(12, classes)]


def noisy(channels: int, height: int, width: int, classes: int, params: Params) -> list[Layer]:
    """Build a network that begins with a wrapped module and draws random numbers."""
    return [BatchNorm2d(channels), Flatten(), Noise(0.5), Linear(channels * height * width, classes)]


@pytest.fixture(scope="module")
def images(mnist: Arrays) -> Images:
    """Return the first 2,000 images of MNIST."""
    return Images.of(mnist.take(np.arange(2000)))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> str:
    """Register a network that trains alone, and return its name."""
    monkeypatch.setitem(networks, "noisy", Network(noisy, Params, {}, "For a test."))
    return "noisy"


def _state(optimizer: Optimizer, network: Network | None = None, seed: int = 0) -> LaneState:
    layers = (network.build if network else normed)(*IMAGE, 10, Params())
    return LaneState.initial(layers, optimizer, seed)


def _spec(model: str, **fields: object) -> TuneSpec:
    return TuneSpec.model_validate(
        {"model": model, "dataset": "digits", "budget": {"trials": 2, "epochs": 2}, **fields}
    )


@pytest.mark.long
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("optimizer", [Adam(weight_decay=1e-3), Sgd(learning_rate=0.05, momentum=0.9)])
def test_a_wrapped_module_trains_as_in_plain_torch(optimizer: Optimizer, loss: str, images: Images) -> None:
    """After 200 steps weights and buffers are those of torch.optim on one module, to 1e-8 of the largest."""
    state, steps = _state(optimizer), batches(len(images), 10, 200)
    lanes = Lanes([state], IMAGE, loss, dtype=torch.float64)
    for indices in steps:
        lanes.step(images, indices)
    trained, alone = lanes.state(0).weights, train_alone(state, images, steps, loss).state_dict()

    assert set(trained) == set(alone)
    assert distance(trained, alone) < 1e-8


def test_validation_uses_the_running_means_of_training(images: Images) -> None:
    """An evaluation uses the running means and does not change them."""
    lanes = Lanes([_state(Adam())], IMAGE)
    for indices in batches(len(images), 20, 30):
        lanes.step(images, indices)
    ((loss, accuracy),) = lanes.evaluate(images)
    (module,) = lanes.split()

    assert (loss, accuracy) == pytest.approx(evaluate(module, images, "cross_entropy"), rel=1e-5)
    assert lanes.evaluate(images) == [(loss, accuracy)]


def test_random_numbers_depend_only_on_seed_and_step(model: str, digits_data: TrainingData) -> None:
    """A pack that is resumed from its checkpoint ends bit-equal to one that was never interrupted."""
    spec = _spec(model)
    params = spec.params({"batch_size": 32})

    def pack() -> LanePack:
        begun = LanePack.of(spec, digits_data, params, stream_seed=3)
        begun.join(Lane(0, spec, params, init_seed=1, stream_seed=3))
        return begun

    whole, cut = pack(), pack()
    *_, [(uninterrupted, measured)] = whole.run(lambda: False)
    torch.manual_seed(99)  # random numbers drawn elsewhere make no difference
    next(iter(cut.run(lambda: cut.position >= 17)))
    kept = checkpoint_of(checkpoint_bytes(cut.checkpoint()), "pack")  # as the store keeps it
    *_, [(resumed, again)] = LanePack.resumed(kept, digits_data).run(lambda: False)

    assert uninterrupted.state == resumed.state == TrialState.COMPLETED
    assert replace(measured, seconds=0) == replace(again, seconds=0)
    assert all(torch.equal(tensor, resumed.best_weights[name]) for name, tensor in uninterrupted.best_weights.items())


def test_noise_differs_from_step_to_step(images: Images) -> None:
    """Two steps on the same images drop different pixels."""
    lanes = Lanes([_state(Sgd(learning_rate=1e-9), Network(noisy, Params, {}, ""))], IMAGE)
    losses = []
    for indices in (np.arange(20), np.arange(20)):
        lanes.step(images, indices)
        losses += lanes.losses()

    assert losses[0] != losses[1]


def test_networks_with_wrapped_modules_train_alone(model: str, digits_data: TrainingData) -> None:
    """Their width is one, the catalog says so, and more lanes are refused before any training."""
    spec = _spec(model, budget={"trials": 100, "epochs": 1})
    state = _state(Adam(), networks[model])

    assert measured_width(spec, spec.params({}), digits_data) == 1
    assert {name for name, network in catalog(NO_UPLOADS, 5, "mnist").networks.items() if not network.lanes} == {model}
    with pytest.raises(LanesError, match="2 lanes of a network whose trials train alone"):
        Lanes([state, state], IMAGE)
    with pytest.raises(SpecError, match="noisy trains each trial alone, so it has no lanes; leave it out") as refused:
        _spec(model, lanes=2)
    assert [problem.path for problem in refused.value.problems] == [("lanes",)]
    assert _spec(model, lanes=1).lanes == 1


@pytest.mark.long
def test_torch_exports_a_wrapped_module(images: Images) -> None:
    """ONNX Runtime answers as torch does, for one image and for many."""
    lanes = Lanes([_state(Adam())], IMAGE)
    for indices in batches(len(images), 20, 30):
        lanes.step(images, indices)
    (module,) = lanes.split()
    predictor = Predictor(exported(module, IMAGE), IMAGE, ())

    for n in (1, 7):
        pixels = images.images[:n].numpy().astype(np.float32) / 255
        np.testing.assert_allclose(predictor.probabilities(pixels), probabilities(module, images.images[:n]), atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (Wrong(4), r"Wrong.weights\(\) is {}, but torch.nn.BatchNorm1d has"),
        (Nowhere(), "wraps torch.nn.Nowhere, which"),
    ],
)
def test_a_layer_that_misnames_its_module_is_refused(layer: Layer, words: str) -> None:
    """The error says what is wrong, and where."""
    with pytest.raises(LanesError, match=words):
        module_of([Flatten(), layer], 0)
