"""The accuracy that the input canonicaliser gains: `python -m benchmarks.canonical`.

Two networks that were trained on plain MNIST classify test digits with the distortions of `distortions.py`, digits of
fonts and pen strokes. Each image is prepared in three ways: only scaled to 28×28, by the usual recipe, and by the
canonicaliser.
"""

import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from benchmarks.images.distortions import DISTORTIONS, pen_strokes
from benchmarks.images.fonts import Fonts
from benchmarks.results import RESULTS, taken, write
from ml.artifacts import load_checkpoint
from ml.canonical.canonical import canonical
from ml.datasets import Arrays, data_split, datasets
from ml.network.onnx_graph import onnx_bytes
from ml.prediction.predictor import Predictor
from ml.specs import TrainSpec

SEED = 2026  # of the distortions; the constants were tuned on validation digits with another seed
IMAGES = 1000  # per family; all of the untouched test images are used
NORMAL_95 = 1.96
SPECS: dict[str, dict[str, Any]] = {
    "cnn": {"model": "cnn", "params": {"batch_size": 64, "learning_rate": 1e-3}, "seed": 0},
    "shallow": {"model": "shallow", "params": {"batch_size": 64, "learning_rate": 1e-3, "hidden_size": 512}, "seed": 0},
}
EPOCHS = 6

Draw = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]  # (digit, label, generator) → grey image


@dataclass(frozen=True)
class Family:
    """Images of one kind, prepared in each way: uint8 [n, 1, 28, 28]."""

    work: str
    labels: np.ndarray
    ready: dict[str, np.ndarray]
    milliseconds: float  # median time of the canonicaliser for one image


def naive(image: np.ndarray) -> np.ndarray:
    """Scale the image to 28×28."""
    return np.asarray(Image.fromarray(image).resize((28, 28), Image.Resampling.BOX))


def recipe(image: np.ndarray) -> np.ndarray:
    """Prepare an image as examples on the web do.

    They make it white on black by its mean, raise the contrast, fit the ink in 20 pixels and centre its mass.
    """
    grey = ImageOps.autocontrast(Image.fromarray(255 - image if image.mean() > 127 else image), cutoff=1)
    ink = grey.crop(grey.point(lambda level: 255 * (level > 127)).getbbox())
    ink = ImageOps.contain(ink, (20, 20), Image.Resampling.BICUBIC)
    mass = np.maximum(np.asarray(ink, float), 1e-9)
    x, y = (float(np.average(np.arange(mass.shape[axis]), weights=mass.sum(1 - axis))) for axis in (1, 0))
    frame = Image.new("L", (28, 28))
    frame.paste(ink, (round(14 - x), round(14 - y)))
    return np.asarray(frame)


WAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "without": naive,
    "recipe": recipe,
    "with": lambda image: canonical(image).pixels,
}


def families(digits: Arrays, images: int) -> Iterator[Family]:
    """Yield every family, with `images` images drawn from these digits."""
    fonts = Fonts()
    draws: dict[str, Draw] = {name: _ignoring_label(distort) for name, distort in DISTORTIONS.items()}
    draws["pen strokes"] = lambda _, label, rng: pen_strokes(label, rng)
    draws["fonts"] = lambda _, label, rng: fonts.draw(label, rng)
    for number, (work, draw) in enumerate(draws.items()):
        rng = np.random.default_rng([SEED, number])
        chosen = rng.permutation(len(digits))[: len(digits) if work == "untouched" and images == IMAGES else images]
        yield _family(work, digits.take(chosen), draw, rng)


def _ignoring_label(distort: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Draw:
    return lambda digit, _, rng: distort(digit, rng)


def _family(work: str, digits: Arrays, draw: Draw, rng: np.random.Generator) -> Family:
    ready: dict[str, list[np.ndarray]] = {way: [] for way in WAYS}
    seconds = []
    for digit, label in zip(digits.images[:, 0], digits.labels.tolist(), strict=True):
        image = draw(digit, label, rng)
        for way, prepare in WAYS.items():
            started = perf_counter()
            ready[way].append(prepare(image))
            seconds.append(perf_counter() - started)
    stacked = {way: np.stack(brought)[:, None] for way, brought in ready.items()}
    return Family(work, digits.labels, stacked, 1000 * statistics.median(seconds[len(WAYS) - 1 :: len(WAYS)]))


def trained(name: str, folder: Path, epochs: int) -> Predictor:
    """Train a network with the command, on MNIST's training images."""
    path, out = folder / f"{name}.json", folder / f"{name}.safetensors"
    path.write_text(json.dumps({**SPECS[name], "budget": {"epochs": epochs}}))
    subprocess.run([sys.executable, "-m", "ml", "train", path, "--out", out], check=True, stdout=subprocess.DEVNULL)
    spec = TrainSpec.model_validate_json(path.read_text())
    layers = spec.layers(spec.network.params.model_validate(spec.params))
    return Predictor(
        onnx_bytes(layers, load_checkpoint(out).weights, spec.image), spec.image, datasets["mnist"].classes
    )


def right(network: Predictor, family: Family) -> np.ndarray:
    """Return whether each image is classified correctly after each way of preparation: bool [ways, n]."""
    pixels = (family.ready[way].astype(np.float32) / 255 for way in WAYS)
    return np.stack([network.probabilities(some).argmax(1) == family.labels for some in pixels])


def measured(networks: dict[str, Predictor], digits: Arrays, images: int) -> Iterator[dict[str, Any]]:
    """Yield and print a row for each family, and one for all distorted images."""
    print(f"{'':16}{'n':>7}{'ms':>7}" + "".join(f"   {name:>8}: {'  '.join(WAYS)}    gain" for name in networks))
    distorted = []
    for family in families(digits, images):
        found = {name: right(network, family) for name, network in networks.items()}
        if family.work != "untouched":
            distorted.append(found)
        yield _row(family.work, found, family.milliseconds)
    yield _row("all distorted", {name: np.concatenate([found[name] for found in distorted], 1) for name in networks})


def _row(work: str, found: dict[str, np.ndarray], milliseconds: float | None = None) -> dict[str, Any]:
    rows = {name: figures(correct) for name, correct in found.items()}
    n = next(iter(found.values())).shape[1]
    cells = (f"{'':7}" + "".join(f"{f[way]:>9.2f}" for way in WAYS) + f"{f['gain']:>+8.2f}" for f in rows.values())
    print(f"{work:16}{n:>7}{'' if milliseconds is None else f'{milliseconds:.2f}':>7}" + "".join(cells), flush=True)
    return {"work": work, "n": n, "milliseconds": milliseconds and round(milliseconds, 3), **rows}


def figures(correct: np.ndarray) -> dict[str, Any]:
    """Return the accuracy of each way and the gain of the last over the first, in per cent with 95 % intervals."""
    found: dict[str, Any] = {}
    for way, some in zip(WAYS, correct, strict=True):
        found |= {way: round(100 * float(some.mean()), 3), f"{way}_95": wilson(int(some.sum()), len(some))}
    gain = 100 * (correct[-1].astype(float) - correct[0])  # per image, so that the interval is paired
    middle, half = float(gain.mean()), NORMAL_95 * float(gain.std()) / math.sqrt(len(gain))
    return {**found, "gain": round(middle, 3), "gain_95": [round(middle - half, 3), round(middle + half, 3)]}


def wilson(hits: int, n: int) -> list[float]:
    """Return the 95 % interval of a share, in per cent: Wilson, J. Am. Stat. Assoc. 22 (1927), 209."""
    z2 = NORMAL_95**2
    middle = (hits + z2 / 2) / (n + z2)
    half = NORMAL_95 / (n + z2) * math.sqrt(hits * (n - hits) / n + z2 / 4)
    return [round(100 * (middle - half), 3), round(100 * (middle + half), 3)]


def main() -> None:
    """Measure, and print a table and, as the last line, one JSON object."""
    quick = "--quick" in sys.argv
    dataset = datasets["mnist"]
    digits = dataset.load().take(data_split(dataset.size, dataset.official_test, "random", 0).test)
    with TemporaryDirectory() as folder:
        networks = {name: trained(name, Path(folder), 1 if quick else EPOCHS) for name in SPECS}
    print(Fonts())
    rows = list(measured(networks, digits, 50 if quick else IMAGES))
    results = {"rows": rows, "seed": SEED, "fonts": list(Fonts().files)}
    if not quick:
        write(RESULTS / "canonical.json", {**taken(), **results})
    print(json.dumps(results))


if __name__ == "__main__":
    main()
