"""The inner loops of lanes, compiled by Numba for a CPU."""
