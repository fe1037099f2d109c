"""
Long rows: mostly their terms are summed before the maximum is known, so that one reading is enough.

That is right where no score needs a shift and S is at least 2. For a smaller S the sum must be one of
all terms but the largest.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from softmaxes._arrays import Array
from softmaxes._backends._numba._numbers import bound_of, inlined, key_of, near, number_of
from softmaxes._backends._numba._slices import BLOCK, are_in_bounds, folded, ordered, two_sum

__all__ = ["of_sum", "sum_near"]


@inlined()
def sum_near(
    x: Array, where: Array | None, terms: Array | None, block: Array
) -> tuple[Any, Any, float]:
    """
    Return the extremes of the scores above -inf, and the sum of the terms without a shift.

    The terms are written, if there is where to. Nothing is right where an extreme is out of bounds,
    and the extremes are then of what was read until that was found.
    """
    zero = x.dtype.type(0.0)
    highest, lowest = key_of(x.dtype.type(-np.inf)), key_of(x.dtype.type(np.inf))
    bound = bound_of(zero)
    total = error = 0.0
    for start in range(0, x.size, BLOCK):
        stop = min(start + BLOCK, x.size)
        mask = None if where is None else where[start:stop]
        place = None if terms is None else terms[start:stop]
        highest, lowest = _write_near(x[start:stop], mask, place, block, highest, lowest)
        if number_of(highest) > bound or number_of(lowest) < -bound:
            break
        total, part = two_sum(total, folded(block, stop - start))
        error += part
    return *ordered(number_of(highest), number_of(lowest)), total + error


@inlined()
def _write_near(
    x: Array, where: Array | None, terms: Array | None, block: Array, highest: Any, lowest: Any
) -> tuple[Any, Any]:
    """Write the terms of scores without a shift, and return the extremes of their keys."""
    least, most = key_of(x.dtype.type(-np.inf)), key_of(x.dtype.type(np.inf))
    zero = x.dtype.type(0.0)
    for i in range(x.size):
        key = key_of(x[i])
        if where is not None:
            key = key if where[i] else least
        y = near(x[i], zero)
        y = y if key != least else zero
        if terms is not None:
            terms[i] = y
        block[i] = y
        highest, lowest = max(highest, key), min(lowest, key if key != least else most)
    return highest, lowest


@inlined()
def of_sum(maximum: Any, lowest: Any, total: float) -> Any:
    """Return the maximum, S - 1, NaN where it must be found otherwise, the divisor and the largest term."""
    excess = total / math.exp(np.float64(maximum)) - 1.0
    is_right = are_in_bounds(maximum, lowest) and excess >= 1.0
    return maximum, excess if is_right else np.nan, total, near(maximum, maximum)
