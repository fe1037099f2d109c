"""
Columns: the operations of rows in the same order, on vectors of which each place is a column.

A few columns are worked from their first row to their last, and what is found of them stays in the nearest
cache. Their terms stay in the next, in room of their own, where they are not so far apart as the results.
"""

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
    real_of,
)
from softmaxes._backends._numba._rows import (
    difference,
    extended,
    largest_of,
    quotient,
    stepping,
)
from softmaxes._backends._numba._shared import end_of, rows_after
from softmaxes._backends._numba._slices import (
    DIVISOR,
    EXCESS,
    LARGEST,
    LOG,
    MAXIMUM,
    TOGETHER,
    Sums,
    are_far,
    finish,
    room_of_slices,
    scale_of,
    write,
)
from softmaxes._backends._numba._vectors import (
    Memory,
    block_of,
    either,
    filled,
    first_places,
    kept_some,
    load,
    load_first,
    memory_of,
    prefetch,
    room_of,
    store,
    store_first,
)

__all__ = [
    "COLUMNS",
    "ERROR",
    "FIRST",
    "LONG",
    "PLACE",
    "SECOND",
    "SUM",
    "divide",
    "fill",
    "halve_sums",
    "over_columns",
    "over_vectors",
    "put",
    "read",
    "reduce_columns",
    "write_divisors",
]

LONG = 1 << 14  # entries of a column, beyond which terms are written among the results
AHEAD = 4  # rows, after which a row is worked that is asked for now

# The rows of an array of what is found of columns: sums side by side, as in the places of a vector of
# a row, their errors, and the largest terms; what `Sums` and `scale_of` have, and two for the results.
SUM, ERROR, TOP = 0, 16, 32
HIGHEST, LOWEST, SHIFT, RAISED, FIRST, SECOND = range(48, 54)
PLACE = 54  # where a probability above 1/2 is
_room_of_columns = room_of(55, TOGETHER)


# A vector of columns ------------------------------------------------------------------------------


def over_vectors(of: Callable[..., None]) -> Any:
    """Return a loop over n rows of columns: `of(row, start, places, x, ...)`, without places where all are there."""

    @inlined()
    def loop(n: int, x: Memory, *others: Any) -> None:
        lanes, width = lanes_of(x), x.length
        for row in range(n):
            for start in range(0, width - lanes + 1, lanes):
                of(row, start, None, x, *others)
            if width % lanes:
                places = first_places(width % lanes, filled(x, 0.0))
                of(row, width - width % lanes, places, x, *others)

    return loop


@inlined()
def read(x: Memory, row: int, start: int, places: Any) -> Any:
    prefetch(x, row + AHEAD, start)
    like = filled(x, 0.0)
    return load(x, row, start, like) if places is None else load_first(x, row, start, places)


@inlined()
def put(y: Memory, row: int, start: int, places: Any, numbers: Any) -> None:
    prefetch(y, row + AHEAD, start)
    if places is None:
        store(y, row, start, numbers)
    else:
        store_first(y, row, start, places, numbers)


# A few columns ------------------------------------------------------------------------------------


def _summing(term: Callable[..., Any]) -> Any:
    """Return a loop over the terms of columns, which are written if there is where to."""
    step = stepping(term)

    @inlined()
    def sums(x: Memory, where: Memory | None, n: int, state: Memory, terms: Memory | None) -> None:
        for part in (SUM, ERROR, TOP):
            fill(state, part, part + lanes_of(x), 0.0)
        fill(state, HIGHEST, HIGHEST + 1, -np.inf)
        fill(state, LOWEST, LOWEST + 1, np.inf)
        add_all(n, x, where, state, terms)
        _fold(state)

    @inlined()
    def add(
        row: int,
        start: int,
        places: Any,
        x: Memory,
        where: Memory | None,
        state: Memory,
        terms: Memory | None,
    ) -> None:
        lane, scores = row % lanes_of(x), read(x, row, start, places)
        mask = kept_some(where, row, start, places, scores)
        shift, raised = load(state, SHIFT, start, scores), load(state, RAISED, start, scores)
        before = Sums(
            load(state, SUM + lane, start, scores),
            load(state, ERROR + lane, start, scores),
            load(state, TOP + lane, start, scores),
            load(state, HIGHEST, start, scores),
            load(state, LOWEST, start, scores),
        )
        found, y = step(before, scores, mask, shift, raised)
        store(state, SUM + lane, start, found.below)
        store(state, ERROR + lane, start, found.error)
        store(state, TOP + lane, start, found.top)
        store(state, HIGHEST, start, found.highest)
        store(state, LOWEST, start, found.lowest)
        if terms is not None:
            put(terms, row, start, places, y)

    add_all = over_vectors(add)
    return sums


_near_sums, _far_sums = _summing(near), _summing(far)


@inlined()
def fill(state: Memory, row: int, stop: int, number: float) -> None:
    for i in range(row, stop):
        for start in range(0, TOGETHER, lanes_of(state)):
            store(state, i, start, filled(state, number))


@inlined()
def _fold(state: Memory) -> None:
    """Do what `folded` does of the sums and `without_highest` of the other two, for each column."""
    zero, half = filled(state, 0.0), lanes_of(state) // 2
    while half:
        for lane in range(half):
            halve_sums(state, lane, half)
            for start in range(0, TOGETHER, lanes_of(state)):
                rest = load(state, ERROR + lane, start, zero)
                a = load(state, TOP + lane, start, zero)
                b = load(state, TOP + lane + half, start, zero)
                store(state, ERROR + lane, start, rest + min(a, b))
                store(state, TOP + lane, start, max(a, b))
        half //= 2


@inlined()
def halve_sums(state: Memory, lane: int, half: int) -> None:
    zero = filled(state, 0.0)
    for part in (SUM, ERROR):
        for start in range(0, TOGETHER, lanes_of(state)):
            a = load(state, part + lane, start, zero)
            b = load(state, part + lane + half, start, zero)
            store(state, part + lane, start, a + b)


@inlined()
def _are_far(state: Memory) -> bool:
    found, zero = False, filled(state, 0.0)
    for start in range(0, TOGETHER, lanes_of(state)):
        highest, lowest = load(state, HIGHEST, start, zero), load(state, LOWEST, start, zero)
        found = found or are_far(Sums(zero, zero, zero, highest, lowest))
    return found


@inlined()
def _extend(
    row: int, start: int, places: Any, x: Memory, where: Memory | None, state: Memory
) -> None:
    scores = read(x, row, start, places)
    mask = kept_some(where, row, start, places, scores)
    highest, lowest = load(state, HIGHEST, start, scores), load(state, LOWEST, start, scores)
    highest, lowest = extended(highest, lowest, scores, mask)
    store(state, HIGHEST, start, highest)
    store(state, LOWEST, start, lowest)


_extend_all = over_vectors(_extend)


@inlined()
def _find_scales(x: Memory, where: Memory | None, n: int, state: Memory) -> None:
    fill(state, HIGHEST, HIGHEST + 1, -np.inf)
    fill(state, LOWEST, LOWEST + 1, np.inf)
    _extend_all(n, x, where, state)
    for i in range(x.length):
        state[SHIFT, i], state[RAISED, i] = scale_of(state[HIGHEST, i], state[LOWEST, i])


@inlined()
def reduce_columns(
    x: Memory, where: Memory | None, n: int, state: Memory, terms: Memory | None, found: Memory
) -> None:
    """Write what is found of a few columns."""
    fill(state, SHIFT, RAISED + 1, 0.0)
    _near_sums(x, where, n, state, terms)
    if _are_far(state):
        _find_scales(x, where, n, state)
        _far_sums(x, where, n, state, terms)
    for i in range(x.length):
        below = np.float64(state[SUM, i]) + np.float64(state[ERROR, i])
        maximum, scale = state[HIGHEST, i], (state[SHIFT, i], state[RAISED, i])
        write(found, i, maximum, scale, below, state[TOP, i])
        if terms is not None:
            found[LARGEST, i] = largest_of(x, maximum, scale)
    finish(found, x.length)


# Many columns -------------------------------------------------------------------------------------


def _mapping(of: Callable[..., Any]) -> Any:
    """Return a loop that writes `of` the numbers of columns, whether they are kept, and two more of each."""

    @inlined()
    def write_some(
        row: int,
        start: int,
        places: Any,
        x: Memory,
        where: Memory | None,
        state: Memory,
        y: Memory,
    ) -> None:
        numbers = read(x, row, start, places)
        mask = kept_some(where, row, start, places, numbers)
        first, second = load(state, FIRST, start, numbers), load(state, SECOND, start, numbers)
        put(y, row, start, places, of(numbers, mask, first, second))

    return over_vectors(write_some)


divide, _subtract = _mapping(quotient), _mapping(difference)


def over_columns(work: Callable[..., None], *, has_terms: bool) -> Any:
    """
    Return a loop over the columns of matrices, which lie one below the other.

    It calls `work(x, where, u, terms, y, state, found, n, right)` for a few columns of one at once. The
    heights are those of a matrix of x, u and y; `right` has a row for each matrix.
    """

    def loop(
        turns: Array | None,
        heights: tuple[int, int, int],
        x: Array,
        where: Array | None,
        u: Array | None,
        y: Array,
        right: Array,
    ) -> None:
        n, height_of_u, height_of_y = heights
        columns = x.shape[1]
        across = (columns + TOGETHER - 1) // TOGETHER
        x_all, where_all, u_all, y_all = memory_of(x), memory_of(where), memory_of(u), memory_of(y)
        real, height = real_of(x_all), n if has_terms and n <= LONG else 0
        room = np.empty((height + 1, TOGETHER), real)
        found, state = room_of_slices(np.float64(0.0)), _room_of_columns(real(0.0))
        first = rows_after(turns, 0)
        while first < across * len(right):
            stop = end_of(turns, first, across * len(right))
            for i in range(first, stop):
                matrix, start = i // across, i % across * TOGETHER
                width = min(TOGETHER, columns - start)
                some = block_of(x_all, matrix * n, start, width)
                mask = block_of(where_all, matrix * n, start, width)
                of_u = block_of(u_all, matrix * height_of_u, start, width)
                results = block_of(y_all, matrix * height_of_y, start, width)
                terms = either(height > 0, block_of(memory_of(room), 0, 0, width), results)
                are_right = block_of(memory_of(right), matrix, start, width)
                work(some, mask, of_u, terms, results, state, found, n, are_right)
            first = rows_after(turns, stop - first)
        room[0, 0] = 0.0  # up to here it must live, to which `terms` does not refer

    return compiled()(loop)


def _ending(finished: Callable[..., None], *, has_terms: bool) -> Any:
    """Return a loop over columns, a few of which end by `finished(x, where, terms, y, state, found, n)`."""

    @inlined()
    def work(
        x: Memory,
        where: Memory | None,
        u: None,
        terms: Memory,
        y: Memory,
        state: Memory,
        found: Memory,
        n: int,
        right: Memory,
    ) -> None:
        reduce_columns(x, where, n, state, terms if has_terms else None, found)
        for i in range(x.length):
            right[0, i] = found[EXCESS, i]
        finished(x, where, terms, y, state, found, n)

    return over_columns(work, has_terms=has_terms)


@inlined()
def write_divisors(state: Memory, found: Memory, width: int) -> None:
    """Write the two numbers by which terms become probabilities."""
    for i in range(width):
        state[FIRST, i], state[SECOND, i] = found[LARGEST, i], found[DIVISOR, i]


@inlined()
def _softmax(
    x: Memory, where: Any, terms: Memory, y: Memory, state: Memory, found: Memory, n: int
) -> None:
    write_divisors(state, found, x.length)
    divide(n, terms, None, state, y)


@inlined()
def _log_softmax(
    x: Memory, where: Any, terms: Memory, y: Memory, state: Memory, found: Memory, n: int
) -> None:
    for i in range(x.length):
        state[FIRST, i], state[SECOND, i] = -found[LOG, i], found[MAXIMUM, i]
    _subtract(n, x, where, state, y)


@inlined()
def _logsumexp(
    x: Memory, where: Any, terms: Memory, y: Memory, state: Memory, found: Memory, n: int
) -> None:
    for i in range(x.length):
        y[0, i] = found[MAXIMUM, i] + found[LOG, i]


@inlined()
def _excess(
    x: Memory, where: Any, terms: Memory, y: Memory, state: Memory, found: Memory, n: int
) -> None:
    for i in range(x.length):
        y[0, i] = found[EXCESS, i]


COLUMNS = {
    _primals.softmax: _ending(_softmax, has_terms=True),
    _primals.log_softmax: _ending(_log_softmax, has_terms=False),
    _primals.logsumexp: _ending(_logsumexp, has_terms=False),
    _primals.excess: _ending(_excess, has_terms=False),
}
