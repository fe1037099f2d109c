"""Columns: the operations of rows in the same order, on a row of several columns at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from softmaxes import _primals
from softmaxes._arrays import Array
from softmaxes._backends._numba._numbers import (
    compiled,
    far,
    inlined,
    key_of,
    lowering_of,
    near,
    number_of,
)
from softmaxes._backends._numba._rows import ROWS, with_lowest
from softmaxes._backends._numba._slices import (
    BLOCK,
    LANES,
    LONG,
    Scale,
    are_in_bounds,
    log_of_sum,
    of_sums,
    scaled,
    two_sum,
)

__all__ = ["COLUMNS"]

TOGETHER = 16  # columns of long slices made rows at a time: what memory hands over at once


@inlined()
def _reduced_across(x: Array, columns: Any, terms: Array | None) -> Any:
    """Return the maxima, S - 1 and the divisors of columns."""
    n, (first, last) = x.shape[0], columns
    highest, shift, largest, are_raised = _scales_across(x, columns)
    total, error, count = np.zeros(highest.size), np.zeros(highest.size), np.zeros(highest.size)
    lanes, tops = np.empty((LANES, highest.size), x.dtype), np.empty_like(highest)
    own = np.empty_like(highest)
    for start in range(0, n, BLOCK):
        rows = min(BLOCK, n - start)
        lanes[:], tops[:] = 0.0, 0.0
        for row in range(rows):
            scores = x[start + row, first:last]
            place = own if terms is None else terms[start + row, first:last]
            if are_raised:
                _write_far_across(scores, shift, largest, place)
            else:
                _write_near_across(scores, shift, largest, place)
            _add_below_across(scores, highest, place, lanes[row % LANES], tops)
        _fold_across(lanes)
        _add_across(lanes[0], tops, total, error, count)
    divisor = np.empty(highest.size)
    for i in range(highest.size):
        lowering = lowering_of(highest[i]) if are_raised else 1.0
        scale = Scale(highest[i], shift[i], largest[i], lowering)
        total[i], divisor[i] = of_sums(scale, total[i] + error[i], count[i])
    return highest, total, divisor


@inlined()
def _scales_across(x: Array, columns: Any) -> Any:
    """Return the maximum of each column, the shift, the term of the maximum; whether terms are raised."""
    highest, lowest, are_raised = _extremes_across(x, columns)
    for i in range(highest.size):
        are_raised = are_raised or not are_in_bounds(highest[i], lowest[i])
    shift, largest = np.empty_like(highest), np.empty_like(highest)
    for i in range(highest.size):
        scale = scaled(highest[i], lowest[i], are_raised)
        shift[i], largest[i] = scale.shift, scale.largest
    return highest, shift, largest, are_raised


@inlined()
def _extremes_across(x: Array, columns: Any) -> Any:
    first, last = columns
    highest, lowest = np.empty(last - first, x.dtype), np.empty(last - first, x.dtype)
    high = np.full(last - first, key_of(x.dtype.type(-np.inf)))
    low = np.full(last - first, key_of(x.dtype.type(np.inf)))
    for row in range(x.shape[0]):
        _extend(x[row, first:last], high, low)
    has_minus_inf = False
    for i in range(highest.size):
        column = x[:, first + i]
        highest[i], lowest[i], has_one = with_lowest(
            number_of(high[i]), number_of(low[i]), column, None
        )
        has_minus_inf = has_minus_inf or has_one
    return highest, lowest, has_minus_inf


@inlined()
def _extend(x: Array, high: Array, low: Array) -> None:
    for i in range(x.size):
        key = key_of(x[i])
        high[i], low[i] = max(high[i], key), min(low[i], key)


def _writer_across(term: Callable[..., Any]) -> Any:
    """Return the loop of `_writer` over a row of several columns."""

    @inlined()
    def write(x: Array, shift: Array, largest: Array, terms: Array) -> None:
        for i in range(x.size):
            y = term(x[i], shift[i])
            terms[i] = min(largest[i], y)

    return write


_write_near_across, _write_far_across = _writer_across(near), _writer_across(far)


@inlined()
def _add_below_across(x: Array, maximum: Array, terms: Array, below: Array, tops: Array) -> None:
    zero, one = x.dtype.type(0.0), x.dtype.type(1.0)
    for i in range(x.size):
        is_top = x[i] == maximum[i]
        below[i] += zero if is_top else terms[i]
        tops[i] += one if is_top else zero


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


@inlined()
def _add_across(below: Array, tops: Array, total: Array, error: Array, count: Array) -> None:
    for i in range(below.size):
        total[i], part = two_sum(total[i], below[i])
        error[i] += part
        count[i] += tops[i]


def _over_columns(
    finish: Callable[..., None], rows: Callable[..., bool], *, has_terms: bool
) -> Any:
    """Return a loop over columns, which ends by `finish(x, columns, reduced, y)`; over rows if long."""

    def loop(x: Array, columns: tuple[int, int], y: Array, excess: Array) -> None:
        if x.shape[0] <= LONG:
            reduced = _reduced_across(x, columns, y if has_terms else None)
            excess[:] = reduced[1]
            finish(x, columns, reduced, y)
            return
        first, last = columns
        for start in range(first, last, TOGETHER):
            these = slice(start, min(start + TOGETHER, last))
            scores = np.empty((these.stop - start, x.shape[0]), x.dtype)
            results = np.empty((these.stop - start, y.shape[0]), x.dtype)
            found = excess[start - first : these.stop - first].reshape(-1, 1)
            _turn(x[:, these], scores)
            rows(scores, None, results, found)
            _turn(results.T, y[:, these].T)

    return compiled()(loop)


@inlined()
def _turn(a: Array, turned: Array) -> None:
    """Write the transpose; along the rows of a, which lie in memory as columns do."""
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            turned[j, i] = a[i, j]


@inlined()
def _softmax_across(x: Array, columns: Any, reduced: Any, y: Array) -> None:
    first, last = columns
    total = reduced[2].astype(x.dtype)
    for row in range(y.shape[0]):
        _divide_across(y[row, first:last], total)


@inlined()
def _divide_across(terms: Array, total: Array) -> None:
    for i in range(terms.size):
        terms[i] = terms[i] / total[i]


@inlined()
def _log_softmax_across(x: Array, columns: Any, reduced: Any, y: Array) -> None:
    first, last = columns
    maximum, excess, _ = reduced
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
    maximum, excess, _ = reduced
    for i in range(excess.size):
        y[0, columns[0] + i] = log_of_sum(maximum[i], excess[i])


@inlined()
def _excess_across(x: Array, columns: Any, reduced: Any, y: Array) -> None:
    y[0, columns[0] : columns[1]] = reduced[1]


COLUMNS = {
    _primals.softmax: _over_columns(_softmax_across, ROWS[_primals.softmax], has_terms=True),
    _primals.log_softmax: _over_columns(
        _log_softmax_across, ROWS[_primals.log_softmax], has_terms=False
    ),
    _primals.logsumexp: _over_columns(_logsumexp_across, ROWS[_primals.logsumexp], has_terms=False),
    _primals.excess: _over_columns(_excess_across, ROWS[_primals.excess], has_terms=False),
}
