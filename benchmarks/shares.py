"""Each lane's share of a pack's time, compared with its time alone: `python -m benchmarks.shares`.

Packs with lanes of different widths or optimizers train on 10,000 images of MNIST, and each lane alone, in turn. A
pack passes if no share differs by more than 20 % from the lane's part of the sum of the times alone.
"""

import argparse
import json
from statistics import median
from typing import Any

import numpy as np

from benchmarks.results import RESULTS, taken, write
from ml.datasets import datasets
from ml.specs import TuneSpec
from ml.training.lane import Lane, TrainingData
from ml.training.pack import LanePack
from ml.training.process import process_settings, warm_up

IMAGES = 10_000
ROUNDS, QUICK_ROUNDS = 5, 1
LIMIT = 0.2
PACKS: dict[str, tuple[str, int, list[dict[str, Any]]]] = {
    "widths 16 to 1,024, batch 64": ("shallow", 64, [{"hidden_size": width} for width in (16, 64, 256, 1024)]),
    "widths 16 to 1,024, batch 8": ("shallow", 8, [{"hidden_size": width} for width in (16, 64, 256, 1024)]),
    "Adam and SGD, batch 8": (
        "shallow",
        8,
        [{"hidden_size": 256, "optimizer": name} for name in ("adam", "sgd")] + [{"hidden_size": 32}],
    ),
    "two hidden layers, batch 64": (
        "mlp",
        64,
        [{"hidden_sizes": sizes} for sizes in ([32, 32], [512, 64], [256, 512])],
    ),
}


def seconds_of(model: str, batch_size: int, lanes: list[dict[str, Any]], data: TrainingData) -> list[float]:
    """Train one epoch of lanes together, and return the seconds of each."""
    spec = TuneSpec.model_validate(
        {
            "model": model,
            "search_space": {"batch_size": batch_size},
            "pruner": {"name": "none"},
            "budget": {"trials": 1},
        }
    )
    params = [spec.params({"batch_size": batch_size, "epochs": 1, **own}) for own in lanes]
    pack = LanePack.of(spec, data, params[0], stream_seed=0)
    for number, own in enumerate(params):
        pack.join(Lane(number, spec, own, number, 0))
    found = {lane.number: measured.seconds for rungs in pack.run(lambda: False) for lane, measured in rungs}
    return [found[number] for number in range(len(lanes))]


def row(work: str, alone: np.ndarray, together: np.ndarray) -> dict[str, Any]:
    """Compare the shares with the times alone, float64 [rounds, lanes] in seconds, as medians over rounds."""
    expected, shares = (np.median(one / one.sum(axis=1, keepdims=True), axis=0) for one in (alone, together))
    worst = float(np.max(np.abs(shares / expected - 1)))
    return {
        "work": work,
        "n": len(alone),
        "alone_seconds": np.median(alone, axis=0).tolist(),
        "together_seconds": np.median(together, axis=0).tolist(),
        "share_by_time_alone": expected.tolist(),
        "share": shares.tolist(),
        "largest_difference": worst,
        "passed": worst <= LIMIT,
    }


def main() -> None:
    """Measure, and print the rows and, as the last line, one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shares", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round; writes no results")
    quick = parser.parse_args().quick
    process_settings()
    warm_up()
    data = TrainingData.of(datasets["mnist"].load().take(np.arange(IMAGES)), None, "random", 0)
    rows = []
    for work, (model, batch_size, lanes) in PACKS.items():
        alone, together = [], []
        for _ in range(QUICK_ROUNDS if quick else ROUNDS):
            together.append(seconds_of(model, batch_size, lanes, data))
            alone.append([seconds_of(model, batch_size, [own], data)[0] for own in lanes])
        rows.append(row(work, np.array(alone), np.array(together)))
        print(f"{work}: largest difference {100 * rows[-1]['largest_difference']:.0f} %", flush=True)
    results = {
        "rows": rows,
        "n": QUICK_ROUNDS if quick else ROUNDS,
        "median_difference": median(r["largest_difference"] for r in rows),
    }
    if not quick:
        write(RESULTS / "shares.json", {**taken(), **results})
    print(json.dumps(results))


if __name__ == "__main__":
    main()
