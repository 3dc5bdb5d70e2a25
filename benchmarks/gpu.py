"""The time of a training step per trial on a GPU: lanes, compared with plain torch on the same GPU."""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.lanes.programs import Careful, Packed, Report
from benchmarks.lanes.workloads import WORKLOADS, Workload
from benchmarks.results import RESULTS, taken, write
from ml.tuning.width import worthwhile

ROUNDS = 5
WIDTHS = tuple(4**k for k in range(5))
SECONDS = {"width": 0.1, "warm": 0.2, "measure": 0.15}  # of one call of each kind
LONGEST = 0.05  # seconds; a width with longer steps is not tried
ROOM = 8e9  # bytes; a width whose lanes need more is not tried


@dataclass
class GpuSamples:
    """Seconds per step and trial, one number per round."""

    careful: list[float] = field(default_factory=list)
    recorded: list[float] = field(default_factory=list)
    report: list[float] = field(default_factory=list)
    solo: list[float] = field(default_factory=list)  # a pack of one lane
    lanes: list[float] = field(default_factory=list)
    gemm: list[float] = field(default_factory=list)  # operations per second
    copy: list[float] = field(default_factory=list)  # bytes per second


class GpuPrograms:
    """The measured programs, all in this process, because several processes would share the GPU by time slices."""

    def __init__(self) -> None:
        self.careful = Careful(device="cuda")
        self.recorded = Careful(device="cuda", recorded=True)
        self.report = Report("cuda")
        self.solo, self.lanes = Packed("cuda"), Packed("cuda")

    def prepare(self, work: Workload) -> dict[int, float]:
        """Prepare all programs for a workload, and return the seconds per step and lane for each width of a pack."""
        widths = self.lanes.widths(work, WIDTHS, SECONDS["width"], LONGEST, ROOM)
        self.lanes.prepare(work, worthwhile(list(widths), widths.__getitem__))
        self.solo.prepare(work, 1)
        last = self.careful.prepare(work, SECONDS["width"], None)
        self.recorded.prepare(work, SECONDS["width"], last)
        self.report.prepare(work)
        for program in (self.careful, self.recorded, self.report, self.solo, self.lanes):
            program.warm(1500, SECONDS["warm"])
        return widths

    def round(self, samples: GpuSamples) -> None:
        """Measure every program once, one after another."""
        for name in ("careful", "recorded", "report", "solo", "lanes"):
            getattr(samples, name).append(getattr(self, name).measure(SECONDS["measure"]))
        gemm, copy = self.lanes.limits()
        samples.gemm.append(gemm)
        samples.copy.append(copy)


def measure(work: Workload, programs: GpuPrograms) -> dict[str, Any]:
    """Prepare the programs for a workload, time them in turn, and return the row."""
    widths, samples = programs.prepare(work), GpuSamples()
    for _ in range(ROUNDS):
        programs.round(samples)
    found = {name: median(values) for name, values in vars(samples).items()}
    return {
        "work": work.work,
        "width": programs.lanes.trials,
        "widths": widths,
        "ratio_core": found["careful"] / found["lanes"],
        "ratio_recorded": found["recorded"] / found["lanes"],
        "ratio_a": found["report"] / found["lanes"],
        "ratio_solo": found["careful"] / found["solo"],
        "ratio_16": found["careful"] / widths[16],
        "roofline": work.limit(found["gemm"], found["copy"]) / found["lanes"],
        "n": ROUNDS,
        "medians": found,
        "samples": vars(samples),
    }


HEADINGS = ("work", "B µs", "lanes µs", "width", "ratio_core", "recorded", "ratio_a", "ratio_16", "solo", "roofline")


def line(found: dict[str, Any]) -> tuple[str, ...]:
    """Return a row of the printed table."""
    times = (f"{1e6 * found['medians'][name]:.2f}" for name in ("careful", "lanes"))
    ratios = (f"{found[name]:.2f}" for name in ("ratio_core", "ratio_recorded", "ratio_a", "ratio_16", "ratio_solo"))
    return (found["work"], *times, str(found["width"]), *ratios, f"{found['roofline']:.0%}")


def show(cells: tuple[str, ...]) -> None:
    """Print a line of the table."""
    print(f"{cells[0]:28}" + "".join(f"{cell:>12}" for cell in cells[1:]), flush=True)


def main() -> None:
    """Measure, and print a table and, as the last line, JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json", help="file for the results")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("torch finds no GPU here")
    gpu = torch.cuda.get_device_name()
    print(f"{gpu}: microseconds per training step and trial, medians of {ROUNDS}; B is plain torch on the same GPU.")
    programs, rows = GpuPrograms(), []
    show(HEADINGS)
    for work in WORKLOADS:
        rows.append(measure(work, programs))
        show(line(rows[-1]))
        write(options.out, {**taken(), "gpu": gpu, "cuda": torch.version.cuda, "n": ROUNDS, "rows": rows})
    left_out = ("samples", "widths")
    print(json.dumps({"rows": [{k: v for k, v in found.items() if k not in left_out} for found in rows]}))


if __name__ == "__main__":
    main()
