"""`make chaos`: run the nemesis with one seed after another, on both databases in turn, and print failed seeds."""

import argparse
import sys
from itertools import count
from time import monotonic

from acceptance.faults.nemesis import SECONDS, trouble


def violations(seed: int) -> list[str]:
    """Return the rules that are violated with one seed."""
    try:
        return trouble("postgres" if seed % 2 else "sqlite", seed, SECONDS)
    except AssertionError as error:  # a condition did not become true in time
        return [str(error)]


def main() -> int:
    """Run seeds until the time is over, and return the exit status: 1 if a seed failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600, help="no seed is started after this time")
    parser.add_argument("--seed", type=int, default=1000, help="the first seed")
    options = parser.parse_args()
    begun, failed = monotonic(), []
    for seed in count(options.seed):
        if monotonic() - begun > options.seconds:
            break
        if found := violations(seed):
            failed.append(seed)
            print(f"nemesis: seed {seed} FAILED: {found}", flush=True)
    print(f"nemesis: {seed - options.seed} seeds from {options.seed}; failed: {failed or 'none'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
