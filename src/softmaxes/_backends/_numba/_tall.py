"""
Tall columns, of which there are too few for all threads: softmax and VJPs as in `_columns_pulled`, in phases.

A lane are the rows whose terms are added in the same place of vectors of a row, every sixteenth in single precision.
In a phase each thread takes lanes, until none are left, and waits for those of the others, as `_parts` says of a
row. What is found of the lanes each thread joins for itself, in their order, which does not depend on threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from softmaxes import _primals, _rules
from softmaxes._arrays import Array
from softmaxes._backends._numba._blocks import VECTORS, are_finite, tell, whole_vectors
from softmaxes._backends._numba._columns import (
    ERROR,
    FIRST,
    FOURTH,
    HIGHEST,
    LOWEST,
    PLACE,
    RAISED,
    SHIFT,
    SUM,
    THIRD,
    TOP,
    are_some_far,
    begin_ends,
    copy_to,
    far_sums_of_lane,
    fill,
    find_ends,
    find_scales,
    join_sums,
    near_sums_of_lane,
    room_of_columns,
    write_found,
)
from softmaxes._backends._numba._columns_pulled import (
    begin_end,
    copy_all,
    find_places,
    has_dominant,
    join_products,
    lanes_pulled,
    scale,
    tell_cotangents,
    write_end,
    write_sums,
)
from softmaxes._backends._numba._columns_valued import divide
from softmaxes._backends._numba._cotangents import FORMULAS
from softmaxes._backends._numba._narrow import keep
from softmaxes._backends._numba._numbers import compiled, inlined, lanes_of, real_of
from softmaxes._backends._numba._shared import PART, in_phases, rows_after, wait_for
from softmaxes._backends._numba._slices import BELOW, EXCESS, MOST, room_of_slices
from softmaxes._backends._numba._vectors import (
    BYTES,
    Memory,
    block_of,
    filled,
    load,
    memory_of,
    row_of,
    rows_apart,
    select,
    store,
)

__all__ = ["PHASES", "TALL", "are_tall", "room_of_lanes", "tall_columns", "together_of"]

PHASES = 7
NEAR, ENDS, FAR, DOMINANT, PRODUCTS, OTHERS, LAST = range(PHASES)
# The rows of what is known of the lanes after a phase: sums, their errors and the largest terms, as in
# `_columns`, and the extremes. After that which finds probabilities above 1/2: where they are, and their cotangents.
HIGH, LOW, HEIGHT = 48, 64, 80
ROWS = 1 << 10  # of fewer no column is tall


def together_of(working: Any) -> int:
    """Return how many columns are taken at once."""
    return VECTORS * BYTES // int(np.dtype(working).itemsize)


def are_tall(f: Any, size: tuple[int, int, int], dtypes: tuple[Any, Any], threads: int) -> bool:
    """
    Tell whether so many threads have to share columns, whose results have the dtype of the terms.

    A row of narrower ones is less than a line of cache, for which threads would wait.
    """
    (matrices, n, columns), (working, dtype) = size, dtypes
    blocks = matrices * -(-columns // together_of(working))
    is_wide = columns * np.dtype(working).itemsize >= BYTES
    return f in TALL and n >= ROWS and is_wide and blocks < threads and dtype == working


def tall_columns(
    f: Any, size: tuple[int, int, int], x: Array, where: Array | None, u: Array | None, g: Array
) -> Array | None:
    """Write the results of the columns of matrices, and return for which they are right, None if for all."""
    matrices, n, columns = size
    right, are_all = np.ones((matrices, columns), np.bool_), True
    together = together_of(g.dtype)
    for i in range(matrices):
        some = [a if a is None else a[i] for a in (x, where, u, g)]
        for start in range(0, columns, together):
            block, room = (start, min(together, columns - start)), room_of_lanes(g)
            parts = n * block[1] // PART
            are_right = in_phases(TALL[f], parts, PHASES, block, *some, right[i : i + 1], room)
            are_all = are_all and bool(are_right)
    return None if are_all else right


@compiled()
def room_of_lanes(g: Array) -> Array:
    """Return room for what is known of the lanes of columns."""
    return np.empty((LAST * HEIGHT, MOST), g.dtype)


class _Columns(NamedTuple):
    """The memory of columns, or of the rows of one lane of them, and what this thread and all know of them."""

    x: Memory
    where: Memory
    u: Memory
    g: Memory
    right: Memory
    state: Memory
    found: Memory
    told: Memory
    room: Memory
    size: tuple[int, int]  # the rows, and how many times four of them are added


def _phase(number: int, work: Callable[..., None]) -> Any:
    """Return a phase: `work` of the rows of each lane, and of its number."""

    @inlined()
    def phase(turns: Array, columns: _Columns) -> None:
        counters, lanes = turns[number], lanes_of(columns.g)
        i = rows_after(counters, 0)
        while i < lanes:
            lane = i % 2 * (lanes // 2) + i // 2  # so that two threads write far apart
            work(_rows_of(columns, lane, lanes), lane)
            i = rows_after(counters, 1)
        wait_for(counters, lanes)

    return phase


@inlined()
def _rows_of(columns: _Columns, lane: int, lanes: int) -> _Columns:
    n, _ = columns.size
    return _Columns(
        rows_apart(columns.x, lane, lanes),
        rows_apart(columns.where, lane, lanes),
        rows_apart(columns.u, lane, lanes),
        rows_apart(columns.g, lane, lanes),
        columns.right,
        columns.state,
        columns.found,
        columns.told,
        columns.room,
        ((n - lane + lanes - 1) // lanes, n // (4 * lanes)),
    )


# What lanes have in common -------------------------------------------------------------------------


@inlined()
def _give(phase: int, lane: int, some: _Columns) -> None:
    """Let all threads know what this one has found of a lane."""
    state, room, begin = some.state, some.room, phase * HEIGHT + lane
    for row in (SUM, ERROR, TOP):
        copy_to(room, begin + row, state.length, state, row + lane)
    copy_to(room, begin + HIGH, state.length, state, HIGHEST)
    copy_to(room, begin + LOW, state.length, state, LOWEST)


@inlined()
def _take(phase: int, columns: _Columns) -> None:
    """Learn what all threads have found of lanes."""
    state, room, begin = columns.state, columns.room, phase * HEIGHT
    lanes, zero = lanes_of(state), filled(state, 0.0)
    begin_ends(state)
    for lane in range(lanes):
        for row in (SUM, ERROR, TOP):
            copy_to(state, row + lane, state.length, room, begin + row + lane)
        for start in range(0, state.length, lanes):
            highest = load(room, begin + HIGH + lane, start, zero)
            lowest = load(room, begin + LOW + lane, start, zero)
            store(state, HIGHEST, start, max(highest, load(state, HIGHEST, start, zero)))
            store(state, LOWEST, start, min(lowest, load(state, LOWEST, start, zero)))


# From scores to divisors ---------------------------------------------------------------------------


@inlined()
def _near(some: _Columns, lane: int) -> None:
    near_sums_of_lane(some.x, some.where, some.size, lane, some.state, some.g)
    _give(NEAR, lane, some)


@inlined()
def _ends(some: _Columns, lane: int) -> None:
    find_ends(some.x, some.where, some.size[0], some.state)
    _give(ENDS, lane, some)


@inlined()
def _far(some: _Columns, lane: int) -> None:
    far_sums_of_lane(some.x, some.where, some.size, lane, some.state, some.g)
    _give(FAR, lane, some)


_near_sums, _find_ends, _far_sums = _phase(NEAR, _near), _phase(ENDS, _ends), _phase(FAR, _far)


@inlined()
def _reduce(turns: Array, columns: _Columns) -> None:
    """Do what `reduce_columns` does, by lanes."""
    state, width = columns.state, columns.g.length
    fill(state, SHIFT, RAISED + 1, 0.0)
    _near_sums(turns, columns)
    _take(NEAR, columns)
    if are_some_far(state):
        _find_ends(turns, columns)
        _take(ENDS, columns)
        find_scales(state, width)
        _far_sums(turns, columns)
        _take(FAR, columns)
    join_sums(columns.g, state)
    write_found(width, state, columns.g, columns.found)
    begin_end(state, columns.found, width)


# From there to probabilities -----------------------------------------------------------------------


@inlined()
def _probabilities(some: _Columns, lane: int) -> None:
    n, _ = some.size
    divide(n, some.g, None, some.state, some.g)
    if lane == 0:
        tell(some.told, some.right)


_write_probabilities = _phase(LAST, _probabilities)


@inlined()
def _softmax(turns: Array, columns: _Columns) -> None:
    copy_to(columns.told, 0, columns.g.length, columns.found, BELOW)
    _write_probabilities(turns, columns)


# From there to cotangents of logarithms ------------------------------------------------------------


@inlined()
def _scaled(some: _Columns, lane: int) -> None:
    n, _ = some.size
    scale(n, some.g, some.u, some.state, some.g)
    _end(some, lane)


@inlined()
def _end(some: _Columns, lane: int) -> None:
    n, _ = some.size
    write_end(some.g, some.found, n, some.told)
    if lane == 0:
        tell(some.told, some.right)


_scale_all = _phase(LAST, _scaled)


@inlined()
def _logsumexp(turns: Array, columns: _Columns) -> None:
    tell_cotangents(columns.u, columns.told)
    _scale_all(turns, columns)


# From there to cotangents --------------------------------------------------------------------------


@inlined()
def _dominant(some: _Columns, lane: int) -> None:
    state, room, begin = some.state, some.room, DOMINANT * HEIGHT + lane
    fill(state, PLACE, PLACE + 1, -1.0)
    find_places(some.size[0], some.g, some.u, state)
    copy_to(room, begin + HIGH, state.length, state, PLACE)
    copy_to(room, begin + LOW, state.length, state, THIRD)


@inlined()
def _take_dominant(columns: _Columns) -> None:
    """Learn the cotangents of probabilities above 1/2, of which no column has two."""
    state, room, begin = columns.state, columns.room, DOMINANT * HEIGHT
    zero = filled(state, 0.0)
    fill(state, THIRD, THIRD + 1, 0.0)
    for lane in range(lanes_of(state)):
        for start in range(0, state.length, lanes_of(state)):
            has_place = load(room, begin + HIGH + lane, start, zero) > -0.5
            of_lane = load(room, begin + LOW + lane, start, zero)
            third = load(state, THIRD, start, zero)
            store(state, THIRD, start, select(has_place, of_lane, third))


@inlined()
def _place_in(some: _Columns, lane: int) -> None:
    """Write where in the rows of a lane a probability above 1/2 is."""
    state = some.state
    copy_to(state, PLACE, state.length, some.room, DOMINANT * HEIGHT + HIGH + lane)


_find_dominant = _phase(DOMINANT, _dominant)


@inlined()
def _add_up(phase: int, columns: _Columns, sign: float) -> None:
    _take(phase, columns)
    join_products(columns.g, columns.state)
    write_sums(columns.state, columns.found, columns.g.length, sign)


def _pulling(summand: Callable[..., Any], result: Callable[..., Any]) -> Any:
    """Return what goes on from there in phases, by two formulas of `_cotangents`."""
    sum_of_products, write, write_others, sum_alone = lanes_pulled(summand, result)

    @inlined()
    def _products(some: _Columns, lane: int) -> None:
        sum_of_products(some.g, some.where, some.u, some.size, lane, some.state)
        _give(PRODUCTS, lane, some)

    @inlined()
    def _others(some: _Columns, lane: int) -> None:
        n, _ = some.size
        _place_in(some, lane)
        write_others(n, some.g, some.where, some.u, some.state, some.g)
        sum_alone(some.g, None, some.g, some.size, lane, some.state)
        _give(OTHERS, lane, some)

    @inlined()
    def _all(some: _Columns, lane: int) -> None:
        n, _ = some.size
        write(n, some.g, some.where, some.u, some.state, some.g)
        _end(some, lane)

    @inlined()
    def _rest(some: _Columns, lane: int) -> None:
        n, _ = some.size
        _place_in(some, lane)
        copy_all(n, some.g, some.state, some.g)
        _end(some, lane)

    add_products, add_others = _phase(PRODUCTS, _products), _phase(OTHERS, _others)
    write_all, write_rest = _phase(LAST, _all), _phase(LAST, _rest)

    @inlined()
    def end(turns: Array, columns: _Columns) -> None:
        found, width = columns.found, columns.g.length
        is_some_dominant = has_dominant(width, found)
        if is_some_dominant:
            _find_dominant(turns, columns)
            _take_dominant(columns)
        add_products(turns, columns)
        _add_up(PRODUCTS, columns, 1.0)
        copy_to(columns.told, 0, width, found, EXCESS)
        if is_some_dominant:
            add_others(turns, columns)
            _add_up(OTHERS, columns, -1.0)
            write_rest(turns, columns)
        else:
            write_all(turns, columns)

    return end


@inlined()
def _itself(u: Memory, row: int) -> Memory:
    return u


def _over_lanes(end: Callable[..., None], rows_of_u: Callable[..., Any] = _itself) -> Any:
    """Return a loop over the lanes of some columns of a matrix, in phases: first `_reduce`, and in the end `end`."""

    def loop(
        turns: Array,
        block: tuple[int, int],
        x: Array,
        where: Array | None,
        u: Array | None,
        g: Array,
        right: Array,
        room: Array,
    ) -> bool:
        (start, width), n = block, len(x)
        of_g, told = block_of(memory_of(g), 0, start, width), np.zeros((1, MOST))
        lanes, real = lanes_of(of_g), real_of(of_g)
        found, whole = room_of_slices(np.float64(0.0)), room_of_columns(real(0.0))
        fill(whole, FIRST, FOURTH + 1, 1.0)  # of what is no column, where nothing is subnormal
        columns = _Columns(
            block_of(memory_of(x), 0, start, width),
            block_of(memory_of(where), 0, start, width),
            rows_of_u(block_of(memory_of(u), 0, start, width), 0),
            of_g,
            block_of(memory_of(right), 0, start, width),
            block_of(whole, 0, 0, whole_vectors(width, lanes)),
            found,
            block_of(memory_of(told), 0, 0, width),
            memory_of(room),
            (n, 0),
        )
        _reduce(turns, columns)
        end(turns, columns)
        are_all = are_finite(columns.told)
        keep(told)
        return are_all

    return compiled()(loop)


TALL: dict[Any, Any] = {
    _primals.softmax: _over_lanes(_softmax),
    _rules.logsumexp.pull: _over_lanes(_logsumexp, row_of),
    **{rule.pull: _over_lanes(_pulling(*formulas)) for rule, formulas in FORMULAS.items()},
}
