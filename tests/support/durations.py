"""Write a table of the time that each module's tests take.

Run `python tests/support/durations.py check.xml … > tests/durations.md`.

The XML files come from `.venv/bin/pytest -n 2 -m "not soak" --junitxml=check.xml`, or from several runs that each
cover some of the tests.
"""

import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

LEAST = 10.0  # seconds; modules that take less time share one row


def seconds_of(reports: list[Path]) -> dict[str, list[float]]:
    """Return the seconds of each test, set-up and tear-down included, by module."""
    found: dict[str, list[float]] = defaultdict(list)
    for report in reports:
        for case in ElementTree.parse(report).iter("testcase"):
            found[case.attrib["classname"]].append(float(case.attrib["time"]))
    return found


def table(seconds: dict[str, list[float]]) -> str:
    """Return a Markdown table, longest module first."""
    slow = {name: each for name, each in seconds.items() if sum(each) >= LEAST}
    rest = [each for name, found in seconds.items() if name not in slow for each in found]
    rows = sorted(slow.items(), key=lambda row: -sum(row[1]))
    lines = ["| module | tests | seconds |", "|---|---|---|"]
    lines += [f"| `{name}` | {len(each)} | {sum(each):.0f} |" for name, each in rows]
    lines += [f"| all others | {len(rest)} | {sum(rest):.0f} |"]
    whole = [each for found in seconds.values() for each in found]
    lines += [f"| **all** | {len(whole):,} | {sum(whole):,.0f} |"]
    return "\n".join(lines)


if __name__ == "__main__":
    print(
        "# How long tests take\n\nSeconds by module, added up over two processes that run at once. "
        "Made by `tests/support/durations.py`, which says how.\n"
    )
    print(table(seconds_of([Path(name) for name in sys.argv[1:]])))
