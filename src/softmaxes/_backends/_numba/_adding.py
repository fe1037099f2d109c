"""
How numbers of columns are added: in the order of those of rows, on vectors of which each place is a column.

There are as many sums side by side as a vector has lanes, and in the end that of the first lane is the sum of all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from softmaxes._backends._numba._numbers import inlined, lanes_of
from softmaxes._backends._numba._vectors import (
    Memory,
    filled,
    first_places,
    load,
    load_first,
    prefetch,
    store,
    store_first,
)

__all__ = ["Adding", "adding_all", "adding_lane", "joining", "over_vectors", "put", "read"]

AHEAD = 4  # rows, after which a row is worked that is asked for now


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


# Their numbers ------------------------------------------------------------------------------------


class Adding(NamedTuple):
    """
    How numbers of columns are added, as those of rows are, in as many sums side by side as a vector has lanes.

    `begun(x)` are the sums of nothing, and `alone(x, a)` those of one number. `one(sums, a)` and
    `four(sums, a, b, c, d)` add numbers, and `joined(sums, others)` are the sums of two lanes. `known(state, lane,
    start, x)` are the sums of a lane, which `keep(state, lane, start, sums)` writes; where no lane has more than one
    number, the numbers are in the rows from `first` on. `more(state, start, x)` is what else there is to know, which
    `keep_more(state, start, more)` writes.
    """

    begun: Callable[..., Any]
    alone: Callable[..., Any]
    one: Callable[..., Any]
    four: Callable[..., Any]
    joined: Callable[..., Any]
    known: Callable[..., Any]
    keep: Callable[..., None]
    first: int
    more: Callable[..., Any]
    keep_more: Callable[..., None]


def adding_all(vector: Callable[..., Any], adding: Adding) -> Any:
    """
    Return a loop over n rows of columns: four vectors are added at once, and the rest one by one.

    With what else there is to know, `vector(row, start, places, more, x, ...)` is what to add, and the same again.
    The sums of all are those of the first lane in the end.
    """
    fewest, few, fours, ones = (of(vector, adding) for of in (_fewest, _few, _fours, _ones))
    begin, join = _beginning(adding), joining(adding)

    @inlined()
    def loop(n: int, x: Memory, state: Memory, *others: Any) -> None:
        lanes = lanes_of(x)
        if n <= lanes:
            fewest(1, x, n, state, *others)
            return
        if n < 4 * lanes:
            few(1, x, n, state, *others)
            return
        begin(lanes, x, 0, state)
        rows = n // (4 * lanes) * lanes
        fours(rows, x, 0, lanes, state, *others)
        ones(n - 4 * rows, x, 4 * rows, 0, lanes, state, *others)
        join(x, state)

    return loop


def adding_lane(vector: Callable[..., Any], adding: Adding) -> Any:
    """
    Return a loop over n rows of columns that are those of one lane, of which the first `4 * rows` are added in fours.

    It does what `adding_all` does of them, up to where that joins the sums of all lanes.
    """
    begin, fours, ones = _beginning(adding), _fours(vector, adding), _ones(vector, adding)

    @inlined()
    def loop(n: int, rows: int, lane: int, x: Memory, state: Memory, *others: Any) -> None:
        begin(1, x, lane, state)
        fours(rows, x, lane, 1, state, *others)
        ones(n - 4 * rows, x, 4 * rows, lane, 1, state, *others)

    return loop


def joining(adding: Adding) -> Any:
    """Return what joins the sums of all lanes."""
    fold_all = over_vectors(_folding(adding))

    @inlined()
    def join(x: Memory, state: Memory) -> None:
        fold_all(1, x, lanes_of(x), state)

    return join


def _fours(vector: Callable[..., Any], adding: Adding) -> Any:
    """Return a loop that adds four rows to each of so many lanes, from the first on, in turn."""
    known, four, keep = adding.known, adding.four, adding.keep
    more_of, keep_more = adding.more, adding.keep_more

    @inlined()
    def of_four(
        i: int,
        start: int,
        places: Any,
        x: Memory,
        first: int,
        lanes: int,
        state: Memory,
        *others: Any,
    ) -> None:
        row, lane = i // lanes * 4 * lanes + i % lanes, first + i % lanes
        sums, more = known(state, lane, start, x), more_of(state, start, x)
        a, more = vector(row, start, places, more, x, *others)
        b, more = vector(row + lanes, start, places, more, x, *others)
        c, more = vector(row + 2 * lanes, start, places, more, x, *others)
        d, more = vector(row + 3 * lanes, start, places, more, x, *others)
        keep(state, lane, start, four(sums, a, b, c, d))
        keep_more(state, start, more)

    return over_vectors(of_four)


def _ones(vector: Callable[..., Any], adding: Adding) -> Any:
    """Return a loop that adds a row to each of so many lanes, from the first on, in turn."""
    known, one, keep = adding.known, adding.one, adding.keep
    more_of, keep_more = adding.more, adding.keep_more

    @inlined()
    def of_one(
        i: int,
        start: int,
        places: Any,
        x: Memory,
        begin: int,
        first: int,
        lanes: int,
        state: Memory,
        *others: Any,
    ) -> None:
        lane = first + i % lanes
        sums, more = known(state, lane, start, x), more_of(state, start, x)
        y, more = vector(begin + i, start, places, more, x, *others)
        keep(state, lane, start, one(sums, y))
        keep_more(state, start, more)

    return over_vectors(of_one)


def _fewest(vector: Callable[..., Any], adding: Adding) -> Any:
    """Return a loop over columns of no more rows than there are lanes."""
    alone, joined, keep, first = adding.alone, adding.joined, adding.keep, adding.first
    more_of, keep_more, fold = adding.more, adding.keep_more, _folding(adding)

    @inlined()
    def of_fewest(
        _: int, start: int, places: Any, x: Memory, n: int, state: Memory, *others: Any
    ) -> None:
        more = more_of(state, start, x)
        for row in range(n):
            y, more = vector(row, start, places, more, x, *others)
            store(state, first + row, start, y + 0.0)  # as no sum is -0
        half, zero = 1, filled(x, 0.0)
        while 2 * half < n:
            half *= 2
        for lane in range(half):
            sums = alone(x, load(state, first + lane, start, zero))
            if lane + half < n:
                sums = joined(sums, alone(x, load(state, first + lane + half, start, zero)))
            keep(state, lane, start, sums)
        keep_more(state, start, more)
        fold(0, start, places, x, half, state)

    return over_vectors(of_fewest)


def _few(vector: Callable[..., Any], adding: Adding) -> Any:
    """Return a loop over columns of so few rows that none are added in fours: most sums are never in memory."""
    begun, one, joined, keep = adding.begun, adding.one, adding.joined, adding.keep
    more_of, keep_more, fold = adding.more, adding.keep_more, _folding(adding)

    @inlined()
    def of_few(
        _: int, start: int, places: Any, x: Memory, n: int, state: Memory, *others: Any
    ) -> None:
        lanes = lanes_of(x)
        half, quarter = lanes // 2, lanes // 4
        more = more_of(state, start, x)
        for lane in range(quarter):
            sums = second = begun(x)
            for i in range(4):
                a = begun(x)
                for row in range(lane + i % 2 * half + i // 2 * quarter, n, lanes):
                    y, more = vector(row, start, places, more, x, *others)
                    a = one(a, y)
                if i == 0:
                    sums = a
                elif i == 1:
                    sums = joined(sums, a)
                elif i == 2:
                    second = a
                else:
                    second = joined(second, a)
            keep(state, lane, start, joined(sums, second))
        keep_more(state, start, more)
        fold(0, start, places, x, quarter, state)

    return over_vectors(of_few)


def _folding(adding: Adding) -> Any:
    """Return what brings the sums of so many lanes together, for a vector of columns."""
    known, joined, keep = adding.known, adding.joined, adding.keep

    @inlined()
    def fold(_: int, start: int, places: Any, x: Memory, lanes: int, state: Memory) -> None:
        half = lanes // 2
        while half:
            for lane in range(half):
                sums = known(state, lane, start, x)
                others = known(state, lane + half, start, x)
                keep(state, lane, start, joined(sums, others))
            half //= 2

    return fold


def _beginning(adding: Adding) -> Any:
    """Return a loop over lanes from the first on, whose sums begin."""
    begun, keep = adding.begun, adding.keep

    @inlined()
    def begin(i: int, start: int, places: Any, x: Memory, first: int, state: Memory) -> None:
        keep(state, first + i, start, begun(x))

    return over_vectors(begin)
