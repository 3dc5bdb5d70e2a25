"""The page `benchmarks/records.md`, made from the results."""

from statistics import mean
from typing import Any

from benchmarks.table import table

GOALS = {  # the report's accuracy, and the goal and aim for the mean on the 72 / 18 / 10 split
    "perceptron": (None, 0.926, 0.930),
    "shallow": (0.9878, 0.993, 0.9945),
    "mlp": (0.9869, 0.995, 0.9965),
    "cnn": (0.9917, 0.995, 0.9965),
}
HEADINGS = ["network", "split", "report", "goal", "aim", "test", "95 % interval", "reached", "n", "validation", "hours"]

HEAD = """# Records

Each record has ten models of one frozen spec (`ml/presets/records/`). They differ in their seeds: initial weights,
order of images, distortions, and the split into training and validation images. `test` is their mean accuracy on the
test images. The test labels were used once for this preset and split, after the last of the `n` seeds; 1,018 images
are test images of both splits. The interval is Student's over the seeds, for the mean of such models on these images.
`reached` says whether that mean reaches the goal or the aim. `hours` is the total training time of the seeds.
`python -m benchmarks.records` writes this page from `results/records.json`.
"""


EARLIER = """## Earlier presets
These presets were evaluated on the test images too, before the presets above were chosen. The choice was made on
validation images of the official split, some of which are test images of the random split."""


def page(results: dict[str, Any]) -> str:
    """Return the page in Markdown."""
    rows = [_row(name, found) for name, found in results.items()]
    commands = [f"- {name}: `{found['command']}`; {_machines(found)}." for name, found in results.items()]
    earlier = [_earlier(name, one) for name, found in results.items() for one in found.get("earlier", [])]
    return "\n".join([HEAD, table(HEADINGS, rows), "", *commands, *(["", EARLIER, "", *earlier] if earlier else [])])


def _row(name: str, found: dict[str, Any]) -> list[str]:
    network, split = name.split()
    report, least, aim = GOALS[network]
    test, seeds = found["test"], found["seeds"]
    return [
        network,
        split,
        _percent(report) if report else "–",
        _percent(least),
        _percent(aim),
        _percent(test["mean"]) if test else "not evaluated yet",
        _interval(test),
        _reached(test["mean"], least, aim) if test else "–",
        str(test["n"] if test else len(seeds)),
        _percent(mean(seed["val_accuracy"] for seed in seeds)),
        f"{sum(seed['seconds'] for seed in seeds) / 3600:.2f}",
    ]


def _earlier(name: str, found: dict[str, Any]) -> str:
    """Return the line of an earlier version of a preset."""
    test, spec = found["test"], found["spec"]
    params = ", ".join(f"{key} {value}" for key, value in spec["params"].items())
    reached = "never evaluated" if test is None else f"{_percent(test['mean'])} ({_interval(test)}, n = {test['n']})"
    return f"- {name}: {reached}; {spec['budget']['epochs']} epochs, {params}."


def _interval(test: dict[str, Any] | None) -> str:
    return "–" if not test or not test["interval"] else " – ".join(_percent(bound) for bound in test["interval"])


def _reached(mean: float, least: float, aim: float) -> str:
    if mean >= aim:
        return "aim"
    return "goal" if mean >= least else f"{100 * (least - mean):.2f} short"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _machines(found: dict[str, Any]) -> str:
    """Return the seeds, machines and days of a record, with each machine named once."""
    seeds = found["seeds"]
    machines = {f"{_machine(seed)}, torch {seed['versions']['torch']}": None for seed in seeds}
    days = sorted(seed["taken"][:10] for seed in seeds)
    numbers = _numbers([seed["seed"] for seed in seeds])
    return f"seeds {numbers}, one thread each; {'; '.join(machines)}; {days[0]} to {days[-1]}"


def _numbers(seeds: list[int]) -> str:
    whole = len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]} to {seeds[-1]}" if whole else ", ".join(map(str, seeds))


def _machine(seed: dict[str, Any]) -> str:
    """Return the processor or GPU, and the number of seeds that shared it."""
    found: str = seed.get("gpu") or seed["hardware"]["cpu"]
    return f"{found} shared by {seed['at_once']} seeds" if "at_once" in seed else found
