"""A gate that trainers wait at, so that no job ends before the test is done with it, however fast the machine is."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SABOTAGE = Path(__file__).parent / "sabotage"  # on the PYTHONPATH of processes that are to know the gate


@contextmanager
def gate(home: Path, measured: int) -> Iterator[None]:
    """Let every trial wait once it has been measured so many times, unless its trainer is told to stop.

    Args:
        home: CHIFFRE_HOME of the trainers, which were started with `SABOTAGE` on their PYTHONPATH.
        measured: how many measurements a trial may record first.

    """
    file = home / "gate"
    file.write_text(str(measured))
    try:
        yield
    finally:
        file.unlink()
