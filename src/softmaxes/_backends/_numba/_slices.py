"""Of a slice, be it a row or a column: from its extremes to its sums."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from softmaxes._arrays import Array
from softmaxes._backends._numba._numbers import bound_of, far, inlined, lowering_of, near

__all__ = [
    "BLOCK",
    "LANES",
    "LONG",
    "Scale",
    "are_in_bounds",
    "folded",
    "log_of_sum",
    "of_sums",
    "ordered",
    "scale_of_row",
    "scaled",
    "two_sum",
]

LANES = 16  # sums side by side
BLOCK = 512  # terms, summed while they are in the nearest cache
LONG = 1 << 13  # entries, above which a slice is read once less


class Scale(NamedTuple):
    """The maximum, the shift, the term of the maximum, and 2^-`raised` if terms are raised."""

    maximum: Any
    shift: Any
    largest: Any
    lowering: float


@inlined()
def are_in_bounds(highest: Any, lowest: Any) -> Any:
    """Tell whether scores between these need no shift."""
    bound = bound_of(highest)
    return -bound <= lowest and -bound <= highest <= bound


@inlined()
def scaled(maximum: Any, lowest: Any, is_raised: bool) -> Any:
    """
    Return what is known before the terms of a slice are.

    The lowest score is that above -inf, whose term is 0 only where terms are raised.
    """
    is_moderate = are_in_bounds(maximum, lowest)
    shift = maximum - maximum if is_moderate else maximum
    if is_raised:
        return Scale(maximum, shift, far(maximum, shift), lowering_of(maximum))
    return Scale(maximum, shift, near(maximum, shift), 1.0)


@inlined()
def scale_of_row(maximum: Any, lowest: Any, has_minus_inf: bool) -> Any:
    return scaled(maximum, lowest, has_minus_inf or not are_in_bounds(maximum, lowest))


@inlined()
def of_sums(scale: Any, below: float, count: int) -> tuple[float, float]:
    """
    Return S - 1, NaN unless the maximum is finite, and the divisor of the terms.

    They follow from the sum of the terms below the maximum and the number of maxima.
    """
    # In its own precision, as the term of the maximum is not: it is rounded.
    largest = math.exp(np.float64(scale.maximum) - np.float64(scale.shift))
    excess = below * scale.lowering / largest + (count - 1)
    return excess if np.isfinite(scale.maximum) else np.nan, scale.largest * count + below


@inlined()
def folded(a: Array, n: int) -> Any:
    """Return the sum of the first n entries of an array of a block, which is overwritten."""
    for i in range(n, -n % LANES + n):
        a[i] = 0.0
    for start in range(LANES, n, LANES):
        for i in range(LANES):
            a[i] += a[start + i]
    half = LANES // 2
    while half:
        for i in range(half):
            a[i] += a[half + i]
        half //= 2
    return a[0]


@inlined()
def ordered(highest: Any, lowest: Any) -> tuple[Any, Any]:
    """Return the extremes, both NaN if there is one, which may have a sign."""
    return lowest if np.isnan(lowest) else highest, lowest


@inlined()
def log_of_sum(maximum: Any, excess: float) -> Any:
    return maximum + math.log1p(excess)


@inlined()
def two_sum(a: float, b: float) -> tuple[float, float]:
    """Return a + b and its error."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)
