"""Columns: the operations of rows in the same order, on vectors of which each place is a column."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from softmaxes import _primals
from softmaxes._arrays import Array
from softmaxes._backends._numba._numbers import (
    compiled,
    far,
    inlined,
    lanes_of,
    near,
)
from softmaxes._backends._numba._rows import difference, quotient
from softmaxes._backends._numba._slices import (
    DIVISOR,
    EXCESS,
    LOG,
    MAXIMUM,
    TOGETHER,
    Sums,
    added,
    are_far,
    finish,
    room_of_slices,
    scale_of,
    write,
)
from softmaxes._backends._numba._vectors import (
    Memory,
    filled,
    first_places,
    load,
    load_first,
    memory_of,
    prefetch,
    room_of,
    select,
    store,
    store_first,
)

__all__ = ["COLUMNS"]

# The rows of an array of what is found of columns: sums side by side, as in the places of a vector of
# a row, their errors, and the largest terms; what `Sums` and `scale_of` have, and two for the results.
BELOW, ERROR, TOP = 0, 16, 32
HIGHEST, LOWEST, SHIFT, RAISED, FIRST, SECOND = range(48, 54)
_room_of_columns = room_of(54, TOGETHER)


def _summing(term: Callable[..., Any]) -> Any:
    """Return a loop over the terms of columns, which are written if there is where to."""

    @inlined()
    def sums(x: Memory, n: int, first: int, width: int, state: Memory, terms: Any) -> None:
        lanes, like = lanes_of(x), filled(x, 0.0)
        for part in (BELOW, ERROR, TOP):
            _fill(state, part, part + lanes, width, 0.0)
        _fill(state, HIGHEST, HIGHEST + 1, width, -np.inf)
        _fill(state, LOWEST, LOWEST + 1, width, np.inf)
        for begin in range(0, n, lanes):
            rows = begin, min(lanes, n - begin)
            for start in range(0, width - lanes + 1, lanes):
                _sum_some(x, rows, first, start, None, state, terms)
            if width % lanes:
                start, places = width - width % lanes, first_places(width % lanes, like)
                _sum_some(x, rows, first, start, places, state, terms)
        _fold(state, width)

    @inlined()
    def _sum_some(
        x: Memory, rows: Any, first: int, start: int, places: Any, state: Memory, terms: Any
    ) -> None:
        """Add as many rows of a vector of columns as there are sums side by side."""
        begin, count = rows
        like = filled(x, 0.0)
        highest, lowest = load(state, HIGHEST, start, like), load(state, LOWEST, start, like)
        for lane in range(count):
            row, column = begin + lane, first + start
            prefetch(x, row + lanes_of(x), column)
            scores = _read(x, row, column, places, like)
            highest, lowest, y = _step(state, lane, start, scores, highest, lowest)
            if terms is not None:
                prefetch(terms, row + lanes_of(x), column)
                _write(terms, row, column, places, y)
        store(state, HIGHEST, start, highest)
        store(state, LOWEST, start, lowest)

    @inlined()
    def _step(
        state: Memory, lane: int, start: int, scores: Any, highest: Any, lowest: Any
    ) -> tuple[Any, Any, Any]:
        y = term(scores, load(state, SHIFT, start, scores), load(state, RAISED, start, scores))
        below = load(state, BELOW + lane, start, scores)
        error = load(state, ERROR + lane, start, scores)
        top = load(state, TOP + lane, start, scores)
        found = added(Sums(below, error, top, highest, lowest), scores, y)
        store(state, BELOW + lane, start, found.below)
        store(state, ERROR + lane, start, found.error)
        store(state, TOP + lane, start, found.top)
        return found.highest, found.lowest, y

    return sums


_near_sums, _far_sums = _summing(near), _summing(far)


@inlined()
def _read(x: Memory, row: int, column: int, places: Any, like: Any) -> Any:
    """Return a vector of a row, of which `places` are there, or all."""
    return load(x, row, column, like) if places is None else load_first(x, row, column, places)


@inlined()
def _write(y: Memory, row: int, column: int, places: Any, numbers: Any) -> None:
    if places is None:
        store(y, row, column, numbers)
    else:
        store_first(y, row, column, places, numbers)


@inlined()
def _fill(a: Memory, row: int, stop: int, width: int, number: float) -> None:
    for i in range(row, stop):
        for start in range(0, width, lanes_of(a)):
            store(a, i, start, filled(a, number))


@inlined()
def _fold(state: Memory, width: int) -> None:
    """Do what `folded` does of the sums and `without_highest` of the other two, for each column."""
    zero, half = filled(state, 0.0), lanes_of(state) // 2
    while half:
        for lane in range(half):
            for start in range(0, width, lanes_of(state)):
                for part in (BELOW, ERROR):
                    a = load(state, part + lane, start, zero)
                    b = load(state, part + lane + half, start, zero)
                    store(state, part + lane, start, a + b)
                rest = load(state, ERROR + lane, start, zero)
                a = load(state, TOP + lane, start, zero)
                b = load(state, TOP + lane + half, start, zero)
                store(state, ERROR + lane, start, rest + min(a, b))
                store(state, TOP + lane, start, max(a, b))
        half //= 2


@inlined()
def _are_far(state: Memory, width: int) -> bool:
    found, zero = False, filled(state, 0.0)
    for start in range(0, width, lanes_of(state)):
        highest, lowest = load(state, HIGHEST, start, zero), load(state, LOWEST, start, zero)
        found = found or are_far(Sums(zero, zero, zero, highest, lowest))
    return found


@inlined()
def _find_scales(x: Memory, n: int, first: int, width: int, state: Memory) -> None:
    lanes = lanes_of(x)
    _fill(state, HIGHEST, HIGHEST + 1, width, -np.inf)
    _fill(state, LOWEST, LOWEST + 1, width, np.inf)
    for row in range(n):
        for start in range(0, width - lanes + 1, lanes):
            _extend(state, start, load(x, row, first + start, filled(x, 0.0)))
        if width % lanes:
            start, places = width - width % lanes, first_places(width % lanes, filled(x, 0.0))
            _extend(state, start, load_first(x, row, first + start, places))
    for i in range(width):
        state[SHIFT, i], state[RAISED, i] = scale_of(state[HIGHEST, i], state[LOWEST, i])


@inlined()
def _extend(state: Memory, start: int, scores: Any) -> None:
    highest, lowest = load(state, HIGHEST, start, scores), load(state, LOWEST, start, scores)
    store(state, HIGHEST, start, max(scores, highest))
    store(state, LOWEST, start, min(select(scores > -np.inf, scores, np.inf), lowest))


@inlined()
def _reduce(
    x: Memory, n: int, first: int, width: int, state: Memory, terms: Memory | None, found: Memory
) -> None:
    """Write what is found of columns, and the terms of the maxima if there is where to write terms."""
    _fill(state, SHIFT, RAISED + 1, width, 0.0)
    _near_sums(x, n, first, width, state, terms)
    if _are_far(state, width):
        _find_scales(x, n, first, width, state)
        _far_sums(x, n, first, width, state, terms)
    for i in range(width):
        below = np.float64(state[BELOW, i]) + np.float64(state[ERROR, i])
        maximum, scale = state[HIGHEST, i], (state[SHIFT, i], state[RAISED, i])
        write(found, i, maximum, scale, below, state[TOP, i])
    finish(found, width)
    if terms is not None:
        _find_largest(state, width)


@inlined()
def _find_largest(state: Memory, width: int) -> None:
    for start in range(0, width, lanes_of(state)):
        maximum = load(state, HIGHEST, start, filled(state, 0.0))
        shift, raised = load(state, SHIFT, start, maximum), load(state, RAISED, start, maximum)
        store(state, FIRST, start, far(maximum, shift, raised))


def _mapping(of: Callable[..., Any]) -> Any:
    """Return a loop that writes `of` the numbers of columns and two more of each."""

    @inlined()
    def write_all(x: Memory, n: int, first: int, width: int, state: Memory, y: Memory) -> None:
        lanes = lanes_of(x)
        for row in range(n):
            for start in range(0, width - lanes + 1, lanes):
                prefetch(y, row + lanes, first + start)
                scores = load(x, row, first + start, filled(x, 0.0))
                store(y, row, first + start, _result(state, start, scores))
            if width % lanes:
                start, places = width - width % lanes, first_places(width % lanes, filled(x, 0.0))
                found = _result(state, start, load_first(x, row, first + start, places))
                store_first(y, row, first + start, places, found)

    @inlined()
    def _result(state: Memory, start: int, x: Any) -> Any:
        return of(x, None, load(state, FIRST, start, x), load(state, SECOND, start, x))

    return write_all


_divide, _subtract = _mapping(quotient), _mapping(difference)


def _over_columns(finished: Callable[..., None], *, has_terms: bool) -> Any:
    """Return a loop over columns, which ends by `finished(x, n, first, width, state, found, y)`."""

    def loop(x: Array, columns: tuple[int, int], y: Array, excess: Array) -> None:
        scores, results = memory_of(x), memory_of(y)
        terms = results if has_terms else None
        found, state = room_of_slices(np.float64(0.0)), _room_of_columns(x.dtype.type(0.0))
        begin, end = columns
        for first in range(begin, end, TOGETHER):
            width = min(TOGETHER, end - first)
            _reduce(scores, len(x), first, width, state, terms, found)
            for i in range(width):
                excess[first - begin + i] = found[EXCESS, i]
            finished(scores, len(x), first, width, state, found, results)

    return compiled()(loop)


@inlined()
def _softmax(
    x: Memory, n: int, first: int, width: int, state: Memory, found: Memory, y: Memory
) -> None:
    for i in range(width):
        state[SECOND, i] = found[DIVISOR, i]
    _divide(y, n, first, width, state, y)


@inlined()
def _log_softmax(
    x: Memory, n: int, first: int, width: int, state: Memory, found: Memory, y: Memory
) -> None:
    for i in range(width):
        state[FIRST, i], state[SECOND, i] = -found[LOG, i], found[MAXIMUM, i]
    _subtract(x, n, first, width, state, y)


@inlined()
def _logsumexp(
    x: Memory, n: int, first: int, width: int, state: Memory, found: Memory, y: Memory
) -> None:
    for i in range(width):
        y[0, first + i] = found[MAXIMUM, i] + found[LOG, i]


@inlined()
def _excess(
    x: Memory, n: int, first: int, width: int, state: Memory, found: Memory, y: Memory
) -> None:
    for i in range(width):
        y[0, first + i] = found[EXCESS, i]


COLUMNS = {
    _primals.softmax: _over_columns(_softmax, has_terms=True),
    _primals.log_softmax: _over_columns(_log_softmax, has_terms=False),
    _primals.logsumexp: _over_columns(_logsumexp, has_terms=False),
    _primals.excess: _over_columns(_excess, has_terms=False),
}
