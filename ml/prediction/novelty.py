"""Novelty: a small network that tells a data set's images from others; every published graph contains one.

A classifier's own outputs say little about that. For example, one linear layer is more confident for brighter images.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

import numpy as np
import torch

from ml.datasets import DIGITS
from ml.images.glyphs import PLAIN_LETTERS, SYMBOLS, glyphs
from ml.images.negatives import negatives
from ml.lanes.lanes import Lanes, LaneState
from ml.layers import Flatten, Layer, Linear, ReLU, Shape
from ml.network.evaluate import Images
from ml.optimizers import Adam
from ml.seeds import SeedPurpose, derive

HIDDEN = (56, 32)  # 46,000 multiply-adds for an image of 784 pixels, a sixth of LeNet-5's
ENOUGH = 5000  # training images; with fewer, the next three numbers shrink in proportion
EXAMPLES = 1000  # negatives of each kind
CHARACTERS, DRAWN_DIGITS = 3000, 900  # if the classes are digits
OWN, DRAWN, OTHERS = 64, 32, 96  # images per step: of the data set, drawn digits, negatives
PHASES = ((3e-3, 400), (5e-4, 200))  # learning rates with their numbers of steps
WEIGHT_DECAY = 3e-4
EPOCHS = 20  # maximum, for a small data set: passes over its training images


@dataclass(frozen=True)
class Novelty:
    """The network, from pixels to the log-odds that an image is not from the data set."""

    layers: list[Layer]
    weights: dict[str, np.ndarray]  # by torch's names


def fit_novelty(images: np.ndarray, classes: tuple[str, ...], seed: int) -> Novelty:
    """Train the network on a data set's training images, uint8 [n, channels, height, width].

    The same seed gives the same network. If the classes are digits, letters and symbols are negatives too, and drawn
    digits count as the data set's own images.
    """
    seed = derive(seed, SeedPurpose.NOVELTY)
    rng = np.random.default_rng(seed)
    share = min(1.0, len(images) / ENOUGH)
    others = [kind(rng, images, round(share * EXAMPLES)) for kind in negatives.values()]
    drawn = images[:0]
    if classes == DIGITS and images.shape[2] == images.shape[3]:
        channels, size = images.shape[1:3]
        others.append(glyphs(PLAIN_LETTERS + SYMBOLS, rng, round(share * CHARACTERS), size).repeat(channels, 1))
        drawn = glyphs("".join(DIGITS), rng, round(share * DRAWN_DIGITS), size).repeat(channels, 1)
    return _one_output(_trained(_layers(images.shape[1:]), [images, drawn, np.concatenate(others)], rng, seed))


def _layers(shape: Shape) -> list[Layer]:
    widths = (prod(shape), *HIDDEN)
    hidden = [layer for sizes in pairwise(widths) for layer in (Linear(*sizes), ReLU())]
    return [Flatten(), *hidden, Linear(widths[-1], 2)]


def _trained(layers: list[Layer], groups: list[np.ndarray], rng: np.random.Generator, seed: int) -> LaneState:
    """Train on three groups: own images, drawn digits and negatives; class 1 is for the negatives."""
    sizes = [len(group) for group in groups]
    data = Images(
        torch.from_numpy(np.concatenate(groups)), torch.tensor([0, 0, 1]).repeat_interleave(torch.tensor(sizes))
    )
    ends = np.cumsum(sizes)
    places = [place for place in zip(ends - sizes, ends, (OWN, DRAWN, OTHERS), strict=True) if place[0] < place[1]]
    share = min(1.0, EPOCHS * sizes[0] / (OWN * sum(steps for _, steps in PHASES)))
    state = LaneState.initial(layers, Adam(), seed)
    for learning_rate, steps in PHASES:
        optimizer = Adam(learning_rate=learning_rate, weight_decay=WEIGHT_DECAY)
        lanes = Lanes([replace(state, optimizer=optimizer)], tuple(data.images.shape[1:]))
        for _ in range(round(share * steps)):
            lanes.step(data, np.concatenate([rng.integers(*place) for place in places]))
        state = lanes.state(0)
    return state


def _one_output(state: LaneState) -> Novelty:
    """Return the network with a single output, the difference of the two."""
    weights = {name: weight.numpy() for name, weight in state.weights.items()}
    last = len(state.layers) - 1
    for name in (f"{last}.weight", f"{last}.bias"):
        weights[name] = weights[name][1:] - weights[name][:1]
    return Novelty([*state.layers[:-1], Linear(HIDDEN[-1], 1)], weights)
