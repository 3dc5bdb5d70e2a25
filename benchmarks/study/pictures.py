"""Draw the curves of the study into docs/benchmarks: `python -m benchmarks.study.pictures`."""

from pathlib import Path

from api.report.svg import Axis, SvgPlot, linear_ticks, log_ticks
from benchmarks.results import RESULTS, read
from benchmarks.study.rows import SIDES, Run
from benchmarks.study.searches import SEARCHES, TargetSearch

DOCS = Path(__file__).parents[2] / "docs" / "benchmarks"
NAMES = {"product": "Chiffre", "b": "loop B, TPE, median pruner", "best": "loop B, TPE, hyperband, averaged weights"}
BELOW = 0.02  # of the lowest target: a lower accuracy is not shown
FIRST = 3.0  # seconds at the left edge
COLOURS = {"product": "#1868b7", "b": "#b4530a", "best": "#3a7d2c"}
STYLE = """<style>
svg { font: 12px system-ui, sans-serif; background: #fff; }
.grid { stroke: #e4e4e4; } .target { stroke: #777; stroke-dasharray: 4 3; } .tick, .axis { fill: #444; }
polyline { fill: none; stroke-width: 2; } .interval { stroke-width: 1; stroke-dasharray: 1 3; }
%s</style>"""


def main() -> None:
    """Draw one picture for each search that has runs."""
    runs: list[Run] = read(RESULTS / "study.json").get("runs", [])
    for name, search in SEARCHES.items():
        found = [run for run in runs if run["work"] == search.name and run["curve"]]
        if found:
            path = DOCS / f"study-{name}.svg"
            path.write_text(drawn(search, found) + "\n")
            print(path.relative_to(DOCS.parents[1]))


def drawn(search: TargetSearch, runs: list[Run]) -> str:
    """Return the curves of a search as SVG: accuracies by seconds, with 95 % intervals as dotted lines."""
    low = search.targets[0] - BELOW
    high = max(step["high"] for run in runs for step in run["curve"])
    last = max(run["seconds"] for run in runs)
    x = Axis("seconds", FIRST, last, tuple((tick, f"{tick:g}") for tick in log_ticks(FIRST, last)), log=True)
    marks = tuple((tick, f"{100 * tick:.1f}") for tick in linear_ticks(low, high))
    title = f"{search.name}: the accuracy of what each side would publish"
    plot = SvgPlot(title, x, Axis("validation accuracy on fresh cuts, %", low, high, marks), 720, 380)
    for target in search.targets:
        plot.line([FIRST, last], [target, target], "target", f"target {100 * target:g} %")
    for run in runs:
        times = [*(step["at"] for step in run["curve"]), run["seconds"]]
        for kind, line in (("interval", "low"), ("interval", "high"), ("", "mean")):
            heights = [step[line] for step in run["curve"]]
            plot.steps(times, [*heights, heights[-1]], f"{run['side']} {kind}".strip())
    for place, side in enumerate(SIDES):
        at = f'x="{plot.width - 30}" y="{plot.height - 110 + 18 * place}"'
        plot.marks.append(f'<text class="{side} name" {at} text-anchor="end">{NAMES[side]}</text>')
    return standing_alone(plot)


def standing_alone(plot: SvgPlot) -> str:
    """Return a plot as a file with its own style."""
    colours = (
        f".{side} {{ stroke: {colour}; }} .{side}.name {{ fill: {colour}; stroke: none; }}\n"
        for side, colour in COLOURS.items()
    )
    opening, rest = plot.__html__().split(">", 1)
    named = opening.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return f"{named}>{STYLE % ''.join(colours)}{rest}"


if __name__ == "__main__":
    main()
