"""Fixtures for the tests of `ml`: training on one thread, and the data sets in memory."""

from collections.abc import Iterator

import pytest
import torch
from support.solo import DEVICES

from ml.datasets import Arrays, datasets
from ml.training.lane import TrainingData
from ml.training.process import process_settings


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Train on one thread, as a trainer does, so that sums are added in one order."""
    process_settings()
    torch.set_flush_denormal(False)


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    """Allow denormals again after each test: Hypothesis draws them, and a training process switches them off."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def mnist() -> Arrays:
    """Return all of MNIST."""
    return datasets["mnist"].load()


@pytest.fixture(scope="session")
def digits() -> Arrays:
    """Return all of the small data set."""
    return datasets["digits"].load()


@pytest.fixture(scope="session", params=[way.device for way in DEVICES])
def digits_data(digits: Arrays, request: pytest.FixtureRequest) -> TrainingData:
    """Return the small data set, split for training, on each device: 1,294 training and 323 validation images."""
    return TrainingData.of(digits, None, "random", 0).to(request.param)
