"""What a result was made on and with: the machine, and the versions of what computes."""

import os
import platform
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "numpy", "numba", "optuna", "onnxruntime", "safetensors")  # what decides a result's last bits
CPU_INFO = Path("/proc/cpuinfo")


@lru_cache
def environment() -> dict[str, Any]:
    """Processor, cores that this process may use, accelerator, system, and versions by package, as JSON."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "accelerator": _accelerator(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
    }


def _processor() -> str:
    """What the processor calls itself; its architecture where it does not say."""
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _accelerator() -> str | None:
    import torch  # what trains has loaded it long before

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
