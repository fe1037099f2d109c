"""Rows: from scores and a mask to the results and to S - 1, NaN where they are not right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

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
from softmaxes._backends._numba._shared import end_of, rows_after
from softmaxes._backends._numba._slices import (
    BELOW,
    DIVISOR,
    EXCESS,
    LARGEST,
    LOG,
    MAXIMUM,
    TOGETHER,
    added,
    added_four,
    are_far,
    begun,
    find_largest,
    finish,
    room_of_shifts,
    room_of_slices,
    scale_of,
    write,
)
from softmaxes._backends._numba._vectors import (
    Memory,
    filled,
    first_of,
    first_places,
    folded,
    highest_of,
    kept,
    kept_first,
    load,
    load_first,
    memory_of,
    only,
    row_of,
    select,
    store,
    store_first,
    without_highest,
)

__all__ = [
    "ROWS",
    "Row",
    "copy",
    "difference",
    "divide",
    "extended",
    "extremes",
    "far_sums",
    "largest_of",
    "mapping",
    "near_sums",
    "new_room",
    "noting",
    "quotient",
    "reduce_rows",
    "subtract",
]

ENTRIES = 1 << 13  # of rows that are finished at once, which stay in the nearest cache
BLOCK = 1 << 10  # entries, after which a row is given up if a score is far
EMPTY = (-np.inf, np.inf)  # the extremes of no scores


def noting(term: Callable[..., Any]) -> Any:
    """Return what makes the terms of scores, 0 where a mask is False, and extends the extremes by these."""

    @inlined()
    def terms_of(scores: Any, mask: Any, scale: Any, ends: Any) -> Any:
        highest, lowest = ends
        if mask is None:
            y = term(scores, *scale)
        else:
            scores = only(mask, scores)  # which counts in no extreme where it is NaN
            y = select(mask, term(scores, *scale), 0.0)
        return y, (max(scores, highest), min(scores, lowest))

    return terms_of


# One row ------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """Scores, and a mask of them if there is one, in a row of memory; and room for their terms, if they are kept."""

    x: Memory
    where: Memory | None
    i: int
    terms: Memory | None


def _summing(term: Callable[..., Any], *, is_near: bool) -> Any:
    """Return a loop over the terms of a row, which are written if there is where to."""
    terms_of = noting(term)

    @inlined()
    def vector(row: Row, start: int, scale: Any, ends: Any) -> Any:
        x, where, i, terms = row
        scores = load(x, i, start, ends[0])
        y, ends = terms_of(scores, kept(where, i, start, scores), scale, ends)
        store(terms, i, start, y)
        return y, ends

    @inlined()
    def first(row: Row, start: int, places: Any, scale: Any, ends: Any) -> Any:
        x, where, i, terms = row
        scores, mask = load_first(x, i, start, places), kept_first(where, i, start, places)
        y, ends = terms_of(scores, mask, scale, ends)
        store_first(terms, i, start, places, y)
        return y, ends

    @inlined()
    def sums(row: Row, scale: Any) -> tuple[Any, bool, float, Any]:
        """
        Return the maximum, whether a score is far, the sum of all terms but the largest, and that one.

        Where no score may be far and one is, not all of the row need have been read.
        """
        x = row.x
        n, lanes, numbers, ends = x.length, lanes_of(x), filled(x, scale), filled(x, EMPTY)
        found, is_far = begun(x), False
        for begin in range(0, n, BLOCK):
            end, start = min(begin + BLOCK, n), begin
            while start + 4 * lanes <= end:
                a, ends = vector(row, start, numbers, ends)
                b, ends = vector(row, start + lanes, numbers, ends)
                c, ends = vector(row, start + 2 * lanes, numbers, ends)
                d, ends = vector(row, start + 3 * lanes, numbers, ends)
                found = added_four(found, a, b, c, d)
                start += 4 * lanes
            while start + lanes <= end:
                y, ends = vector(row, start, numbers, ends)
                found = added(found, y)
                start += lanes
            if start < end:
                y, ends = first(row, start, first_places(end - start, found.top), numbers, ends)
                found = added(found, y)
            is_far = are_far(*ends)
            if is_near and is_far:
                break
        rest, top = without_highest(found.top, found.error)
        below = np.float64(folded(found.below)) + np.float64(rest)
        return highest_of(ends[0]), is_far, below, top

    return sums


near_sums, far_sums = _summing(near, is_near=True), _summing(far, is_near=False)


@inlined()
def extremes(x: Memory, where: Memory | None, row: int) -> tuple[Any, Any]:
    """Return the largest score, and the smallest above -inf; no NaN counts."""
    n, lanes = x.length, lanes_of(x)
    highest, lowest = filled(x, -np.inf), filled(x, np.inf)
    for start in range(0, n - lanes + 1, lanes):
        scores = load(x, row, start, highest)
        mask = kept(where, row, start, highest)
        highest, lowest = extended(highest, lowest, scores, mask)
    if n % lanes:
        start, places = n - n % lanes, first_places(n % lanes, highest)
        scores = load_first(x, row, start, places)
        mask = kept_first(where, row, start, places)
        highest, lowest = extended(highest, lowest, scores, mask)
    return highest_of(highest), -highest_of(lowest * -1.0)


@inlined()
def extended(highest: Any, lowest: Any, scores: Any, mask: Any) -> tuple[Any, Any]:
    scores = scores if mask is None else only(mask, scores)
    lowest = min(select(scores > -np.inf, scores, np.inf), lowest)
    return max(scores, highest), lowest


@inlined()
def reduce_rows(
    x: Memory,
    where: Memory | None,
    begin: int,
    count: int,
    terms: Memory | None,
    shifts: Memory,
    found: Memory,
) -> None:
    """Write what is found of some rows, and their terms if there is where to."""
    for i in range(count):
        _reduce_row(Row(x, where, begin + i, row_of(terms, i)), shifts, found, i)
    if terms is not None:
        find_largest(row_of(shifts, 0), row_of(shifts, 1), row_of(shifts, 2), found, count)


@inlined()
def _reduce_row(row: Row, shifts: Memory, found: Memory, i: int) -> None:
    """Write what is found of a row, and for `find_largest` of what its terms are made."""
    maximum, is_far, below, top = near_sums(row, (0.0, 0.0))
    zero = real_of(row.x)(0.0)
    scale = zero, zero
    if is_far:
        maximum, lowest = extremes(row.x, row.where, row.i)
        scale = scale_of(maximum, lowest)
        _, _, below, top = far_sums(row, scale)
    write(found, i, maximum, scale, below, top)
    if row.terms is not None:
        shifts[0, i], shifts[1, i], shifts[2, i] = maximum, scale[0], scale[1]


@inlined()
def largest_of(like: Any, maximum: Any, scale: Any) -> Any:
    """Return the term of the maximum."""
    return first_of(far(filled(like, maximum), filled(like, scale[0]), filled(like, scale[1])))


# Many rows ----------------------------------------------------------------------------------------


def mapping(of: Callable[..., Any]) -> Any:
    """Return a loop that writes `of` the numbers of a row, whether they are kept, and some more numbers."""

    @inlined()
    def write_row(x: Memory, where: Memory | None, row: int, numbers: Any, y: Memory) -> None:
        n, lanes, like, vectors = x.length, lanes_of(x), filled(x, 0.0), filled(x, numbers)
        for start in range(0, n - lanes + 1, lanes):
            mask = kept(where, row, start, like)
            store(y, row, start, of(load(x, row, start, like), mask, *vectors))
        if n % lanes:
            start, places = n - n % lanes, first_places(n % lanes, like)
            mask = kept_first(where, row, start, places)
            store_first(
                y, row, start, places, of(load_first(x, row, start, places), mask, *vectors)
            )

    return write_row


@inlined()
def quotient(term: Any, mask: Any, largest: Any, total: Any) -> Any:
    return min(largest, term) / total  # the terms of neighbours need not be in their order


@inlined()
def difference(x: Any, mask: Any, largest: Any, maximum: Any) -> Any:
    y = largest - (maximum - x)
    return y if mask is None else select(mask, y, -np.inf)


@inlined()
def _same(a: Any, mask: Any) -> Any:
    return a


divide, subtract, copy = mapping(quotient), mapping(difference), mapping(_same)


def _over_rows(
    finished: Callable[..., None], *, has_terms: bool = False, has_log: bool = False
) -> Any:
    """Return a loop over rows, each of which ends by `finished(row, found, i, y)`, with terms by these alone."""
    told = BELOW if has_terms else EXCESS

    def loop(
        turns: Array | None, x: Array, where: Array | None, y: Array, excess: Array | None
    ) -> bool:
        scores, mask, results = memory_of(x), memory_of(where), memory_of(y)
        found, all_are_right = room_of_slices(np.float64(0.0)), True
        together = max(1, min(TOGETHER, len(x), ENTRIES // scores.length))
        room: Any = new_room(scores, together) if has_terms else None
        terms, shifts = memory_of(room), room_of_shifts(real_of(scores)(0.0))
        first = rows_after(turns, 0)
        while first < len(x):
            stop = end_of(turns, first, len(x))
            for begin in range(first, stop, together):
                count = min(together, stop - begin)
                reduce_rows(scores, mask, begin, count, terms, shifts, found)
                if not has_terms:
                    finish(scores, found, count, has_log)
                for i in range(count):
                    all_are_right = all_are_right and not np.isnan(found[told, i])
                    if excess is not None:
                        excess[begin + i, 0] = found[told, i]
                    row = Row(scores, mask, begin + i, row_of(terms, i))
                    finished(row, found, i, results)
            first = rows_after(turns, stop - first)
        if has_terms:
            room[0, 0] = 0.0  # up to here it must live, to which `terms` does not refer
        return all_are_right

    return compiled()(loop)


@inlined()
def new_room(x: Memory, rows: int) -> Array:
    """Return an array for as many rows of numbers of the kind of x."""
    return np.empty((rows, x.length), real_of(x))


@inlined()
def _softmax(row: Row, found: Memory, i: int, y: Memory) -> None:
    divide(row.terms, None, row.i, (found[LARGEST, i], found[DIVISOR, i]), y)


@inlined()
def _log_softmax(row: Row, found: Memory, i: int, y: Memory) -> None:
    subtract(row.x, row.where, row.i, (-abs(found[LOG, i]), found[MAXIMUM, i]), y)


@inlined()
def _logsumexp(row: Row, found: Memory, i: int, y: Memory) -> None:
    y[row.i, 0] = found[MAXIMUM, i] + found[LOG, i]


@inlined()
def _excess(row: Row, found: Memory, i: int, y: Memory) -> None:
    y[row.i, 0] = found[EXCESS, i]


ROWS = {
    _primals.softmax: _over_rows(_softmax, has_terms=True),
    _primals.log_softmax: _over_rows(_log_softmax, has_log=True),
    _primals.logsumexp: _over_rows(_logsumexp, has_log=True),
    _primals.excess: _over_rows(_excess),
}
