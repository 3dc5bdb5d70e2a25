"""The layers for which the optimizer should compute the gradient row by row: `python -m benchmarks.rank`.

For each batch size and layer (features → width), it times Adam's step of eight lanes after a ReLU in two ways: a
matrix product for the gradient, followed by the step; and both in one (`kernels.rank_update`). It prints the ratio of
the first to the second: above 1, `rank_update` is faster.
"""

import json
from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch

from ml.lanes.coefficients import Hyper
from ml.lanes.numba_ops import KernelOps
from ml.lanes.parameter import Parameter
from ml.optimizers import Adam
from ml.training.process import process_settings

LANES = 8
ROUNDS = 5
BATCHES = (3, 10, 16, 32)
LAYERS = ((128, 10), (1024, 10), (120, 84), (256, 120), (128, 128), (256, 256), (512, 512), (1024, 1024))
SECONDS = 0.05  # per side and round


class Case:
    """One layer at one batch size."""

    def __init__(self, batch: int, features: int, width: int) -> None:
        self.ops = KernelOps()
        self.weight = Parameter(torch.randn(LANES, features + 1, width) / features)
        self.hyper = Hyper([Adam()] * LANES, [0] * LANES, torch.float32)
        self.x = torch.randn(LANES, batch, features).clamp_min_(0)
        self.delta = torch.randn(LANES, batch, width) / batch

    def product(self) -> None:
        """Compute the gradient, then take the step."""
        self.hyper.advance()
        torch.bmm(self.x.transpose(1, 2), self.delta, out=self.weight.gradient[:, :-1])
        torch.sum(self.delta, 1, out=self.weight.gradient[:, -1])
        self.ops.update(self.weight, self.hyper)

    def by_rank(self) -> None:
        """Compute the gradient inside the step."""
        self.hyper.advance()
        self.ops.rank_update(self.x, self.delta, self.weight, self.hyper)

    def ratio(self) -> float:
        """Return the time of `product` over that of `by_rank`: the median of interleaved rounds."""
        return median(_seconds(self.product) / _seconds(self.by_rank) for _ in range(ROUNDS))


def _seconds(step: Callable[[], None]) -> float:
    steps, started = 0, perf_counter()
    while (elapsed := perf_counter() - started) < SECONDS:
        step()
        steps += 1
    return elapsed / steps


def main() -> None:
    """Print a table and, as the last line, one JSON object."""
    process_settings()
    Case(4, 64, 64).by_rank()
    print("batch " + "".join(f"{f'{features}→{width}':>11}" for features, width in LAYERS))
    rows = []
    for batch in BATCHES:
        ratios = [Case(batch, *layer).ratio() for layer in LAYERS]
        print(f"{batch:>5} " + "".join(f"{ratio:>11.2f}" for ratio in ratios))
        rows += [{"work": f"batch {batch}, {f}→{w}", "ratio": r} for (f, w), r in zip(LAYERS, ratios, strict=True)]
    print(json.dumps({"rows": rows, "n": ROUNDS}))


if __name__ == "__main__":
    main()
