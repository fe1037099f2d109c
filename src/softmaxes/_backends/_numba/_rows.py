"""
Rows: from scores and a mask to the results and to S - 1, NaN where they are not right.

Most rows need no shift: `_read_once` sums their terms before the maximum is known, and one reading is
enough. `_read_again` is for the others: for a score out of bounds, which needs a shift; and, where S - 1
counts, for S below 2, where the sum is one of all terms but the largest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from softmaxes import _primals
from softmaxes._arrays import Array
from softmaxes._backends._numba._numbers import (
    bound_of,
    compiled,
    far,
    inlined,
    key_of,
    lowering_of,
    near,
    number_of,
)
from softmaxes._backends._numba._slices import (
    BLOCK,
    LANES,
    are_in_bounds,
    folded,
    log_of_sum,
    two_sum,
)

__all__ = [
    "ROWS",
    "Scale",
    "divide",
    "extremes",
    "of_sum",
    "of_sums_below",
    "ordered",
    "scale_of_row",
    "subtract",
    "sum_below",
    "sum_near",
]


class Reduced(NamedTuple):
    """The maximum; S - 1, NaN unless that is finite; and what terms are at most, and divided by."""

    maximum: Any
    excess: float
    largest: Any
    divisor: float


# One reading ---------------------------------------------------------------------------------------


@inlined()
def sum_near(
    x: Array, where: Array | None, terms: Array | None, block: Array, lanes: Array
) -> tuple[Any, Any, float]:
    """
    Return the extremes of the scores above -inf, and the sum of the terms without a shift.

    The terms are written, if there is where to. Nothing is right where an extreme is out of bounds,
    and the extremes are then of what was read until that was found.
    """
    least, most = key_of(x.dtype.type(-np.inf)), key_of(x.dtype.type(np.inf))
    highest, lowest, bound = least, most, bound_of(x.dtype.type(0.0))
    total = error = 0.0
    for start in range(0, x.size, BLOCK):
        stop = min(start + BLOCK, x.size)
        mask = None if where is None else where[start:stop]
        place = block[: stop - start] if terms is None else terms[start:stop]
        highest, lowest = _write_near(x[start:stop], mask, place, highest, lowest)
        if number_of(highest) > bound or number_of(lowest) < -bound:
            break
        total, part = two_sum(total, folded(place, lanes))
        error += part
    maximum, minimum = ordered(highest, lowest)
    return maximum, minimum, total + error


@inlined()
def ordered(highest: Any, lowest: Any) -> tuple[Any, Any]:
    """Return the numbers of two keys, both NaN if there is one, which may have a sign."""
    maximum, minimum = number_of(highest), number_of(lowest)
    return minimum if np.isnan(minimum) else maximum, minimum


@inlined()
def near_or_0(x: Any, is_kept: bool, zero: Any) -> Any:
    y = near(x)
    return y if is_kept else zero


@inlined()
def _write_near(
    x: Array, where: Array | None, terms: Array, highest: Any, lowest: Any
) -> tuple[Any, Any]:
    """Write the terms of scores without a shift, and return the extremes of their keys."""
    least, most = key_of(x.dtype.type(-np.inf)), key_of(x.dtype.type(np.inf))
    zero = x.dtype.type(0.0)
    for i in range(x.size):
        key = key_of(x[i])
        if where is not None:
            key = key if where[i] else least
        terms[i] = near_or_0(x[i], key != least, zero)
        highest, lowest = max(highest, key), min(lowest, key if key != least else most)
    return highest, lowest


@inlined()
def of_sum(maximum: Any, lowest: Any, total: float, is_of_terms: bool) -> Any:
    """Return what follows from one reading, NaN for S - 1 where another is needed."""
    excess = total / math.exp(np.float64(maximum)) - 1.0
    is_right = are_in_bounds(maximum, lowest) and (is_of_terms or excess >= 1.0)
    return Reduced(maximum, excess if is_right else np.nan, near(maximum), total)


# Another reading -----------------------------------------------------------------------------------


class Scale(NamedTuple):
    """The maximum, the shift, the term of the maximum, and 2^-`raised` if terms are raised."""

    maximum: Any
    shift: Any
    largest: Any
    lowering: float


@inlined()
def extremes(x: Array, where: Array | None) -> Any:
    """Return the largest score, NaN if there is one, the smallest above -inf, and whether -inf is there."""
    least, most = key_of(x.dtype.type(-np.inf)), key_of(x.dtype.type(np.inf))
    highest, lowest = least, most
    for i in range(x.size):
        key = key_of(x[i])
        if where is None:
            highest, lowest = max(highest, key), min(lowest, key)
        else:
            highest = max(highest, key if where[i] else least)
            lowest = min(lowest, key if where[i] else most)
    maximum, minimum = ordered(highest, lowest)
    if minimum == -np.inf:
        return maximum, _lowest_finite(x, where), True
    return maximum, minimum, False


@inlined()
def _lowest_finite(x: Array, where: Array | None) -> Any:
    """Return the smallest score that is not -inf."""
    lowest = x.dtype.type(np.inf)
    for i in range(x.size):
        counts = x[i] > -np.inf and (where is None or where[i])
        lowest = x[i] if counts and x[i] < lowest else lowest
    return lowest


@inlined()
def scale_of_row(maximum: Any, lowest: Any, has_minus_inf: bool) -> Any:
    """Return what is known before the terms are; that of -inf is 0 only where terms are raised."""
    is_moderate = are_in_bounds(maximum, lowest)
    shift = maximum - maximum if is_moderate else maximum
    if has_minus_inf or not is_moderate:
        return Scale(maximum, shift, far(maximum, shift), lowering_of(maximum))
    return Scale(maximum, shift, near(maximum), 1.0)


@inlined()
def sum_below(
    x: Array, where: Array | None, scale: Any, terms: Array | None, block: Array, lanes: Array
) -> tuple[float, int]:
    """
    Return the sum of the terms below the maximum, and the number of maxima.

    The terms are written, if there is where to.
    """
    total = error = 0.0
    count = 0
    for start in range(0, x.size, BLOCK):
        stop = min(start + BLOCK, x.size)
        mask = None if where is None else where[start:stop]
        place, below = None if terms is None else terms[start:stop], block[: stop - start]
        if scale.lowering == 1.0:
            _write_moderate(x[start:stop], mask, scale, place, below)
        else:
            _write_far(x[start:stop], mask, scale, place, below)
        count += _count(x[start:stop], mask, scale.maximum)
        total, part = two_sum(total, folded(below, lanes))
        error += part
    return total + error, count


def _writer(term: Callable[..., Any]) -> Any:
    """Return a loop that writes the terms of scores, and those below the maximum."""

    @inlined()
    def write(x: Array, where: Array | None, scale: Any, terms: Array | None, below: Array) -> None:
        maximum, shift, zero = scale.maximum, scale.shift, x.dtype.type(0.0)
        for i in range(x.size):
            y = term(x[i], shift)
            if where is not None:
                y = y if where[i] else zero
            if terms is not None:
                terms[i] = y
            below[i] = zero if x[i] == maximum else y

    return write


@inlined()
def _count(x: Array, where: Array | None, maximum: Any) -> int:
    count = 0
    for i in range(x.size):
        count += x[i] == maximum if where is None else (x[i] == maximum) & where[i]
    return count


@inlined()
def _without_shift(x: Any, shift: Any) -> Any:
    return near(x)


_write_moderate, _write_far = _writer(_without_shift), _writer(far)


@inlined()
def of_sums_below(scale: Any, below: float, count: int) -> Any:
    """Return what follows from the sum of the terms below the maximum and the number of maxima."""
    # In its own precision, as the term of the maximum is not: it is rounded.
    largest = math.exp(np.float64(scale.maximum) - np.float64(scale.shift))
    excess = below * scale.lowering / largest + (count - 1)
    excess = excess if np.isfinite(scale.maximum) else np.nan
    return Reduced(scale.maximum, excess, scale.largest, scale.largest * count + below)


# Results -------------------------------------------------------------------------------------------


@inlined()
def divide(terms: Array, largest: Any, divisor: float) -> None:
    total = terms.dtype.type(divisor)
    for i in range(terms.size):
        terms[i] = (
            min(largest, terms[i]) / total
        )  # the terms of neighbours need not be in their order


@inlined()
def subtract(x: Array, where: Array | None, maximum: Any, excess: float, out: Array) -> None:
    largest, lowest = x.dtype.type(-math.log1p(excess)), x.dtype.type(-np.inf)
    for i in range(x.size):
        y = largest - (maximum - x[i])
        if where is not None:
            y = y if where[i] else lowest
        out[i] = y


@inlined()
def _reduced(x: Array, where: Array | None, terms: Array | None, block: Array, lanes: Array) -> Any:
    found = of_sum(*sum_near(x, where, terms, block, lanes), terms is not None)
    if np.isnan(found.excess):
        scale = scale_of_row(*extremes(x, where))
        found = of_sums_below(scale, *sum_below(x, where, scale, terms, block, lanes))
    return found


def _over_rows(finish: Callable[..., None], *, has_terms: bool) -> Any:
    """Return a loop over rows, each of which ends by `finish(x, where, reduced, y)`."""

    def loop(x: Array, where: Array | None, y: Array, excess: Array | None) -> bool:
        block, lanes = np.empty(BLOCK, x.dtype), np.empty(LANES, x.dtype)
        all_are_right = True
        for row in range(x.shape[0]):
            mask = None if where is None else where[row]
            reduced = _reduced(x[row], mask, y[row] if has_terms else None, block, lanes)
            all_are_right = all_are_right and not np.isnan(reduced.excess)
            if excess is not None:
                excess[row, 0] = reduced.excess
            finish(x[row], mask, reduced, y[row])
        return all_are_right

    return compiled()(loop)


@inlined()
def _softmax(x: Array, where: Array | None, reduced: Any, y: Array) -> None:
    divide(y, reduced.largest, reduced.divisor)


@inlined()
def _log_softmax(x: Array, where: Array | None, reduced: Any, y: Array) -> None:
    subtract(x, where, reduced.maximum, reduced.excess, y)


@inlined()
def _logsumexp_alone(x: Array, where: Array | None, reduced: Any, y: Array) -> None:
    y[0] = log_of_sum(reduced.maximum, reduced.excess)


@inlined()
def _excess(x: Array, where: Array | None, reduced: Any, y: Array) -> None:
    y[0] = reduced.excess


ROWS = {
    _primals.softmax: _over_rows(_softmax, has_terms=True),
    _primals.log_softmax: _over_rows(_log_softmax, has_terms=False),
    _primals.logsumexp: _over_rows(_logsumexp_alone, has_terms=False),
    _primals.excess: _over_rows(_excess, has_terms=False),
}
