"""Numba's compiler, set as every kernel needs it."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call, or take what an earlier process compiled from the cache."""
    flags = {"contract", "reassoc", "nsz"}
    options: dict[str, Any] = {"nogil": True, "fastmath": flags, "error_model": "numpy"}
    try:
        found: Callable[..., Any] = njit(cache=True, **options)(function)
    except RuntimeError:  # no folder that this user may write to: compile in every process
        found = njit(**options)(function)
    return found
