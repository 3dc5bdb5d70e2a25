"""Data sets of a remote service, so that a specification read here can hold them."""

from api.client import Chiffre
from ml.artifacts import checkpoint_of
from ml.datasets import Arrays, Dataset, datasets


def remote_dataset(client: Chiffre, dataset: str) -> Dataset:
    """Return a data set of the service; the images of an uploaded one are downloaded when they are first read.

    Raises:
        UnknownName: if this release has no such data set and the name has no version.
    """
    name, _, version = dataset.partition("@")
    if not version:
        return datasets[name]
    found = client.dataset(name, int(version))

    def read() -> Arrays:
        arrays = checkpoint_of(client.data(name, int(version)), dataset).weights
        return Arrays(arrays["images"], arrays["labels"])

    shape, classes = tuple(found["shape"]), tuple(found["classes"])
    return Dataset(dataset, shape, classes, found["images"], found["sha256"], None, "", read)
