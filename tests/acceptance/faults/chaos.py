"""`make chaos`: seed after seed of the nemesis, on both databases in turn; each that fails is printed."""

import argparse
import sys
from itertools import count
from time import monotonic

from acceptance.faults.nemesis import SECONDS, trouble


def violations(seed: int) -> list[str]:
    """What one seed breaks."""
    try:
        return trouble("postgres" if seed % 2 else "sqlite", seed, SECONDS)
    except AssertionError as error:  # what did not happen in time
        return [str(error)]


def main() -> int:
    """Make trouble for as long as asked; 1 where a seed failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600, help="no seed is begun after these")
    parser.add_argument("--seed", type=int, default=1000, help="the first")
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
