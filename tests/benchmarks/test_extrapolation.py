"""The extrapolated hours of the experiments at full scale, compared with values computed by hand."""

import pytest

from benchmarks.experiments import MeasuredTrial, extrapolated, full_images
from ml.presets import collection

REPORT = {experiment.name: experiment.spec for experiment in collection("mnist-report").experiments}


def test_a_full_experiment_counts_each_points_own_epochs() -> None:
    """The grid has 144 points, one third each with 5, 10 and 20 epochs, on 50,400 images."""
    assert full_images(REPORT["shallow-grid"]) == 48 * (5 + 10 + 20) * 50_400


def test_hours_are_images_times_mean_seconds_per_image() -> None:
    """Two trials take 1 and 3 ms per image; early stopping may end each after 3 of 100 epochs."""
    row = extrapolated(
        "shallow-grid-wide", REPORT["shallow-grid-wide"], [MeasuredTrial(1000, 1.0), MeasuredTrial(500, 1.5)]
    )
    hours = 18 * 100 * 50_400 * 0.002 / 3600

    assert row.hours_at_most == pytest.approx(hours)
    assert row.hours_at_least == pytest.approx(0.03 * hours)
    assert row.fraction == pytest.approx(1500 / (18 * 100 * 50_400))


def test_a_jobs_time_limit_limits_the_hours() -> None:
    """The report gives the CNN three hours, even if an image takes 10 s."""
    row = extrapolated("cnn-search", REPORT["cnn-search"], [MeasuredTrial(10, 100.0)])

    assert (row.hours_at_least, row.hours_at_most) == (3.0, 3.0)
