"""The time of a training step per trial: lanes, compared with plain torch."""

import argparse
import json
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import torch

from benchmarks.lanes.programs import Careful, Packed, Remote, Report, together
from benchmarks.lanes.workloads import WORKLOADS, Workload
from benchmarks.machine import cores
from benchmarks.results import RESULTS, taken, write
from ml.tuning.width import worthwhile

ROUNDS = 5
ROWS_SHARE = {"warm": 0.1, "width": 0.05, "measure": 0.012}  # shares of the seconds of a quick row, for one call


@dataclass(frozen=True)
class Pace:
    """The time limits of a benchmark run."""

    widths: tuple[int, ...]
    longest: float  # seconds; a width with longer steps is not tried
    room: float  # bytes; a width whose lanes need more is not tried
    warm_steps: int
    warm: float  # seconds, at most
    width: float  # seconds to time one width
    measure: float  # seconds of one measurement
    row: float = inf  # seconds after which no further round starts

    @classmethod
    def quick(cls, seconds: float) -> "Pace":
        """Return a pace at which a row takes about `seconds`."""
        return cls((4, 16, 64), 0.1, 200e6, 1500, *(seconds * share for share in ROWS_SHARE.values()), seconds)


FULL = Pace(tuple(2**k for k in range(8)), inf, inf, 1500, 15, 0.3, 0.5)
QUICK_SECONDS = 34  # for all rows and the start of the processes


class Programs:
    """The measured processes: one for each baseline, and one of the product for each core."""

    def __init__(self, stack: ExitStack) -> None:
        def start(*arguments: Any, **settings: Any) -> Remote:
            return stack.enter_context(closing(Remote(*arguments, **settings)))

        self.careful = start(Careful)
        self.flushed = start(Careful, flush=True)
        self.threaded = start(Careful, threads=cores())
        self.report = start(Report)
        self.packs = [start(Packed) for _ in range(cores())]

    def compile(self) -> None:
        """Compile the kernels if they are not cached: linear layers in one process, convolutions in another."""
        works = [WORKLOADS[0], WORKLOADS[-1]][: len(self.packs)]
        compiling = list(zip(self.packs, works, strict=False))
        for pack, work in compiling:
            pack.begin("prepare", work, 1)
        for pack, _ in compiling:
            pack.result()
        together([pack for pack, _ in compiling], "warm", 1, 1.0)

    @property
    def pack(self) -> Remote:
        """The process of the product that is measured alone."""
        return self.packs[0]


@dataclass
class StepSamples:
    """Seconds per step and trial, one number per round."""

    careful: list[float] = field(default_factory=list)
    flushed: list[float] = field(default_factory=list)
    threaded: list[float] = field(default_factory=list)
    report: list[float] = field(default_factory=list)
    lanes: list[float] = field(default_factory=list)
    machine: list[float] = field(default_factory=list)  # lanes in one process per core
    gemm: list[float] = field(default_factory=list)  # operations per second
    copy: list[float] = field(default_factory=list)  # bytes per second

    def add(self, programs: Programs, seconds: float) -> None:
        """Measure every program once, one after another."""
        self.careful.append(programs.careful.call("measure", seconds))
        self.lanes.append(programs.pack.call("measure", seconds))
        self.flushed.append(programs.flushed.call("measure", seconds))
        self.threaded.append(programs.threaded.call("measure", seconds))
        self.report.append(programs.report.call("measure", seconds))
        self.machine.append(1 / sum(1 / each for each in together(programs.packs, "measure", seconds)))
        gemm, copy = programs.pack.call("limits")
        self.gemm.append(gemm)
        self.copy.append(copy)


def measure(work: Workload, programs: Programs, pace: Pace) -> dict[str, Any]:
    """Prepare and warm the programs for a workload, time them in turn, and return the row."""
    started = monotonic()
    widths = programs.pack.call("widths", work, pace.widths, pace.width, pace.longest, pace.room)
    width = worthwhile(list(widths), widths.__getitem__)  # chosen as a job chooses its width
    together(programs.packs, "prepare", work, width)
    together(programs.packs, "warm", pace.warm_steps, pace.warm / 3)
    warmed, channels_last = ready(work, programs, pace)
    samples = StepSamples()
    for place in range(ROUNDS):
        if place and monotonic() - started > pace.row:  # the machine is busy: do fewer rounds instead of a longer run
            break
        samples.add(programs, pace.measure)
    return {
        **row(work, samples),
        "width": width,
        "widths": widths,
        "warm_steps": warmed,
        "channels_last": channels_last,
    }


def ready(work: Workload, programs: Programs, pace: Pace) -> tuple[int, bool]:
    """Prepare and warm the baselines; return the warm-up steps of B, and whether it uses channels-last."""
    last = programs.careful.call("prepare", work, pace.width, None)
    programs.flushed.call("prepare", work, pace.width, last)
    programs.threaded.call("prepare", work, pace.width, None)
    programs.report.call("prepare", work)
    # These two use one thread each, so they run together; each of the others needs the whole machine.
    warmed, _ = together([programs.careful, programs.flushed], "warm", pace.warm_steps, pace.warm)
    for each in (programs.threaded, programs.report):
        each.call("warm", pace.warm_steps, pace.warm)
    return warmed, last


def row(work: Workload, samples: StepSamples) -> dict[str, Any]:
    """Return the results of a workload: medians in seconds per step and trial, and ratios of them."""
    found = {name: median(values) for name, values in vars(samples).items()}
    whole = min(found["careful"], found["threaded"])
    return {
        "work": work.work,
        "goal": str(work.goal),
        "ratio_core": found["careful"] / found["lanes"],
        "ratio_core_flush": found["flushed"] / found["lanes"],
        "ratio_a": found["report"] / found["lanes"],
        "ratio_b": whole / found["machine"],
        "gain_of_threads": found["careful"] / found["threaded"],
        "roofline": work.limit(found["gemm"], found["copy"]) / found["lanes"],
        "bound": "operations" if work.flops / found["gemm"] > work.traffic / found["copy"] else "traffic",
        "flops": work.flops,
        "traffic": work.traffic,
        "n": len(samples.lanes),
        "medians": found,
        "samples": vars(samples),
    }


HEADINGS = (
    "work",
    "goal",
    "B µs",
    "lanes µs",
    "width",
    "ratio_core",
    "flushed",
    "ratio_a",
    "ratio_b",
    "b / core",
    "roofline",
    "",
)


def line(found: dict[str, Any]) -> list[str]:
    """Return a row of the printed table; its last cell says whether the goal was reached."""
    goal = next(work.goal for work in WORKLOADS if work.work == found["work"])
    reached = "aim" if found[goal.figure] >= goal.aim else "goal" if found[goal.figure] >= goal.least else "short"
    times = (f"{1e6 * found['medians'][name]:.1f}" for name in ("careful", "lanes"))
    ratios = (f"{found[name]:.2f}" for name in ("ratio_core", "ratio_core_flush", "ratio_a", "ratio_b"))
    of_core = f"{found['ratio_b'] / found['ratio_core']:.2f}"
    width, roofline = str(found["width"]), f"{found['roofline']:.0%}"
    return [found["work"], found["goal"], *times, width, *ratios, of_core, roofline, reached]


def show(cells: list[str] | tuple[str, ...]) -> None:
    """Print a line of the table."""
    first, goal, *others = cells
    print(f"{first:28}{goal:24}" + "".join(f"{cell:>12}" for cell in others), flush=True)


def run(quick: bool) -> list[dict[str, Any]]:
    """Measure and print every row."""
    started, rows = monotonic(), []
    with ExitStack() as stack:
        programs = Programs(stack)
        programs.compile()
        show(HEADINGS)
        for place, work in enumerate(WORKLOADS):
            left = max(1.0, QUICK_SECONDS - (monotonic() - started))
            pace = Pace.quick(left / (len(WORKLOADS) - place)) if quick else FULL
            rows.append(measure(work, programs, pace))
            show(line(rows[-1]))
    return rows


def main() -> None:
    """Measure, and print a table and, as the last line, JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lanes", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="run within a minute; write results only with --out")
    parser.add_argument("--out", type=Path, help=f"file for the results; by default {RESULTS / 'lanes.json'}")
    options = parser.parse_args()
    print(
        f"Microseconds per training step and trial, medians of {ROUNDS}; B is plain torch at its best, on one thread."
    )
    rows = run(options.quick)
    out = options.out or (None if options.quick else RESULTS / "lanes.json")
    if out:
        threads = {"lanes": 1, "B": 1, "B, whole machine": cores(), "A": torch.get_num_threads()}
        write(out, {**taken(), "n": ROUNDS, "quick": options.quick, "threads": threads, "rows": rows})
    left_out = ("samples", "widths")
    print(json.dumps({"rows": [{k: v for k, v in found.items() if k not in left_out} for found in rows]}))
