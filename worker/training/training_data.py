"""The images that trainers work on, kept from one pack to the next."""

from functools import lru_cache

from ml.datasets import Dataset, SplitName, data_split
from ml.network.evaluate import Images
from ml.prediction.novelty import Novelty, fit_novelty
from ml.training.lane import TrainingData


@lru_cache(maxsize=2)
def training_data(dataset: Dataset, split: SplitName, seed: int, device: str) -> TrainingData:
    """What a job trains and validates on; DataError where it is damaged."""
    return TrainingData.load(dataset, split, seed, device)


@lru_cache(maxsize=4)
def novelty_of(dataset: Dataset, split: SplitName, seed: int, images: int | None) -> Novelty:
    """What tells the training images from others: the same for every network that is trained on so many of them."""
    train = training_data(dataset, split, seed, "cpu").first(images).train
    return fit_novelty(train.images.numpy(), dataset.classes, seed)


def test_images(dataset: Dataset, split: SplitName) -> Images:
    """The test images: for publication alone, which writes down that it opens them."""
    arrays = dataset.load()
    return Images.of(arrays.take(data_split(len(arrays), dataset.official_test, split, seed=0).test))
