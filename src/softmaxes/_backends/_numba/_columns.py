"""
Columns: the operations of rows in the same order, on vectors of which each place is a column.

A few columns are worked from their first row to their last, and what is found of them stays in the nearest
cache. Their terms stay in the next, in room of their own, where they are not so far apart as the results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from softmaxes._backends._numba._adding import (
    Adding,
    adding_all,
    adding_lane,
    joining,
    over_vectors,
    put,
    read,
)
from softmaxes._backends._numba._numbers import far, inlined, lanes_of, lowering_of, near
from softmaxes._backends._numba._rows import extended, noting
from softmaxes._backends._numba._slices import (
    DIVISOR,
    LARGEST,
    MOST,
    Sums,
    added,
    added_four,
    are_far,
    begun,
    find_largest,
    joined,
    scale_of,
    write_some,
)
from softmaxes._backends._numba._vectors import (
    Memory,
    filled,
    kept_some,
    load,
    room_of,
    row_of,
    store,
)

__all__ = [
    "ERROR",
    "FIRST",
    "FOURTH",
    "HIGHEST",
    "LOWEST",
    "PLACE",
    "RAISED",
    "SECOND",
    "SHIFT",
    "SUM",
    "THIRD",
    "TOP",
    "are_some_far",
    "begin_ends",
    "copy_to",
    "far_sums_of_lane",
    "fill",
    "find_ends",
    "find_scales",
    "join_sums",
    "near_sums_of_lane",
    "reduce_columns",
    "room_of_columns",
    "write_divisors",
    "write_found",
]

# The rows of an array of what is found of columns: sums side by side, as in the places of a vector of
# a row, their errors, and the largest terms; the extremes, what `scale_of` has, and four for the results.
SUM, ERROR, TOP = 0, 16, 32
HIGHEST, LOWEST, SHIFT, RAISED, FIRST, SECOND, THIRD, FOURTH = range(48, 56)
PLACE = 56  # where a probability above 1/2 is
room_of_columns = room_of(57, MOST)


def _summing(term: Callable[..., Any]) -> tuple[Any, Any]:
    """Return a loop over the terms of columns, which are written if there is where to, and one over those of a lane."""
    terms_of = noting(term)

    @inlined()
    def vector(
        row: int,
        start: int,
        places: Any,
        more: Any,
        x: Memory,
        where: Memory | None,
        terms: Memory | None,
    ) -> Any:
        scale, ends = more
        scores = read(x, row, start, places)
        mask = kept_some(where, row, start, places, scores)
        y, ends = terms_of(scores, mask, scale, ends)
        if terms is not None:
            put(terms, row, start, places, y)
        return y, (scale, ends)

    add_all, add_lane = adding_all(vector, _ADDING), adding_lane(vector, _ADDING)

    @inlined()
    def sums(x: Memory, where: Memory | None, n: int, state: Memory, terms: Memory | None) -> None:
        begin_ends(state)
        add_all(n, x, state, where, terms)

    @inlined()
    def sums_of_lane(
        x: Memory,
        where: Memory | None,
        size: tuple[int, int],
        lane: int,
        state: Memory,
        terms: Memory,
    ) -> None:
        n, rows = size
        begin_ends(state)
        add_lane(n, rows, lane, x, state, where, terms)

    return sums, sums_of_lane


@inlined()
def _alone(x: Memory, term: Any) -> Sums:
    below, error, _ = begun(x)
    return Sums(below, error, term)


@inlined()
def _known(state: Memory, lane: int, start: int, x: Memory) -> Sums:
    like = filled(x, 0.0)
    return Sums(
        load(state, SUM + lane, start, like),
        load(state, ERROR + lane, start, like),
        load(state, TOP + lane, start, like),
    )


@inlined()
def _keep(state: Memory, lane: int, start: int, sums: Sums) -> None:
    store(state, SUM + lane, start, sums.below)
    store(state, ERROR + lane, start, sums.error)
    store(state, TOP + lane, start, sums.top)


@inlined()
def _more(state: Memory, start: int, x: Memory) -> Any:
    """Return the scale and the extremes."""
    like = filled(x, 0.0)
    scale = load(state, SHIFT, start, like), load(state, RAISED, start, like)
    return scale, _ends(state, start, like)


@inlined()
def _keep_more(state: Memory, start: int, more: Any) -> None:
    _keep_ends(state, start, more[1])


@inlined()
def _ends(state: Memory, start: int, like: Any) -> Any:
    return load(state, HIGHEST, start, like), load(state, LOWEST, start, like)


@inlined()
def _keep_ends(state: Memory, start: int, ends: Any) -> None:
    highest, lowest = ends
    store(state, HIGHEST, start, highest)
    store(state, LOWEST, start, lowest)


_ADDING = Adding(begun, _alone, added, added_four, joined, _known, _keep, TOP, _more, _keep_more)
_near_sums, near_sums_of_lane = _summing(near)
_far_sums, far_sums_of_lane = _summing(far)
join_sums = joining(_ADDING)


@inlined()
def fill(state: Memory, row: int, stop: int, number: float) -> None:
    for i in range(row, stop):
        for start in range(0, state.length, lanes_of(state)):
            store(state, i, start, filled(state, number))


@inlined()
def begin_ends(state: Memory) -> None:
    fill(state, HIGHEST, HIGHEST + 1, -np.inf)
    fill(state, LOWEST, LOWEST + 1, np.inf)


@inlined()
def are_some_far(state: Memory) -> bool:
    """Tell whether the scores of a column need a shift."""
    found, zero = False, filled(state, 0.0)
    for start in range(0, state.length, lanes_of(state)):
        highest, lowest = _ends(state, start, zero)
        found = found or are_far(highest, lowest)
    return found


@inlined()
def _extend(
    row: int, start: int, places: Any, x: Memory, where: Memory | None, state: Memory
) -> None:
    scores = read(x, row, start, places)
    mask = kept_some(where, row, start, places, scores)
    highest, lowest = _ends(state, start, scores)
    _keep_ends(state, start, extended(highest, lowest, scores, mask))


_extend_all = over_vectors(_extend)


@inlined()
def find_ends(x: Memory, where: Memory | None, n: int, state: Memory) -> None:
    begin_ends(state)
    _extend_all(n, x, where, state)


@inlined()
def find_scales(state: Memory, width: int) -> None:
    for i in range(width):
        state[SHIFT, i], state[RAISED, i] = scale_of(state[HIGHEST, i], state[LOWEST, i])


@inlined()
def copy_to(memory: Memory, row: int, width: int, found: Memory, number: int) -> None:
    """Copy one of the numbers of slices to the first entries of a row."""
    lanes, zero = lanes_of(found), filled(found, 0.0)
    for i in range(0, width - lanes + 1, lanes):
        store(memory, row, i, load(found, number, i, zero))
    for i in range(width // lanes * lanes, width):
        memory[row, i] = found[number, i]


@inlined()
def reduce_columns(
    x: Memory, where: Memory | None, n: int, state: Memory, terms: Memory | None, found: Memory
) -> None:
    """Write what is found of a few columns."""
    fill(state, SHIFT, RAISED + 1, 0.0)
    _near_sums(x, where, n, state, terms)
    if are_some_far(state):
        find_ends(x, where, n, state)
        find_scales(state, x.length)
        _far_sums(x, where, n, state, terms)
    write_found(x.length, state, terms, found)


@inlined()
def write_found(width: int, state: Memory, terms: Memory | None, found: Memory) -> None:
    """Write what is found of a few columns, of which the sums are known."""
    zero = filled(found, 0.0)
    for i in range(0, width, lanes_of(found)):
        below = load(state, SUM, i, zero) + load(state, ERROR, i, zero)
        scale = load(state, SHIFT, i, zero), load(state, RAISED, i, zero)
        maximum, top = load(state, HIGHEST, i, zero), load(state, TOP, i, zero)
        write_some(found, i, maximum, scale, below, top, lowering_of(state), terms is not None)
    if terms is not None:
        shift, raised = row_of(state, SHIFT), row_of(state, RAISED)
        find_largest(row_of(state, HIGHEST), shift, raised, found, width)


@inlined()
def write_divisors(state: Memory, found: Memory, width: int) -> None:
    """Write the two numbers by which terms become probabilities."""
    copy_to(state, FIRST, width, found, LARGEST)
    copy_to(state, SECOND, width, found, DIVISOR)
