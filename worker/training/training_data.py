"""The images that trainers work on, kept in memory from one pack to the next."""

from functools import lru_cache

from ml.datasets import Dataset, SplitName, data_split
from ml.network.evaluate import Images
from ml.prediction.novelty import Novelty, fit_novelty
from ml.training.lane import TrainingData


@lru_cache(maxsize=2)
def training_data(dataset: Dataset, split: SplitName, seed: int, device: str) -> TrainingData:
    """Return the images that a job trains and validates on.

    Raises:
        DataError: if a file of the data set is missing or damaged.
    """
    return TrainingData.load(dataset, split, seed, device)


@lru_cache(maxsize=4)
def novelty_of(dataset: Dataset, split: SplitName, seed: int, images: int | None) -> Novelty:
    """Return the layers that tell a data set's images from others.

    They depend on the training images alone, so all networks that are trained on the same images share them.
    """
    train = training_data(dataset, split, seed, "cpu").first(images).train
    return fit_novelty(train.images.numpy(), dataset.classes, seed)


def test_images(dataset: Dataset, split: SplitName) -> Images:
    """Return the test images; only publication may call this, after it has recorded the opening."""
    arrays = dataset.load()
    return Images.of(arrays.take(data_split(len(arrays), dataset.official_test, split, seed=0).test))
