"""`benchmarks/records.md`, from the results."""

from statistics import mean
from typing import Any

from benchmarks.table import table

GOALS = {  # the report's figure, and what is asked for, at least and at best, of the mean on the 72 / 18 / 10 split
    "perceptron": (None, 0.926, 0.930),
    "shallow": (0.9878, 0.993, 0.9945),
    "mlp": (0.9869, 0.995, 0.9965),
    "cnn": (0.9917, 0.995, 0.9965),
}
HEADINGS = ["network", "split", "report", "goal / aim", "test", "95 % interval", "n", "validation", "hours a seed"]

HEAD = """# Records

Ten models of one frozen spec each (`ml/presets/records/`), which differ in their seeds: initial weights, order of
images, distortions, and the cut between training and validation. `test` is their mean accuracy on the test images,
whose labels were looked at once, after the last seed; the interval is Student's over the seeds and speaks of these very
images. `n` is how many seeds have ended.
Written by `python -m benchmarks.records` from `results/records.json`.
"""


def page(results: dict[str, Any]) -> str:
    """The page in Markdown."""
    rows = [_row(name, found) for name, found in results.items()]
    commands = [f"- {name}: `{found['command']}`; {_machines(found)}." for name, found in results.items()]
    return "\n".join([HEAD, table(HEADINGS, rows), "", *commands])


def _row(name: str, found: dict[str, Any]) -> list[str]:
    network, split = name.split()
    report, least, aim = GOALS[network]
    test, seeds = found["test"], found["seeds"]
    interval = "–" if not test or not test["interval"] else " – ".join(_percent(bound) for bound in test["interval"])
    return [
        network,
        split,
        _percent(report) if report else "–",
        f"{_percent(least)} / {_percent(aim)}",
        _percent(test["mean"]) if test else "not looked at yet",
        interval,
        str(test["n"] if test else len(seeds)),
        _percent(mean(seed["val_accuracy"] for seed in seeds)),
        f"{mean(seed['seconds'] for seed in seeds) / 3600:.2f}",
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _machines(found: dict[str, Any]) -> str:
    """What trained the seeds, each machine once."""
    seeds = found["seeds"]
    machines = {f"{_machine(seed)}, torch {seed['versions']['torch']}": None for seed in seeds}
    days = sorted(seed["taken"][:10] for seed in seeds)
    return f"{'; '.join(machines)}; {days[0]} to {days[-1]}, one thread a seed"


def _machine(seed: dict[str, Any]) -> str:
    """The processor or the GPU, and how many seeds shared it."""
    found: str = seed.get("gpu") or seed["hardware"]["cpu"]
    return f"{found} shared by {seed['at_once']} seeds" if "at_once" in seed else found
