"""The best of a search in packs, compared with one trial at a time: `python -m benchmarks.surrogates`.

A formula gives the results of trials, so that a search takes seconds. In the valleys the best learning rate depends on
the batch size, which the trials of a pack share. A surrogate passes if, after 50, 100 and 200 trials, the 90 % interval
of the mean paired difference to one trial at a time lies above -0.1 points of accuracy.
"""

import argparse
import json
from collections.abc import Callable
from math import log2, log10, sqrt
from multiprocessing import Pool
from statistics import mean, median, stdev
from typing import Any

import numpy as np
import optuna
from scipy.stats import t as student_t

from benchmarks.results import RESULTS, taken, write
from ml.records import TrialState
from ml.specs import TuneSpec
from ml.tuning.admission import Room
from ml.tuning.search import Search

LANES = 8
AT = (50, 100, 200)  # trials after which the best are compared
SEEDS, QUICK_SEEDS = 14, 2
LIMIT = -0.001
NOISE = 0.001  # standard deviation of an accuracy

BATCH = {"type": "int", "low": 8, "high": 512, "log": True}
RATE = {"type": "float", "low": 1e-5, "high": 1e-1, "log": True}
WIDTH = {"type": "int", "low": 16, "high": 512, "log": True}


def valley(drawn: dict[str, Any]) -> float:
    """A narrow valley: the best learning rate rises with the batch size."""
    batch, rate = log2(drawn["batch_size"]), log10(drawn["learning_rate"])
    away = abs(rate + 3.2 - 0.3 * (batch - 5)) ** 1.5
    return 0.985 - 0.02 * away - 0.002 * abs(batch - 4.5) + 0.0015 * (log2(drawn["hidden_size"]) - 9)


def small_batches(drawn: dict[str, Any]) -> float:
    """Only batches below 16 are good; the other parameters are independent."""
    batch, rate, decay = log2(drawn["batch_size"]), log10(drawn["learning_rate"]), log10(drawn["weight_decay"])
    return 0.985 - 0.012 * (rate + 2.8) ** 2 - 0.004 * max(0.0, batch - 4) ** 1.3 - 0.001 * (decay + 4) ** 2


def choices(drawn: dict[str, Any]) -> float:
    """Five batch sizes and two optimizers, whose best learning rates differ."""
    batch, rate, sgd = log2(drawn["batch_size"]), log10(drawn["learning_rate"]), drawn["optimizer"] == "sgd"
    best = (-0.9 if sgd else -2.8) + 0.15 * (batch - 5)
    loss_by_batch = {4: 0.004, 5: 0.001, 6: 0.0, 7: 0.003, 8: 0.007}[round(batch)]
    return 0.98 - 0.015 * (rate - best) ** 2 - loss_by_batch - 0.002 * sgd


def separate(drawn: dict[str, Any]) -> float:
    """Four parameters that do not depend on each other."""
    batch, rate = log2(drawn["batch_size"]), log10(drawn["learning_rate"])
    width, dropout = log2(drawn["hidden_size"]), drawn["dropout"]
    return (
        0.985 - 0.012 * (rate + 3) ** 2 - 0.0015 * abs(batch - 5.2) - 0.02 * (dropout - 0.25) ** 2 + 0.001 * (width - 9)
    )


SURROGATES: dict[str, tuple[Callable[[dict[str, Any]], float], dict[str, Any]]] = {
    "valley": (valley, {"batch_size": BATCH, "learning_rate": RATE, "hidden_size": WIDTH}),
    "small batches": (
        small_batches,
        {"batch_size": BATCH, "learning_rate": RATE, "weight_decay": {**RATE, "low": 1e-6, "high": 1e-2}},
    ),
    "choices": (
        choices,
        {
            "batch_size": {"type": "categorical", "choices": [16, 32, 64, 128, 256]},
            "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
            "learning_rate": {**RATE, "low": 1e-4, "high": 1.0},
        },
    ),
    "separate": (
        separate,
        {
            "batch_size": {"type": "int", "low": 8, "high": 105},
            "learning_rate": RATE,
            "hidden_size": WIDTH,
            "dropout": {"type": "float", "low": 0.0, "high": 0.6},
        },
    ),
}


def search(surrogate: str, lanes: int, seed: int) -> tuple[list[float], int]:
    """Search with TPE; return the best accuracy after each number of trials in `AT`, and the number of keys."""
    formula, space = SURROGATES[surrogate]
    fields = {"search_space": space, "seed": seed, "budget": {"trials": AT[-1]}}
    own = Search(TuneSpec.model_validate({"model": "shallow", **fields}))
    chance, found, keys = np.random.default_rng(seed), [], set()
    while len(found) < AT[-1]:
        room = Room.spread(len(found), lanes)
        left, like = room.lanes + room.refills, None
        while left and len(found) < AT[-1]:
            records = []
            for number in range(len(found), min(len(found) + min(left, room.lanes), AT[-1])):
                records.append(own.ask(number, like)[1])
                like = like or records[0].suggestion
            for record in records:
                value = formula(record.suggestion or {}) + chance.normal(0, NOISE)
                record.state, record.value, record.values = TrialState.COMPLETED, value, {10: value}
                own.apply(record)
                found.append(value)
            left -= len(records)
        keys.add((like or {})["batch_size"])
    return [max(found[:trials]) for trials in AT], len(keys)


def row(
    surrogate: str, alone: list[tuple[list[float], int]], together: list[tuple[list[float], int]]
) -> dict[str, Any]:
    """Compare the searches with one lane and with several, seed by seed."""
    n, at = len(alone), []
    for place, trials in enumerate(AT):
        differences = [b[0][place] - a[0][place] for a, b in zip(alone, together, strict=True)]
        half = float(student_t.ppf(0.95, n - 1)) * stdev(differences) / sqrt(n)
        bests = {"alone": median(a[0][place] for a in alone), "together": median(b[0][place] for b in together)}
        interval = [mean(differences) - half, mean(differences) + half]
        at.append({"trials": trials, **bests, "difference": mean(differences), "interval": interval})
    keys = {"keys_alone": median(a[1] for a in alone), "keys_together": median(b[1] for b in together)}
    return {"work": surrogate, "n": n, "at": at, **keys, "passed": all(one["interval"][0] > LIMIT for one in at)}


def show(row: dict[str, Any]) -> None:
    """Print the differences of a row."""
    for one in row["at"]:
        difference, (low, high) = one["difference"], one["interval"]
        points = f"{100 * difference:+.3f} ({100 * low:+.3f} to {100 * high:+.3f}) points"
        print(f"{row['work']}: after {one['trials']} trials {points}", flush=True)


def main() -> None:
    """Measure, and print the rows and, as the last line, one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.surrogates", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two seeds; writes no results")
    quick = parser.parse_args().quick
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seeds, rows = QUICK_SEEDS if quick else SEEDS, []
    with Pool() as pool:
        for surrogate in SURROGATES:
            work = [(surrogate, lanes, seed) for lanes in (1, LANES) for seed in range(seeds)]
            found = pool.starmap(search, work, chunksize=1)
            rows.append(row(surrogate, found[:seeds], found[seeds:]))
            show(rows[-1])
    results = {"rows": rows, "n": seeds, "lanes": LANES}
    if not quick:
        write(RESULTS / "surrogates.json", {**taken(), **results})
    print(json.dumps(results))


if __name__ == "__main__":
    main()
