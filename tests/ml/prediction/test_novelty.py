"""Novelty: the graph's computation, and how well it distinguishes digits from other drawings."""

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from PIL import Image, ImageDraw, ImageFont

from ml.datasets import DIGITS, Arrays
from ml.images.glyphs import PLAIN_LETTERS, boxed, centred, glyphs
from ml.images.negatives import negatives
from ml.layers import Flatten, Linear
from ml.network.modules import module_of
from ml.network.onnx_graph import onnx_bytes, with_novelty
from ml.network.torch_export import exported
from ml.prediction.calibration_fit import NOVEL_SHARE, limit
from ml.prediction.novelty import Novelty, fit_novelty
from ml.prediction.predictor import MAX_BATCH, Predictor
from ml.training.lane import TrainingData

IMAGE = (1, 28, 28)
LAYERS = [Flatten(), Linear(784, 10)]


@pytest.fixture(scope="module")
def mnist_data(mnist: Arrays) -> TrainingData:
    """Return all of MNIST, split for training."""
    return TrainingData.of(mnist, 10_000, "random", 0)


@pytest.fixture(scope="module")
def fitted(mnist_data: TrainingData) -> tuple[Novelty, float]:
    """Return the novelty fitted to MNIST's training images, and the limit from validation."""
    novelty = fit_novelty(mnist_data.train.images.numpy(), DIGITS, 0)
    return novelty, limit(of(novelty, mnist_data.validation.images.numpy()), NOVEL_SHARE)


def of(novelty: Novelty, images: np.ndarray) -> np.ndarray:
    """Return the novelty of uint8 images, float [n], computed with numpy."""
    x = images.reshape(len(images), -1) / 255
    for i, layer in enumerate(novelty.layers):
        if isinstance(layer, Linear):
            x = x @ novelty.weights[f"{i}.weight"].T + novelty.weights[f"{i}.bias"]
            x = x if i == len(novelty.layers) - 1 else np.maximum(x, 0)
    return x[:, 0]


def graph_of(novelty: Novelty, *, by_torch: bool = False) -> tuple[bytes, bytes]:
    """Return a classifier's graph without and with this novelty, written here or by torch's exporter."""
    module = module_of(LAYERS, 3)
    weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    bare = exported(module, IMAGE) if by_torch else onnx_bytes(LAYERS, weights, IMAGE)
    return bare, with_novelty(bare, novelty.layers, novelty.weights)


def typed(characters: str) -> np.ndarray:
    """Return characters in Pillow's bitmap font, which no fit has seen, in MNIST's form: uint8 [n, 1, 28, 28]."""
    font, drawn = ImageFont.load_default_imagefont(), []
    for character in characters:
        image = Image.new("L", (12, 16))
        ImageDraw.Draw(image).text((3, 2), character, 255, font)
        image = image.resize((60, 80), Image.Resampling.BICUBIC)
        drawn.append(boxed(image, 28))
    return centred(np.stack(drawn))[:, None]


@pytest.mark.long
def test_test_images_are_almost_never_novel(fitted: tuple[Novelty, float], mnist: Arrays) -> None:
    """The share of novel images among the official test images is under twice the share set on validation."""
    novelty, highest = fitted

    assert 0 < (of(novelty, mnist.images[-10_000:]) > highest).mean() < 2 * NOVEL_SHARE


@pytest.mark.long
@pytest.mark.parametrize("kind", negatives)
def test_every_kind_of_negative_is_distinguished_from_digits(
    kind: str, fitted: tuple[Novelty, float], mnist_data: TrainingData
) -> None:
    """Nearly all new negatives, made of validation images, are novel; some halves match and make a digit."""
    novelty, highest = fitted
    images = negatives[kind](np.random.default_rng(77), mnist_data.validation.images.numpy(), 300)
    found = (of(novelty, images) > highest).mean()

    assert images.shape == (300, *IMAGE)
    assert images.dtype == np.uint8
    assert found > (0.5 if kind == "halves" else 0.9)


def test_a_blank_image_is_novel(fitted: tuple[Novelty, float]) -> None:
    """This holds for a black image and for a white one."""
    novelty, highest = fitted
    blank = np.stack([np.zeros(IMAGE, np.uint8), np.full(IMAGE, 255, np.uint8)])

    assert (of(novelty, blank) > highest).all()


def test_letters_of_an_unknown_font_are_distinguished_from_its_digits(fitted: tuple[Novelty, float]) -> None:
    """In a font that the fit has not seen, most letters are novel and most digits are not."""
    novelty, highest = fitted
    letters, digits = ((of(novelty, typed(which)) > highest).mean() for which in (PLAIN_LETTERS, "".join(DIGITS)))

    assert letters > 0.6
    assert digits < 0.4


@pytest.mark.parametrize("by_torch", [False, True])
def test_the_graph_computes_novelty_and_leaves_the_outputs_unchanged(
    by_torch: bool, fitted: tuple[Novelty, float]
) -> None:
    """The second output equals numpy's, the first is unchanged bit for bit, and the ONNX is valid."""
    novelty, _ = fitted
    bare, graph = graph_of(novelty, by_torch=by_torch)
    images = glyphs("".join(DIGITS) + PLAIN_LETTERS, np.random.default_rng(1), 60, 28)
    pixels = images.astype(np.float32) / 255
    outputs, found = Predictor(graph, IMAGE, DIGITS).run(pixels)
    before, nothing = Predictor(bare, IMAGE, DIGITS).run(pixels)
    model = onnx.load_model_from_string(graph)
    onnx.checker.check_model(model, full_check=True)

    assert nothing is None
    np.testing.assert_array_equal(outputs, before)
    assert found.shape == (60,)
    np.testing.assert_allclose(found, of(novelty, images), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found, ReferenceEvaluator(model).run(["novelty"], {"pixels": pixels})[0], atol=1e-4)


def test_an_image_gets_the_same_answer_alone_and_among_many(fitted: tuple[Novelty, float], mnist: Arrays) -> None:
    """This also holds for inputs that run in several batches."""
    n = 2 * MAX_BATCH + 3
    predictor = Predictor(graph_of(fitted[0])[1], IMAGE, DIGITS)
    pixels = mnist.images[:n].astype(np.float32) / 255
    together = predictor.run(pixels)
    alone = [predictor.run(pixels[i : i + 1]) for i in range(n)]

    for place, many in enumerate(together):
        np.testing.assert_allclose(np.concatenate([each[place] for each in alone]), many, atol=1e-4)


@pytest.mark.long
def test_a_seed_gives_the_same_network_every_time(digits_data: TrainingData) -> None:
    """A job's version can be made again; another seed gives another network."""
    one, same, other = (fit_novelty(digits_data.train.images.numpy(), DIGITS, seed).weights for seed in (0, 0, 1))

    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["1.weight"], other["1.weight"])


def test_any_data_set_is_distinguished_from_noise_and_blanks() -> None:
    """With colours, other sizes and other classes, no letters are drawn; blank and noisy images are novel."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((20, 16))
    places, size = rng.uniform(5, 11, (600, 2, 1, 1, 1)), rng.uniform(2, 4, (600, 3, 1, 1))
    rings = np.abs(np.hypot(rows - places[:, 0], columns - places[:, 1]) - size) < 1.2
    images = (255 * rings).astype(np.uint8)
    novelty = fit_novelty(images[:500], ("red", "green"), 0)
    highest = limit(of(novelty, images[500:]), 0.05)
    others = [np.zeros((1, 3, 20, 16)), rng.integers(0, 256, (20, 3, 20, 16))]

    assert (of(novelty, np.concatenate(others)) > highest).all()


def test_glyphs_have_the_form_of_mnist() -> None:
    """They are 20 ± 2 pixels high or wide, with the centre of mass within one pixel of the middle."""
    drawn = glyphs(PLAIN_LETTERS, np.random.default_rng(5), 200, 28)[:, 0]
    lit = drawn > 64
    heights, widths = (np.ptp(np.where(lit.any(axis), np.arange(28), 14), axis=1) + 1 for axis in (2, 1))
    centres = [(drawn.sum(axis) * np.arange(28)).sum(1) / drawn.sum((1, 2)) for axis in (2, 1)]

    assert drawn.shape == (200, 28, 28)
    assert (np.abs(np.maximum(heights, widths) - 20) <= 2).mean() > 0.95
    assert (np.abs(np.array(centres) - 13.5) <= 1).mean() > 0.95


def test_novelty_costs_little() -> None:
    """One MNIST image takes fewer than 50,000 multiply-adds."""
    layers = fit_novelty(np.zeros((60, *IMAGE), np.uint8), ("a", "b"), 0).layers

    assert sum(layer.flops((layer.in_features,)) for layer in layers if isinstance(layer, Linear)) < 2 * 50_000


def test_torch_agrees_with_the_weights(fitted: tuple[Novelty, float]) -> None:
    """The weights have torch's names and layout, like those of a checkpoint."""
    novelty, _ = fitted
    module = module_of(novelty.layers, 0)
    module.load_state_dict({name: torch.from_numpy(weight) for name, weight in novelty.weights.items()})
    images = glyphs(PLAIN_LETTERS, np.random.default_rng(2), 20, 28)
    with torch.inference_mode():
        found = module(torch.from_numpy(images).float() / 255)[:, 0].numpy()

    np.testing.assert_allclose(found, of(novelty, images), rtol=1e-4, atol=1e-4)
