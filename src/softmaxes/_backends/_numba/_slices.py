"""Of a slice, be it a row or a column: its extremes and its sums."""

from __future__ import annotations

import math
from typing import Any

from softmaxes._arrays import Array
from softmaxes._backends._numba._numbers import bound_of, inlined

__all__ = ["BLOCK", "LANES", "are_in_bounds", "folded", "log_of_sum", "two_sum"]

LANES = 64  # sums side by side, each of few terms, so that their rounding errors stay small
BLOCK = 512  # terms, summed while they are in the nearest cache


@inlined()
def are_in_bounds(highest: Any, lowest: Any) -> Any:
    """Tell whether scores between these need no shift."""
    bound = bound_of(highest)
    return -bound <= lowest and -bound <= highest <= bound


@inlined()
def folded(terms: Array, lanes: Array) -> Any:
    """Return the sum of at most a block of terms, which takes the lanes to work in."""
    n = terms.size
    lanes[:] = 0.0
    for start in range(0, n - LANES + 1, LANES):
        for i in range(LANES):
            lanes[i] += terms[start + i]
    first = n // LANES * LANES
    for i in range(n - first):
        lanes[i] += terms[first + i]
    _fold(lanes)
    return lanes[0]


def _folding(half: int) -> Any:
    """Return the loops that fold twice as many lanes into one; their lengths are constants."""
    if half == 0:
        return inlined()(lambda lanes: None)
    rest = _folding(half // 2)

    @inlined()
    def fold(lanes: Array) -> None:
        for i in range(half):
            lanes[i] += lanes[half + i]
        rest(lanes)

    return fold


_fold = _folding(LANES // 2)


@inlined()
def log_of_sum(maximum: Any, excess: float) -> Any:
    return maximum + math.log1p(excess)


@inlined()
def two_sum(a: float, b: float) -> tuple[float, float]:
    """Return a + b and its error."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)
