"""Columns: the one reading of rows, in the same order, on a row of several columns at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from softmaxes import _primals
from softmaxes._arrays import Array
from softmaxes._backends._numba._numbers import compiled, inlined, key_of
from softmaxes._backends._numba._rows import near_or_0, of_sum, ordered
from softmaxes._backends._numba._slices import BLOCK, LANES, log_of_sum, two_sum

__all__ = ["COLUMNS"]


@inlined()
def _reduced_across(x: Array, columns: Any, terms: Array | None) -> Any:
    """Return the maxima, S - 1, the terms of the maxima and the divisors of columns."""
    n, (first, last) = x.shape[0], columns
    width = last - first
    high = np.full(width, key_of(x.dtype.type(-np.inf)))
    low = np.full(width, key_of(x.dtype.type(np.inf)))
    total, error = np.zeros(width), np.zeros(width)
    lanes, own = np.empty((LANES, width), x.dtype), np.empty(width, x.dtype)
    for start in range(0, n, BLOCK):
        lanes[:] = 0.0
        for row in range(min(BLOCK, n - start)):
            place = own if terms is None else terms[start + row, first:last]
            _add_row(x[start + row, first:last], place, lanes[row % LANES], high, low)
        _fold_across(lanes)
        for i in range(width):
            total[i], part = two_sum(total[i], lanes[0, i])
            error[i] += part
    maximum, excess, largest = np.empty_like(own), np.empty(width), np.empty_like(own)
    for i in range(width):
        highest, lowest = ordered(high[i], low[i])
        found = of_sum(highest, lowest, total[i] + error[i], terms is not None)
        maximum[i], excess[i], largest[i], total[i] = found
    return maximum, excess, largest, total


@inlined()
def _add_row(x: Array, terms: Array, lane: Array, high: Array, low: Array) -> None:
    """Write the terms of a row of columns without a shift; extend the keys and the sums by them."""
    least, most = key_of(x.dtype.type(-np.inf)), key_of(x.dtype.type(np.inf))
    zero = x.dtype.type(0.0)
    for i in range(x.size):
        key = key_of(x[i])
        y = near_or_0(x[i], key != least, zero)
        terms[i], lane[i] = y, lane[i] + y
        high[i], low[i] = max(high[i], key), min(low[i], key if key != least else most)


@inlined()
def _fold_across(lanes: Array) -> None:
    half = LANES // 2
    while half:
        for lane in range(half):
            _add(lanes[lane], lanes[half + lane])
        half //= 2


@inlined()
def _add(a: Array, b: Array) -> None:
    for i in range(a.size):
        a[i] += b[i]


def _over_columns(finish: Callable[..., None], *, has_terms: bool) -> Any:
    """Return a loop over columns, which ends by `finish(x, columns, reduced, y)`."""

    def loop(x: Array, columns: tuple[int, int], y: Array, excess: Array) -> None:
        reduced = _reduced_across(x, columns, y if has_terms else None)
        excess[:] = reduced[1]
        finish(x, columns, reduced, y)

    return compiled()(loop)


@inlined()
def _softmax_across(x: Array, columns: Any, reduced: Any, y: Array) -> None:
    first, last = columns
    largest, total = reduced[2], reduced[3].astype(x.dtype)
    for row in range(y.shape[0]):
        _divide_across(y[row, first:last], largest, total)


@inlined()
def _divide_across(terms: Array, largest: Array, total: Array) -> None:
    for i in range(terms.size):
        terms[i] = min(largest[i], terms[i]) / total[i]


@inlined()
def _log_softmax_across(x: Array, columns: Any, reduced: Any, y: Array) -> None:
    first, last = columns
    maximum, excess = reduced[0], reduced[1]
    largest = np.empty_like(maximum)
    for i in range(excess.size):
        largest[i] = -math.log1p(excess[i])
    for row in range(y.shape[0]):
        _subtract_across(x[row, first:last], maximum, largest, y[row, first:last])


@inlined()
def _subtract_across(x: Array, maximum: Array, largest: Array, y: Array) -> None:
    for i in range(x.size):
        y[i] = largest[i] - (maximum[i] - x[i])


@inlined()
def _logsumexp_across(x: Array, columns: Any, reduced: Any, y: Array) -> None:
    maximum, excess = reduced[0], reduced[1]
    for i in range(excess.size):
        y[0, columns[0] + i] = log_of_sum(maximum[i], excess[i])


@inlined()
def _excess_across(x: Array, columns: Any, reduced: Any, y: Array) -> None:
    y[0, columns[0] : columns[1]] = reduced[1]


COLUMNS = {
    _primals.softmax: _over_columns(_softmax_across, has_terms=True),
    _primals.log_softmax: _over_columns(_log_softmax_across, has_terms=False),
    _primals.logsumexp: _over_columns(_logsumexp_across, has_terms=False),
    _primals.excess: _over_columns(_excess_across, has_terms=False),
}
