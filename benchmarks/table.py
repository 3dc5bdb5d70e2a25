"""The tables of results in Markdown: `python -m benchmarks.table`."""

from collections.abc import Iterator
from typing import Any

from benchmarks.results import RESULTS, read
from benchmarks.study.rows import BASELINES, SIDES

RATIOS = ("ratio_limit", "ratio_cpu", "ratio_handwritten", "ratio_litserve", "ratio_bentoml")


def table(headings: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def machine(results: dict[str, Any]) -> str:
    """Return the machine, versions and time of results as a sentence."""
    hardware, versions = results["hardware"], results["versions"]
    caches = ", ".join(f"{name} {size // 1024} KiB" for name, size in hardware["caches"].items())
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    return f"{hardware['cpu']}, {hardware['cores']} cores ({caches}); {packages}; {results['taken']}."


def lanes(results: dict[str, Any]) -> Iterator[str]:
    """Yield the table of step times, and the limits of the machine."""
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


def gpu(results: dict[str, Any]) -> Iterator[str]:
    """Yield the table of step times on a GPU."""
    headings = ["work", "B µs", "lanes µs", "width", "ratio_core", "B recorded", "ratio_a", "16 lanes", "one lane"]
    rows = []
    for found in results["rows"]:
        names = ("ratio_core", "ratio_recorded", "ratio_a", "ratio_16", "ratio_solo")
        ratios = [f"{found[name]:.1f}" for name in names]
        times = [f"{1e6 * found['medians'][name]:.2f}" for name in ("careful", "lanes")]
        rows.append([found["work"], *times, str(found["width"]), *ratios, f"{found['roofline']:.0%}"])
    yield table([*headings, "roofline"], rows)
    yield f"Medians of {results['n']}; {results['gpu']}, CUDA {results['cuda']}. {machine(results)}"


def canonical(results: dict[str, Any]) -> Iterator[str]:
    """Yield the table of accuracies in per cent, without and with the canonicaliser."""
    headings = ["images", "n", "CNN without", "with", "gain", "shallow without", "with", "gain"]
    rows = []
    for found in results["rows"]:
        cells = [found["work"], f"{found['n']:,}"]
        for network in ("cnn", "shallow"):
            without, given = found[network]["without"], found[network]["with"]
            cells += [f"{without:.2f}", f"{given:.2f}", f"{given - without:+.2f}"]
        rows.append(cells)
    yield table(headings, rows)
    yield machine(results)


def calibration(results: dict[str, Any]) -> Iterator[str]:
    """Yield the tables of calibration and of rejected images."""
    tested, kinds = [], {}
    for found in results["rows"]:
        network, kind = found["work"].split(", ", 1)
        if "ece" in found:
            names = ("ece_uncalibrated", "ece", "abstained", "accuracy", "accuracy_answered")
            tested.append([network, f"{found['temperature']:.2f}", *(f"{found[name]:.2%}" for name in names)])
        else:
            row = kinds.setdefault(kind, [kind, found["group"]])
            row += [f"{found['rejected']:.1%}", f"{found['rejected_softmax']:.1%}"]
    head = ["test images", "temperature", "error with 1", "error", "abstained", "accuracy", "of those answered"]
    yield table(head, tested)
    yield table(["rejected", "group", "CNN", "its softmax", "shallow", "its softmax"], list(kinds.values()))
    yield f"Medians of {results['rows'][0]['seeds']} seeds. {machine(results)}"


def study(results: dict[str, Any]) -> Iterator[str]:
    """Yield the tables of times to an accuracy: of what would be published, and of the first measurement."""
    for name in ("rows", "first_epoch"):
        rows = []
        for found in results[name]:
            times = [_time(found, side) for side in SIDES]
            ratios = [_bounded(found, side, ratio) for side, ratio in BASELINES.items()]
            rows.append([found["work"], *times, *ratios, str(found["n"])])
        yield table(
            [{"rows": "published", "first_epoch": "first measured"}[name], *SIDES, *BASELINES.values(), "n"], rows
        )
    yield f"Medians. {machine(results['runs'][-1])}"


def _time(found: dict[str, Any], side: str) -> str:
    """Return the time of a side; a dash if it has not run."""
    if found["seconds"][side] is None:
        return "missed" if found["missed"][side] else "–"
    return f"{found['seconds'][side]:.0f} s"


def _bounded(found: dict[str, Any], side: str, ratio: str) -> str:
    if found[ratio] is None:
        return "–"
    return f"{'≥ ' if found['at_least'][side] else ''}{found[ratio]:.1f}"


def experiments(results: dict[str, Any]) -> Iterator[str]:
    """Yield the table of the report's experiments at full scale."""
    rows = []
    for found in results["rows"]:
        least, most = (f"{found[name]:,.2f}" for name in ("hours_at_least", "hours_at_most"))
        hours = most if least == most else f"{least} to {most}"
        cost = f"{found['microseconds_per_image']:,.0f}"
        rows.append([found["experiment"], str(found["n"]), cost, f"{100 * found['fraction']:.2g} %", hours])
    yield table(["experiment", "trials measured", "µs an image", "share of the full one", "hours of one trainer"], rows)
    load = results["load_average"][0]
    yield f"Scale {results['scale']:g}, {load:.1f} processes at work at its end. {machine(results)}"


def overhead(results: dict[str, Any]) -> Iterator[str]:
    """Yield the table of overhead per trial."""
    rows = [[found["work"], f"{found['drawing_ms']:.1f}", f"{found['recording_ms']:.1f}"] for found in results["rows"]]
    yield table(["of 1,000 trials", "drawing, ms", "recording, ms"], rows)
    share = f"{results['share']:.1%} of a job of {results['trials']:,} trials, each trained for"
    yield f"{share} {results['training_ms']:,.0f} ms; medians of {results['n']}. {machine(results)}"


def serving(results: dict[str, Any]) -> Iterator[str]:
    """Yield the tables of predictions per second and latencies."""
    single = [found for found in results["rows"] if "requests" in found]
    servers = list(single[0]["requests"])
    yield table(
        ["requests a second", *servers, *RATIOS],
        [
            [found["work"], *(f"{found['requests'][of]:,.0f}" for of in servers), *(_ratio(found[of]) for of in RATIOS)]
            for found in single
        ],
    )
    yield table(
        ["p50 / p99, µs", *servers, "ratio_p50"],
        [[found["work"], *(_latency(found, of) for of in servers), f"{found['ratio_p50']:.2f}"] for found in single],
    )
    rows = [
        [found["work"], *(f"{found['images'][of]:,.0f}" for of in ("chiffre", "model")), f"{found['ratio_model']:.0%}"]
        for found in results["rows"]
        if "images" in found
    ]
    yield table(["images a second", "chiffre", "network alone", "ratio_model"], rows)
    resident = max(found["resident_mib"] for found in results["rows"])
    releases = ", ".join(f"{name} {number}" for name, number in results["releases"].items())
    yield f"Medians of {single[0]['n']}, load by {results['load']}; the API held {resident:.0f} MiB. {releases}."
    yield machine(results)


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}" if value < 1 else f"{value:.1f}"


def _latency(found: dict[str, Any], server: str) -> str:
    return " / ".join(f"{1e6 * found[name][server]:,.0f}" for name in ("p50", "p99"))


TABLES = {
    "lanes": lanes,
    "gpu": gpu,
    "study": study,
    "canonical": canonical,
    "calibration": calibration,
    "experiments": experiments,
    "overhead": overhead,
    "serving": serving,
}


def main() -> None:
    """Print the tables of all results."""
    for name, tables in TABLES.items():
        results = read(RESULTS / f"{name}.json")
        print(
            "\n\n".join(tables(results)) if results else f"No results of `python -m benchmarks.{name}` yet.", end="\n\n"
        )


if __name__ == "__main__":
    main()
