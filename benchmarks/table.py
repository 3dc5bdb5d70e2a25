"""The tables of figures, in Markdown, from the results: `python -m benchmarks.table`."""

from collections.abc import Iterator
from typing import Any

from benchmarks.results import RESULTS, read
from benchmarks.searches import SEARCHES
from benchmarks.study import row


def table(headings: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def machine(results: dict[str, Any]) -> str:
    """Where and when figures were taken, in a sentence."""
    hardware, versions = results["hardware"], results["versions"]
    caches = ", ".join(f"{name} {size // 1024} KiB" for name, size in hardware["caches"].items())
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    return f"{hardware['cpu']}, {hardware['cores']} cores ({caches}); {packages}; {results['taken']}."


def lanes(results: dict[str, Any]) -> Iterator[str]:
    """A step's cost, and the limits that were measured beside it."""
    headings = ["work", "goal", "A µs", "B µs", "lanes µs", "width", "ratio_core", "with flush", "ratio_a", "ratio_b"]
    rows = []
    for found in results["rows"]:
        times = [f"{1e6 * found['medians'][name]:.1f}" for name in ("report", "careful", "lanes")]
        ratios = [f"{found[name]:.1f}" for name in ("ratio_core", "ratio_core_flush", "ratio_a", "ratio_b")]
        roofline = f"{found['roofline']:.0%} ({found['bound']})"
        rows.append([found["work"], found["goal"], *times, str(found["width"]), *ratios, roofline])
    yield table([*headings, "roofline"], rows)
    first = results["rows"][0]["medians"]
    limits = f"{first['gemm'] / 1e9:.0f} GFLOP/s and {first['copy'] / 1e9:.1f} GB/s on one thread"
    yield f"Medians of {results['n']}; {limits}. {machine(results)}"


def study(results: dict[str, Any]) -> Iterator[str]:
    """The time to an accuracy."""
    rows = []
    for search in SEARCHES.values():
        found = row(search, results["runs"])
        if found is None:
            continue
        bound = "≥ " if found["at_least"] else ""
        ratio = "missed" if found["ratio_b"] is None else f"{bound}{found['ratio_b']:.1f}"
        product, baseline = (found["seconds"][side] for side in ("product", "baseline"))
        rows.append([found["work"], f"{product:.0f} s", f"{bound}{baseline:.0f} s", ratio, str(len(found["seeds"]))])
    yield table(["work", "product", "baseline", "ratio_b", "n"], rows)
    yield f"Medians. {machine(results['runs'][-1])}"


def main() -> None:
    """Print the tables of all results that there are."""
    for name, tables in (("lanes", lanes), ("study", study)):
        results = read(RESULTS / f"{name}.json")
        print(
            "\n\n".join(tables(results)) if results else f"No results of `python -m benchmarks.{name}` yet.", end="\n\n"
        )


if __name__ == "__main__":
    main()
