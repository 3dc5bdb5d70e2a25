"""The rows of `benchmarks.serving`: ratios and their goals."""

from typing import Any

MIB = 2**20
RIVALS = {"handwritten": ("handwritten",), "litserve": ("litserve",), "bentoml": ("bentoml", "bentoml batched")}
# Goals by figure and concurrency: minimums, and maximums for "ratio_p50".
LEAST = {
    ("ratio_limit", 64): 0.60,
    ("ratio_handwritten", 64): 6,
    ("ratio_litserve", 64): 10,
    ("ratio_bentoml", 64): 10,
    ("ratio_model", 1): 0.70,
}
MOST = {("ratio_p50", 1): 2.5, ("ratio_p50", 16): 2.0}
AIM = {("ratio_limit", 64): 0.80}
RESIDENT_MIB = 120  # maximum memory of the API, at any concurrency

Figures = dict[str, float]


def single_row(network: str, connections: int, figures: dict[str, Figures], n: int) -> dict[str, Any]:
    """Return the row of one concurrency: each figure by server, and Chiffre's ratios to the others.

    A rival that did not take part has the ratio None. If a rival has two endpoints, the faster one counts.
    """
    ours, least = figures["chiffre"], figures["limit"]
    rivals = {
        rival: [figures[endpoint]["requests"] for endpoint in endpoints if endpoint in figures]
        for rival, endpoints in RIVALS.items()
    }
    return {
        "work": f"{network}, one image, concurrency {connections}",
        "network": network,
        "concurrency": connections,
        "n": n,
        "ratio_limit": ours["requests"] / least["requests"],
        "ratio_cpu": least["cpu"] / ours["cpu"],
        "ratio_p50": ours["p50"] / least["p50"],
        **{f"ratio_{rival}": ours["requests"] / max(rates) if rates else None for rival, rates in rivals.items()},
        "resident_mib": ours["resident"] / MIB,
        **{name: {server: found[name] for server, found in figures.items()} for name in ours},
    }


def batch_row(network: str, batch: int, ours: Figures, model: float, n: int) -> dict[str, Any]:
    """Return the row of many images in one body, compared with the network alone; rates are images per second."""
    return {
        "work": f"{network}, {batch:,} images as octet-stream",
        "network": network,
        "concurrency": 1,
        "n": n,
        "ratio_limit": None,
        "ratio_model": ours["requests"] * batch / model,
        "images": {"chiffre": ours["requests"] * batch, "model": model},
        "resident_mib": ours["resident"] / MIB,
        **{name: {"chiffre": ours[name]} for name in ("p50", "p99", "cpu")},
    }


def verdicts(found: dict[str, Any]) -> list[str]:
    """Return a line for each goal of a row, with the measured value."""
    lines = []
    for (name, concurrency), goal in [*LEAST.items(), *MOST.items()]:
        value = found.get(name)
        if concurrency == found["concurrency"] and value is not None:
            reached = value <= goal if (name, concurrency) in MOST else value >= goal
            aim = f", aim {AIM[name, concurrency]:g}" if (name, concurrency) in AIM else ""
            sign = "≤" if (name, concurrency) in MOST else "≥"
            lines.append(f"{name} {value:.2f} (goal {sign} {goal:g}{aim}){'' if reached else ' MISSED'}")
    reached = found["resident_mib"] < RESIDENT_MIB
    lines.append(f"resident {found['resident_mib']:.0f} MiB (goal < {RESIDENT_MIB}){'' if reached else ' MISSED'}")
    return lines


def show(found: dict[str, Any]) -> None:
    """Print a row: one line per server, then the goals."""
    print(f"\n{found['work']}, median of {found['n']}")
    for server in found["cpu"]:
        rate = found["requests"][server] if "requests" in found else found["images"][server]
        p50, p99, cpu = (1e6 * found[name][server] for name in ("p50", "p99", "cpu"))
        print(f"  {server:<16} {rate:>9,.0f}/s   p50 {p50:>9,.0f} µs   p99 {p99:>9,.0f} µs   {cpu:>9,.1f} µs of core")
    if "images" in found:
        print(f"  {'network alone':<16} {found['images']['model']:>9,.0f}/s")
    for line in verdicts(found):
        print(f"  {line}", flush=True)
