"""Rows of few entries: turned, many at once, to columns in the nearest cache, and worked as these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from softmaxes._arrays import Array
from softmaxes._backends._numba._columns import WORKS, room_of_columns
from softmaxes._backends._numba._columns_pulled import WORKS_OF_PULLS
from softmaxes._backends._numba._numbers import compiled, inlined, lanes_of, real_of
from softmaxes._backends._numba._shared import end_of, rows_after
from softmaxes._backends._numba._slices import MOST, room_of_slices
from softmaxes._backends._numba._vectors import (
    Memory,
    block_of,
    either,
    filled,
    folded,
    load,
    memory_of,
    room_of,
)

__all__ = ["FEW", "PULLS_OF_SHORT_ROWS", "SHORT", "SHORT_ROWS"]

SHORT = 12  # entries of a row, of which fewer take less time as a column
FEW = 64  # rows, of which fewer do not
_room_of_turned = room_of(4 * SHORT, MOST)  # for scores, terms, cotangents and results


@inlined()
def _turn(rows: Memory | None, first: int, columns: Memory) -> None:
    """Copy rows, as many as there are columns, to these."""
    if rows is not None:
        for j in range(rows.length):
            for i in range(columns.length):
                columns[j, i] = rows[first + i, j]


@inlined()
def _turn_back(columns: Memory, rows: Memory, first: int) -> None:
    for j in range(rows.length):
        for i in range(columns.length):
            rows[first + i, j] = columns[j, i]


@inlined()
def _turn_mask(where: Array | None, first: int, width: int, columns: Array) -> None:
    if where is not None:
        for j in range(where.shape[1]):
            for i in range(width):
                columns[j, i] = where[first + i, j]


@inlined()
def _are_finite(numbers: Memory) -> bool:
    """Tell whether all numbers of a row are: none of them times 0 is anything else."""
    lanes, zero = lanes_of(numbers), filled(numbers, 0.0)
    whole, total = numbers.length // lanes * lanes, zero
    for i in range(0, whole, lanes):
        total = total + load(numbers, 0, i, zero) * 0.0
    found = folded(total)
    for i in range(whole, numbers.length):
        found += numbers[0, i] * 0.0
    return bool(found == 0.0)


def _over_rows(work: Callable[..., None]) -> Any:
    """Return a loop over rows, of which a few at once are the columns that `work` of `over_columns` has."""

    @inlined()
    def loop(
        turns: Array | None, x: Array, where: Array | None, u: Array | None, y: Array, right: Array
    ) -> bool:
        n, rows, real = x.shape[1], len(x), real_of(memory_of(x))
        of_x, of_u, of_y, of_right = memory_of(x), memory_of(u), memory_of(y), memory_of(right)
        room, whole = _room_of_turned(real(0.0)), room_of_columns(real(0.0))
        found, lanes, all_are_right = room_of_slices(np.float64(0.0)), lanes_of(of_x), True
        mask, first = np.empty((n, MOST), np.bool_), rows_after(turns, 0)
        while first < rows:
            stop = end_of(turns, first, rows)
            for begin in range(first, stop, MOST):
                width = min(MOST, stop - begin)
                scores, terms = block_of(room, 0, 0, width), block_of(room, SHORT, 0, width)
                pairs = block_of(room, 2 * SHORT, 0, width)
                results = block_of(room, 3 * SHORT, 0, width)
                state = block_of(whole, 0, 0, (width + lanes - 1) // lanes * lanes)
                _turn_mask(where, begin, width, mask)
                _turn(of_x, begin, scores)
                _turn(of_u, begin, pairs)
                are_right = block_of(of_right, 0, begin, width)
                kept = either(False, memory_of(where), block_of(memory_of(mask), 0, 0, width))
                work(scores, kept, pairs, terms, results, state, found, n, are_right)
                _turn_back(results, of_y, begin)
                all_are_right = all_are_right and _are_finite(are_right)
            first = rows_after(turns, stop - first)
        mask[0, 0] = False  # up to here it must live, to which `kept` does not refer
        return all_are_right

    return loop


def _of_values(work: Callable[..., None]) -> Any:
    over_rows = _over_rows(work)

    def loop(turns: Array | None, x: Array, where: Array | None, y: Array, excess: Array) -> bool:
        return bool(over_rows(turns, x, where, None, y, excess.reshape(1, len(x))))

    return compiled()(loop)


def _of_pairs(work: Callable[..., None]) -> Any:
    over_rows = _over_rows(work)

    def loop(
        turns: Array | None, x: Array, where: Array | None, u: Array, y: Array, sums: Array
    ) -> bool:
        return bool(over_rows(turns, x, where, u, y, sums.reshape(1, len(x))))

    return compiled()(loop)


SHORT_ROWS = {f: _of_values(work) for f, work in WORKS.items()}
PULLS_OF_SHORT_ROWS = {f: _of_pairs(work) for f, work in WORKS_OF_PULLS.items()}
