"""Sets of images to classify: the worker gets exactly the images that were sent."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ml.datasets import data_split, datasets
from ml.errors import CheckpointError
from worker.prediction.image_sets import ImageSet, compact, in_unit, together

BYTES = hnp.arrays(np.uint8, (3, 1, 2, 2))
FLOATS = hnp.arrays(np.float32, (3, 1, 2, 2), elements=st.floats(0, 1, width=32))
TEXTS = st.dictionaries(st.integers(0, 100), st.text(st.characters(codec="utf-8"), max_size=20), max_size=5)


@given(pixels=FLOATS | BYTES.map(in_unit))
def test_compact_pixels_are_the_same_bit_for_bit(pixels: np.ndarray) -> None:
    """Floats that are not a multiple of 1/255 stay floats."""
    assert in_unit(compact(pixels)).tobytes() == pixels.tobytes()


@given(pixels=BYTES)
def test_pixels_that_were_bytes_are_kept_as_bytes(pixels: np.ndarray) -> None:
    """They take a quarter of the size of floats."""
    assert np.array_equal(compact(in_unit(pixels)), pixels)


@given(parts=st.lists(FLOATS | BYTES, min_size=1, max_size=4))
def test_bytes_and_floats_can_be_joined(parts: list[np.ndarray]) -> None:
    """The order stays the same, and so do the values that a network gets."""
    whole = together(parts)

    assert in_unit(whole).tobytes() == np.concatenate([in_unit(part) for part in parts]).tobytes()


@given(pixels=FLOATS | BYTES, errors=TEXTS, ids=TEXTS)
def test_a_file_has_everything_in_a_set(pixels: np.ndarray, errors: dict[int, str], ids: dict[int, str]) -> None:
    """Pixels, places, labels, and errors and ids with any text survive."""
    images = ImageSet(pixels, np.array([0, 2, 5]), np.array([-1, 3, 9]), errors, ids)
    found = ImageSet.of_bytes(images.to_bytes(), "name")

    assert found.pixels.dtype == pixels.dtype
    assert found.pixels.tobytes() == pixels.tobytes()
    assert (found.places.tolist(), found.labels.tolist()) == ([0, 2, 5], [-1, 3, 9])
    assert (found.errors, found.ids) == (errors, ids)


@given(size=st.integers(1, 10))
def test_batches_cover_the_whole_set(size: int) -> None:
    """Each image comes once, in order, and a batch holds at most `size`."""
    images = ImageSet(np.arange(28, dtype=np.uint8).reshape(7, 1, 2, 2), np.arange(7), np.arange(7) % 3)
    parts = list(images.batches(size))

    assert all(len(part) <= size for part in parts)
    assert np.concatenate([part.pixels for part in parts]).tobytes() == images.pixels.tobytes()
    assert np.concatenate([part.labels for part in parts]).tolist() == images.labels.tolist()


def test_a_subset_of_a_data_set_has_the_images_that_a_job_used() -> None:
    """A limit keeps the first training and validation images, and all test images."""
    whole = data_split(datasets["digits"].size, None, "random", 7)
    found = {
        subset: ImageSet.of_dataset(datasets["digits"], subset, "random", 7, 400)
        for subset in ("train", "validation", "test")
    }

    assert found["train"].places.tolist() == sorted(whole.train[:320])
    assert found["validation"].places.tolist() == sorted(whole.validation[:80])
    assert found["test"].places.tolist() == sorted(whole.test)


def test_another_file_is_refused() -> None:
    """The error names the file."""
    with pytest.raises(CheckpointError, match="other"):
        ImageSet.of_bytes(b"other", "other")
