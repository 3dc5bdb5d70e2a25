"""Data sets that a service has and this process does not, so that a specification may name them here too."""

from api.client import Chiffre
from ml.artifacts import checkpoint_of
from ml.datasets import Arrays, Dataset, datasets


def know(client: Chiffre, dataset: str) -> None:
    """Let a specification name a data set of the service's; its images are fetched when they are read."""
    name, _, version = dataset.partition("@")
    if not version or dataset in datasets:
        return
    found = client.dataset(name, int(version))

    def read() -> Arrays:
        arrays = checkpoint_of(client.data(name, int(version)), dataset).weights
        return Arrays(arrays["images"], arrays["labels"])

    shape, classes = tuple(found["shape"]), tuple(found["classes"])
    datasets.register(dataset)(Dataset(read, shape, classes, found["images"], found["sha256"], None, ""))
