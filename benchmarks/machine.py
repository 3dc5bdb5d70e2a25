"""The machine of a measurement: its hardware, and how fast it multiplies matrices and copies memory."""

import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

PACKAGES = ("torch", "numba", "numpy", "optuna")
SIDE = 1024  # of the square matrices that are multiplied
GPU_SIDE = 8192
COPIED_LEAST = 128 * 2**20  # bytes
GPU_COPIED = 4 * 2**30
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def hardware() -> dict[str, Any]:
    """Return the processor, cores, memory, and caches in bytes by name, such as "L2" or "L1 Data"."""
    return {"cpu": _cpu(), "cores": cores(), "caches": caches(), "memory_gib": round(_memory() / 2**30, 1)}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that compute."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def caches() -> dict[str, int]:
    """Return the caches of one core, in bytes by name."""
    found = {}
    for folder in sorted(CACHES.glob("index*")):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        found[f"L{level}" if kind == "Unified" else f"L{level} {kind}"] = int(size.removesuffix("K")) * 1024
    return found


def waiting(device: str) -> Callable[[], None]:
    """Return a function that waits until a device has finished its work; on a CPU it does nothing."""
    return torch.cuda.synchronize if device == "cuda" else lambda: None


class MachineLimits:
    """The limits of one thread or of a GPU, measured again at each call."""

    def __init__(self, device: str = "cpu") -> None:
        self._wait = waiting(device)
        self._side = SIDE if device == "cpu" else GPU_SIDE
        self._factors = torch.rand(2, self._side, self._side, device=device)
        self._product = torch.empty(self._side, self._side, device=device)
        # Far more than the last cache holds, so that this measures memory.
        least = COPIED_LEAST if device == "cpu" else GPU_COPIED
        numbers = max(least, 4 * max(caches().values(), default=0)) // 4
        self._source, self._target = (torch.rand(numbers, device=device) for _ in range(2))
        self.gemm()
        self.copy()

    def gemm(self) -> float:
        """Return floating-point operations per second, from one product of square float32 matrices."""
        started = perf_counter()
        torch.mm(*self._factors, out=self._product)
        self._wait()
        return 2 * self._side**3 / (perf_counter() - started)

    def copy(self) -> float:
        """Return bytes per second, read and written, from one copy."""
        started = perf_counter()
        self._target.copy_(self._source)
        self._wait()
        return 2 * self._source.nbytes / (perf_counter() - started)


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    found = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    name = found.get("model name", platform.processor())
    return f"{name} (family {found['cpu family']}, model {found['model']})" if "cpu family" in found else name


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
