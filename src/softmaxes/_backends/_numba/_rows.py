"""Rows: from scores and a mask to the results and to S - 1, NaN where they are not right."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from softmaxes import _primals
from softmaxes._arrays import Array
from softmaxes._backends._numba._long import of_sum, sum_near
from softmaxes._backends._numba._numbers import compiled, far, inlined, key_of, near, number_of
from softmaxes._backends._numba._slices import (
    BLOCK,
    LONG,
    folded,
    log_of_sum,
    of_sums,
    ordered,
    scale_of_row,
    two_sum,
)

__all__ = ["ROWS", "divide", "extremes", "subtract", "sums", "with_lowest"]


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
    return with_lowest(number_of(highest), number_of(lowest), x, where)


@inlined()
def with_lowest(highest: Any, lowest: Any, x: Array, where: Array | None) -> Any:
    """Return what `extremes` does, from the extremes of all scores."""
    if lowest == -np.inf:
        return highest, _lowest_finite(x, where), True
    return *ordered(highest, lowest), False


@inlined()
def _lowest_finite(x: Array, where: Array | None) -> Any:
    """Return the smallest score that is not -inf."""
    lowest = x.dtype.type(np.inf)
    for i in range(x.size):
        counts = x[i] > -np.inf and (where is None or where[i])
        lowest = x[i] if counts and x[i] < lowest else lowest
    return lowest


@inlined()
def sums(
    x: Array, where: Array | None, scale: Any, terms: Array | None, below: Array
) -> tuple[float, float, int]:
    """
    Return the sum of the terms below the maximum, and its error, and the number of maxima.

    The terms are written, if there is where to.
    """
    total = error = 0.0
    count = 0
    for start in range(0, x.size, BLOCK):
        stop = min(start + BLOCK, x.size)
        scores, mask = x[start:stop], None if where is None else where[start:stop]
        place = None if terms is None else terms[start:stop]
        if scale.lowering == 1.0:
            _write_near(scores, mask, scale, place, below)
        else:
            _write_far(scores, mask, scale, place, below)
        count += _count(scores, mask, scale.maximum)
        total, part = two_sum(total, folded(below, stop - start))
        error += part
    return total, error, count


def _writer(term: Callable[..., Any]) -> Any:
    """Return a loop that writes the terms of scores, and those below the maximum."""

    @inlined()
    def write(x: Array, where: Array | None, scale: Any, terms: Array | None, below: Array) -> None:
        maximum, shift, largest = scale.maximum, scale.shift, scale.largest
        zero = x.dtype.type(0.0)
        for i in range(x.size):
            y = term(x[i], shift)
            y = min(largest, y)  # the terms of neighbours need not be in their order
            if where is not None:
                y = y if where[i] else zero
            if terms is not None:
                terms[i] = y
            below[i] = zero if x[i] == maximum else y

    return write


_write_near, _write_far = _writer(near), _writer(far)


@inlined()
def _count(x: Array, where: Array | None, maximum: Any) -> int:
    count = 0
    for i in range(x.size):
        count += x[i] == maximum if where is None else (x[i] == maximum) & where[i]
    return count


@inlined()
def divide(terms: Array, divisor: float, largest: Any) -> None:
    total = terms.dtype.type(divisor)
    for i in range(terms.size):
        terms[i] = (
            min(largest, terms[i]) / total
        )  # a long row is written before its largest is known


@inlined()
def subtract(x: Array, where: Array | None, maximum: Any, excess: float, out: Array) -> None:
    largest, lowest = x.dtype.type(-math.log1p(excess)), x.dtype.type(-np.inf)
    for i in range(x.size):
        y = largest - (maximum - x[i])
        if where is not None:
            y = y if where[i] else lowest
        out[i] = y


@inlined()
def _reduced(x: Array, where: Array | None, terms: Array | None, below: Array) -> Any:
    """Return the maximum, S - 1, the divisor of the terms, and the largest of them."""
    if x.size > LONG:
        found = of_sum(*sum_near(x, where, terms, below))
        if not np.isnan(found[1]):
            return found
    scale = scale_of_row(*extremes(x, where))
    total, error, count = sums(x, where, scale, terms, below)
    return scale.maximum, *of_sums(scale, total + error, count), scale.largest


def _over_rows(finish: Callable[..., None], *, has_terms: bool) -> Any:
    """Return a loop over rows, each of which ends by `finish(x, where, reduced, y)`."""

    def loop(x: Array, where: Array | None, y: Array, excess: Array | None) -> bool:
        below, all_are_right = np.empty(BLOCK, x.dtype), True
        for row in range(x.shape[0]):
            mask = None if where is None else where[row]
            reduced = _reduced(x[row], mask, y[row] if has_terms else None, below)
            all_are_right = all_are_right and not np.isnan(reduced[1])
            if excess is not None:
                excess[row, 0] = reduced[1]
            finish(x[row], mask, reduced, y[row])
        return all_are_right

    return compiled()(loop)


@inlined()
def _softmax(x: Array, where: Array | None, reduced: Any, y: Array) -> None:
    divide(y, reduced[2], reduced[3])


@inlined()
def _log_softmax(x: Array, where: Array | None, reduced: Any, y: Array) -> None:
    subtract(x, where, reduced[0], reduced[1], y)


@inlined()
def _logsumexp_alone(x: Array, where: Array | None, reduced: Any, y: Array) -> None:
    y[0] = log_of_sum(reduced[0], reduced[1])


@inlined()
def _excess(x: Array, where: Array | None, reduced: Any, y: Array) -> None:
    y[0] = reduced[1]


ROWS = {
    _primals.softmax: _over_rows(_softmax, has_terms=True),
    _primals.log_softmax: _over_rows(_log_softmax, has_terms=False),
    _primals.logsumexp: _over_rows(_logsumexp_alone, has_terms=False),
    _primals.excess: _over_rows(_excess, has_terms=False),
}
