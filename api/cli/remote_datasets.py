"""Data sets of a remote service, registered here so that a specification can name them."""

from api.client import Chiffre
from ml.artifacts import checkpoint_of
from ml.datasets import Arrays, Dataset, datasets


def register_remote(client: Chiffre, dataset: str) -> None:
    """Register an uploaded data set of the service; its images are downloaded when they are first read."""
    name, _, version = dataset.partition("@")
    if not version or dataset in datasets:
        return
    found = client.dataset(name, int(version))

    def read() -> Arrays:
        arrays = checkpoint_of(client.data(name, int(version)), dataset).weights
        return Arrays(arrays["images"], arrays["labels"])

    shape, classes = tuple(found["shape"]), tuple(found["classes"])
    datasets.register(dataset)(Dataset(read, shape, classes, found["images"], found["sha256"], None, ""))
