"""A gate that trainers wait at, so that no job ends before the test has finished with it, even on a fast machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SABOTAGE = Path(__file__).parent / "sabotage"  # must be on the PYTHONPATH of processes that use the gate


@contextmanager
def gate(home: Path, measured: int) -> Iterator[None]:
    """Make every trial wait after `measured` measurements, unless its trainer is told to stop.

    Args:
        home: CHIFFRE_HOME of the trainers. They must have been started with `SABOTAGE` on their PYTHONPATH.
        measured: The number of measurements that a trial records before it waits.

    """
    file = home / "gate"
    file.write_text(str(measured))
    try:
        yield
    finally:
        file.unlink()
