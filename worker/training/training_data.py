"""The images that trainers work on, kept from one pack to the next."""

from functools import lru_cache

from ml.datasets import SplitName, data_split, datasets
from ml.network.evaluate import Images
from ml.prediction.novelty import Novelty, fit_novelty
from ml.training.lane import TrainingData


def training_data(dataset: str, split: SplitName, seed: int, device: str) -> TrainingData:
    """What a job trains and validates on; DataError where it is damaged."""
    return _training_data(dataset, datasets[dataset].sha256, split, seed, device)


def novelty_of(dataset: str, split: SplitName, seed: int, images: int | None) -> Novelty:
    """What tells the training images from others: the same for every network that is trained on so many of them."""
    return _novelty_of(dataset, datasets[dataset].sha256, split, seed, images)


def test_images(dataset: str, split: SplitName) -> Images:
    """The test images: for publication alone, which writes down that it opens them."""
    registered = datasets[dataset]
    arrays = registered.load()
    return Images.of(arrays.take(data_split(len(arrays), registered.official_test, split, seed=0).test))


# By hash too: a database that was made anew may give an old name to other images.
@lru_cache(maxsize=2)
def _training_data(dataset: str, sha256: str, split: SplitName, seed: int, device: str) -> TrainingData:
    return TrainingData.load(datasets[dataset], split, seed, device)


@lru_cache(maxsize=4)
def _novelty_of(dataset: str, sha256: str, split: SplitName, seed: int, images: int | None) -> Novelty:
    train = training_data(dataset, split, seed, "cpu").first(images).train
    return fit_novelty(train.images.numpy(), datasets[dataset].classes, seed)
