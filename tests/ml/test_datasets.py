"""The data sets, their splits and the stream of minibatches."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

import ml.datasets
from ml.datasets import DATA, Arrays, DataSplit, SplitName, Stream, data_split, datasets, digit_of, limited
from ml.errors import DataError
from ml.training.lane import TrainingData

SPLITS: list[tuple[str, SplitName]] = [("mnist", "random"), ("mnist", "official"), ("digits", "random")]
FILES = [f"{name}/{file.name}" for name in datasets for file in sorted((DATA / name).iterdir())]
SEEDS = (0, 1, 2**32 - 1)


def _cut(name: str, split: SplitName, seed: int) -> DataSplit:
    return data_split(datasets[name].size, datasets[name].official_test, split, seed)


def _sha256(indices: np.ndarray) -> str:
    return hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the data files, which the loaders read instead of the originals."""
    shutil.copytree(DATA, tmp_path / "data")
    monkeypatch.setattr(ml.datasets, "DATA", tmp_path / "data")
    return tmp_path / "data"


# --- content of the arrays


@pytest.mark.parametrize("name", datasets)
def test_a_data_set_matches_its_registry_entry(name: str) -> None:
    """A data set has the shape, size and labels of its registry entry, with images of every class."""
    dataset = datasets[name]
    arrays = dataset.load()

    assert (arrays.images.shape, arrays.images.dtype) == ((dataset.size, *dataset.shape), np.uint8)
    assert (arrays.labels.shape, arrays.labels.dtype) == ((dataset.size,), np.uint8)
    assert np.unique(arrays.labels).tolist() == list(range(len(dataset.classes)))
    assert len(arrays) == dataset.size


def test_mnist_is_complete(mnist: Arrays) -> None:
    """MNIST has 70,000 images of 28×28 pixels, with as many of each digit as its publishers count."""
    training, test = np.bincount(mnist.labels[:60_000]), np.bincount(mnist.labels[60_000:])

    assert mnist.images.shape == (70_000, 1, 28, 28)
    assert training.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert test.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_mnist_has_its_well_known_mean_and_deviation(mnist: Arrays) -> None:
    """The training pixels have mean 0.1307 and standard deviation 0.3081, as every MNIST program states."""
    counts = np.bincount(mnist.images[:60_000].ravel(), minlength=256)
    levels = np.arange(256) / 255
    mean = np.average(levels, weights=counts)
    deviation = np.sqrt(np.average((levels - mean) ** 2, weights=counts))

    assert (round(mean, 4), round(deviation, 4)) == (0.1307, 0.3081)


def test_digits_is_scikit_learns_data_set_scaled(digits: Arrays) -> None:
    """The small data set is load_digits, with 0..16 mapped to 0..255, scaled to 28×28 by Pillow."""
    original = load_digits()
    small = np.rint(original.images * 255 / 16).astype(np.uint8)
    large = [np.asarray(Image.fromarray(image).resize((28, 28), Image.Resampling.BILINEAR)) for image in small]

    assert np.array_equal(digits.images[:, 0], np.stack(large))
    assert np.array_equal(digits.labels, original.target)


def test_the_hash_covers_pixels_labels_and_shape(digits: Arrays) -> None:
    """One pixel, one label or another shape makes another hash."""
    pixels, labels = digits.images.copy(), digits.labels.copy()
    pixels[0, 0, 14, 14] ^= 1
    labels[-1] ^= 1
    flat = digits.images.reshape(len(digits), 1, 14, 56)
    hashes = {digits.sha256(), Arrays(pixels, digits.labels).sha256(), Arrays(digits.images, labels).sha256()}

    assert len(hashes | {Arrays(flat, digits.labels).sha256()}) == 4


def test_take_returns_a_copy(digits: Arrays) -> None:
    """Images taken by index are those images, and writing to them leaves the data set unchanged."""
    taken = digits.take(np.array([5, 3]))
    taken.images[:] = 0

    assert taken.labels.tolist() == digits.labels[[5, 3]].tolist()
    assert digits.images[5].any()


# --- damage


def _damage(path: Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    if kind == "missing":
        path.unlink()
        return
    if kind == "flipped":
        content[len(content) // 2] ^= 0xFF
    if kind == "appended":
        content += b"!"
    path.write_bytes(content[: len(content) // 2] if kind == "truncated" else b"" if kind == "empty" else content)


@pytest.mark.parametrize("kind", ["flipped", "truncated", "empty", "missing", "appended"])
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_noticed(folder: Path, file: str, kind: str) -> None:
    """Every file with a byte flipped or added, truncated, emptied or missing is a DataError."""
    _damage(folder / file, kind)

    with pytest.raises(DataError, match="restore its files"):
        datasets[file.split("/")[0]].load()


def test_every_flipped_byte_is_noticed(folder: Path) -> None:
    """A flipped byte in a file, except in gzip's time stamp, is a DataError and nothing else."""
    path = folder / "digits" / "labels-idx1-ubyte.gz"
    content = path.read_bytes()
    found: dict[str, list[int]] = {}
    for position in (*range(4), *range(10, len(content))):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
        try:
            datasets["digits"].load()
            found.setdefault("loaded", []).append(position)
        except Exception as error:
            found.setdefault(f"{type(error).__module__}.{type(error).__name__}", []).append(position)

    assert set(found) == {"ml.errors.DataError"}, found


def test_another_data_sets_files_are_noticed(folder: Path) -> None:
    """Valid files with other content are a DataError that names the hash."""
    images = folder / "mnist" / "t10k-images-idx3-ubyte.gz"
    labels = folder / "mnist" / "t10k-labels-idx1-ubyte.gz"
    shutil.copy(images, folder / "digits" / "images-idx3-ubyte.gz")
    shutil.copy(labels, folder / "digits" / "labels-idx1-ubyte.gz")

    with pytest.raises(DataError, match="SHA-256"):
        datasets["digits"].load()


# --- the splits


@pytest.mark.parametrize(
    ("name", "split", "sizes"),
    [
        ("mnist", "random", (50_400, 12_600, 7_000)),
        ("mnist", "official", (49_200, 10_800, 10_000)),
        ("digits", "random", (1_294, 323, 180)),
    ],
)
def test_a_split_has_the_sizes_of_the_design(name: str, split: SplitName, sizes: tuple[int, int, int]) -> None:
    """Random is 72 / 18 / 10 %; official keeps the publishers' test set and validates on 18 % of the rest."""
    parts = _cut(name, split, 0)

    assert (len(parts.train), len(parts.validation), len(parts.test)) == sizes


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_a_split_assigns_every_image_exactly_once(name: str, split: SplitName, seed: int) -> None:
    """Every image is in exactly one of train, validation and test."""
    parts = _cut(name, split, seed)
    together = np.concatenate([parts.train, parts.validation, parts.test])

    assert np.array_equal(np.sort(together), np.arange(datasets[name].size))


@pytest.mark.parametrize(
    ("name", "split", "sha256"),
    [
        ("mnist", "random", "5ee2e9e7887d0285233dcc64c92033e6b23536b068e74d657107a922673f30a5"),
        ("mnist", "official", "8d294bd1e8418920e271507fe5b110dc9deacddb90288cce9321abc0d3db7338"),
        ("digits", "random", "85aac223cfea8af55ba14f35631f8a084426d5fb018347fcb9dcfce2139808a9"),
    ],
)
def test_the_test_images_never_change(name: str, split: SplitName, sha256: str) -> None:
    """The test images are the same for every seed and in every release."""
    hashes = {_sha256(_cut(name, split, seed).test) for seed in (*SEEDS, *range(2, 20))}

    assert hashes == {sha256}


def test_the_official_test_images_are_the_last_ten_thousand() -> None:
    """The official split tests on the publishers' test set, which is at the end."""
    test = _cut("mnist", "official", 0).test

    assert np.array_equal(test, np.arange(60_000, 70_000))


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_the_seed_decides_train_and_validation(name: str, split: SplitName) -> None:
    """Another seed validates on other images; the same seed on the same images."""
    first, again, other = _cut(name, split, 0), _cut(name, split, 0), _cut(name, split, 1)

    assert np.array_equal(first.train, again.train)
    assert np.array_equal(first.validation, again.validation)
    assert not np.array_equal(np.sort(first.validation), np.sort(other.validation))


def test_the_split_of_seed_0_never_changes() -> None:
    """Recorded results of seed 0 were trained and validated on these images, in this order."""
    parts = _cut("mnist", "random", 0)

    assert _sha256(parts.train) == "0a10b04b7ee26b3bb1efef57560b085f9dd7a5fe430c4be9603ecd9c2d1c6790"
    assert _sha256(parts.validation) == "4a0f541450e2926603817259007586dcb29e0ed1086ea8e75929c234df4660a0"


def test_an_official_split_needs_an_official_test_set() -> None:
    """A data set without an official test set cannot be split officially."""
    with pytest.raises(ValueError, match="no official test images"):
        _cut("digits", "official", 0)


def test_training_never_sees_the_test_images(digits: Arrays) -> None:
    """Training data hold the training and validation images of the split, and no others."""
    data = TrainingData.of(digits, None, "random", 5)
    parts = _cut("digits", "random", 5)

    assert np.array_equal(data.train.images.numpy(), digits.images[parts.train])
    assert np.array_equal(data.train.labels.numpy(), digits.labels[parts.train])
    assert np.array_equal(data.validation.images.numpy(), digits.images[parts.validation])
    assert np.array_equal(data.validation.labels.numpy(), digits.labels[parts.validation])


# --- the stream

sizes = st.integers(1, 40)
batch_sizes = st.integers(1, 100)  # some are larger than a pass
stream_seeds = st.integers(0, 2**32 - 1)


@settings(deadline=None)
@given(size=sizes, batch_size=batch_sizes, seed=stream_seeds)
def test_every_pass_visits_every_image_once(size: int, batch_size: int, seed: int) -> None:
    """The batches, end to end, are one shuffled pass after another, for any batch size."""
    stream = Stream(size, batch_size, seed)
    batches = [stream.batch(step) for step in range(-(-4 * size // batch_size))]
    passes = np.concatenate(batches)[: 4 * size].reshape(4, size)

    assert {len(batch) for batch in batches} == {batch_size}
    assert all(np.array_equal(np.sort(one), np.arange(size)) for one in passes)


@settings(deadline=None)
@given(size=sizes, batch_size=batch_sizes, seed=stream_seeds, steps=st.lists(st.integers(0, 40), max_size=8))
def test_a_stream_gives_any_step_in_any_order(size: int, batch_size: int, seed: int, steps: list[int]) -> None:
    """Any step, requested in any order, has the same images as in a walk through all steps."""
    walked = Stream(size, batch_size, seed)
    in_order = [walked.batch(step) for step in range(max(steps, default=0) + 1)]
    jumped = Stream(size, batch_size, seed)

    assert all(np.array_equal(jumped.batch(step), in_order[step]) for step in steps)


def test_a_batch_straddles_two_passes() -> None:
    """The batch at the end of a pass has its last images and then the first images of the next pass."""
    stream, whole = Stream(10, 4, 3), Stream(10, 10, 3)

    assert stream.batch(2).tolist() == [*whole.batch(0)[8:], *whole.batch(1)[:2]]


@given(size=st.integers(1, 10**6), batch_size=st.integers(1, 4096), tenths=st.integers(1, 10_000))
def test_steps_is_the_smallest_number_that_sees_enough_images(size: int, batch_size: int, tenths: int) -> None:
    """`steps(k)` steps see k tenths of an epoch, and one step fewer does not."""
    steps = Stream(size, batch_size, 0).steps(tenths)

    assert 10 * steps * batch_size >= tenths * size > 10 * (steps - 1) * batch_size


def test_passes_and_seeds_have_different_orders() -> None:
    """Two passes of a stream, and the same pass of two streams, have different orders."""
    stream, other = Stream(1000, 1000, 0), Stream(1000, 1000, 1)

    assert not np.array_equal(stream.batch(0), stream.batch(1))
    assert not np.array_equal(stream.batch(0), other.batch(0))


def test_a_stream_never_changes() -> None:
    """The first images of seed 0 over MNIST's training images are those of recorded results."""
    batch = Stream(50_400, 8, 0).batch(0)

    assert batch.tolist() == [26102, 41478, 285, 21158, 33240, 39560, 42767, 3774]


@pytest.mark.parametrize(("images", "kept"), [(None, (50_400, 12_600)), (63_000, (50_400, 12_600)), (630, (504, 126))])
def test_a_limit_keeps_the_proportion_of_training_to_validation(images: int | None, kept: tuple[int, int]) -> None:
    """A limit above the number of images changes nothing."""
    assert limited(50_400, 12_600, images) == kept


@pytest.mark.parametrize(
    ("name", "digit"), [("7", 7), ("007", 7), ("²", None), ("٣", None), ("a7", None), ("1" * 19, None)]
)
def test_a_class_is_a_digit_if_its_name_is_a_plain_number(name: str, digit: int | None) -> None:
    """Some digit characters cannot be read as a number, and some numbers do not fit in JSON."""
    assert digit_of(name) == digit
