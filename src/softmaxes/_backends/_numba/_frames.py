"""
Calls of XLA, worked without the interpreter: from a frame of its foreign function interface to a loop.

Arguments are scores, a mask if there is one, and cotangents if there are any, each contiguous. The only
attribute is an array of integers: a number for who does what is left, the number of threads to use, the
length of a slice, and the number of columns, 0 of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from softmaxes._arrays import Array
from softmaxes._backends._numba._blocks import VECTORS, blocks_of
from softmaxes._backends._numba._calls import (
    SAID_FALSE,
    address_of,
    as_c,
    leave_to,
    matrix_at,
    refuse_failure,
    word_at,
    words_at,
)
from softmaxes._backends._numba._numbers import compiled, inlined
from softmaxes._backends._numba._parts import FOUND, PHASES
from softmaxes._backends._numba._parts import PART as LONGEST
from softmaxes._backends._numba._pool import in_pool
from softmaxes._backends._numba._shared import turns_of, turns_of_phases
from softmaxes._backends._numba._tall import PHASES as PHASES_OF_COLUMNS
from softmaxes._backends._numba._tall import room_of_lanes, together_of

__all__ = ["handler", "of_columns", "of_long_rows", "of_rows", "of_tall_columns"]

PART = 1 << 15  # entries, of which a few are worth a thread: those of XLA are awake
MANY = 32  # parts, from which on a call is not done twice where a slice is not right
ROW, COLUMN = 64, 8  # entries, in the time of which a row is begun, or a column's sums finished
BYTES = 8
# The words of a frame, of the interface, of a buffer, and of attributes.
EXTENSION, API, CONTEXT, STAGE, ARGUMENTS, RESULTS, ATTRIBUTES = 1, 2, 3, 4, 9, 14, 20
SCHEDULE = 17
DATA, RANK, LENGTHS = 3, 4, 5
NUMBERS = 2
EXECUTION, HALF = 3, 0xFFFFFFFF  # the stage in which there is something to compute, in half a word


def handler(run: Callable[..., Array], left: int) -> int:
    """
    Return the address of a handler of XLA's calls, which runs a loop if it has few entries.

    The handler at the address `left` does all else: more entries, slices that are not right, other stages.
    """
    leave_to(left)
    address: int = _handler(run)()
    return address


@cache
def _handler(run: Any) -> Any:
    @inlined()
    def has_done(frame: int) -> bool:
        if _word(frame, EXTENSION) != 0:
            return False
        if _word(frame, STAGE) & HALF != EXECUTION:
            return True
        return _parts(frame) < MANY and len(run(frame)) == 0

    return compiled()(lambda: address_of(has_done))


@inlined()
def _word(address: int, place: int) -> int:
    return word_at(address + place * BYTES)


@inlined()
def _matrix(frame: int, place: int, i: int, columns: int, dtype: Any) -> Array:
    """Return an argument or a result as a matrix."""
    address = _word(_word(_word(frame, place), i), DATA)
    return matrix_at(address, _length(frame, place, i) // columns, columns, dtype)


@inlined()
def _length(frame: int, place: int, i: int) -> int:
    """Return the number of entries of an argument or a result."""
    buffer = _word(_word(frame, place), i)
    n = 1
    for axis in range(_word(buffer, RANK)):
        n *= _word(_word(buffer, LENGTHS), axis)
    return n


@inlined()
def _numbers(frame: int) -> Array:
    return words_at(_word(_word(_word(frame, ATTRIBUTES), 0), NUMBERS), 4)


@inlined()
def _size(frame: int) -> tuple[int, int]:
    """Return the length of a slice, and the number of columns."""
    numbers = _numbers(frame)
    return numbers[2], numbers[3]


@inlined()
def _parts(frame: int) -> int:
    """Return how many parts of work there are."""
    (n, columns), entries = _size(frame), _length(frame, ARGUMENTS, 0)
    slices, each = entries // n, ROW if columns == 0 else COLUMN
    return (entries + slices * each) // PART


@inlined()
def _workers(frame: int, turns: int) -> int:
    """Return how many threads work so many turns."""
    workers: int = min(_numbers(frame)[1], turns, max(1, _parts(frame)))
    return workers


@inlined()
def _rows(frame: int, place: int, i: int, rows: int, dtype: Any) -> Array:
    """Return an argument or a result as a matrix of so many rows."""
    flat = _matrix(frame, place, i, 1, dtype)
    return flat.reshape(rows, len(flat) // rows)


@inlined()
def _no_rows(a: None) -> int:
    return 0


@inlined()
def _nothing(a: None, *places: int) -> None:
    return None


def _reading(i: int | None, read: Any) -> Any:
    """Return what reads argument i, None where there is none."""
    if i is None:
        return inlined()(lambda frame, length, dtype: None)
    return inlined()(lambda frame, length, dtype: read(frame, ARGUMENTS, i, length, dtype))


@cache
def of_rows(loop: Any, where: int | None, u: int | None, dtypes: tuple[Any, ...]) -> Any:
    """
    Return a function of the address of a frame.

    It calls the loop, and returns which rows are right if not all are. The mask and the
    cotangents are those arguments; the dtypes are of scores, mask, cotangents and results.
    """
    read_where, read_u = _reading(where, _matrix), _reading(u, _rows)
    of_x, of_where, of_u, of_y = dtypes
    has_pairs = u is not None

    def run(frame: int) -> Array:
        n, _ = _size(frame)
        x = _matrix(frame, ARGUMENTS, 0, n, of_x)
        rows, mask = len(x), read_where(frame, n, of_where)
        y = _rows(frame, RESULTS, 0, rows, of_y)
        found = np.full(rows, np.nan)
        workers = _workers(frame, rows)
        turns = turns_of(rows, workers)
        if has_pairs:
            given = read_u(frame, rows, of_u)
            _call(frame, workers, loop, (turns, x, mask, given, y, found))
        else:
            _call(frame, workers, loop, (turns, x, mask, y, found.reshape(rows, 1)))
        return _if_some_are_wrong(found)

    return compiled()(run)


@cache
def of_long_rows(
    loop: Any, where: int | None, u: int | None, dtypes: tuple[Any, ...], room: Any
) -> Any:
    """
    Return what `of_rows` does, one row after the other, each by a loop over its parts.

    The room for the terms of a row is of a dtype, or in the place of the results where that is None.
    """
    read_where, read_u = _reading(where, _matrix), _reading(u, _rows)
    of_x, of_where, of_u, of_y = dtypes
    has_pairs, room_of = u is not None, _itself if room is None else _fresh
    mask_of = _nothing if where is None else _one

    def run(frame: int) -> Array:
        n, _ = _size(frame)
        x = _matrix(frame, ARGUMENTS, 0, n, of_x)
        rows, parts = len(x), (n + LONGEST - 1) // LONGEST
        masks, all_u = read_where(frame, n, of_where), read_u(frame, rows, of_u)
        all_y, found = _rows(frame, RESULTS, 0, rows, of_y), np.full((rows, 1), np.nan)
        workers, told = _workers(frame, parts), np.empty((parts, FOUND))
        for i in range(rows):
            turns, mask, y = turns_of_phases(PHASES), mask_of(masks, i), _one(all_y, i)
            terms = room_of(y, room)
            given: Any
            if has_pairs:
                given = turns, _one(x, i), mask, _one(all_u, i), terms, y, told, found[i]
            else:
                given = turns, _one(x, i), mask, terms, y, told, _one(found, i)
            _call(frame, workers, loop, given)
        return _if_some_are_wrong(found[:, 0])

    return compiled()(run)


@inlined()
def _one(a: Array, i: int) -> Array:
    return a[i : i + 1]


@inlined()
def _itself(y: Array, dtype: Any) -> Array:
    return y


@inlined()
def _fresh(y: Array, dtype: Any) -> Array:
    return np.empty(y.shape, dtype)


@cache
def of_columns(loop: Any, where: int | None, u: int | None, dtypes: tuple[Any, ...]) -> Any:
    """Return what `of_rows` does, for columns."""
    read_where, read_u = _reading(where, _matrix), _reading(u, _matrix)
    of_x, of_where, of_u, of_y = dtypes
    rows_of = _no_rows if u is None else len

    def run(frame: int) -> Array:
        n, columns = _size(frame)
        columns = max(1, columns)  # of a row, it is one
        x = _matrix(frame, ARGUMENTS, 0, columns, of_x)
        y = _matrix(frame, RESULTS, 0, columns, of_y)
        mask, pairs = read_where(frame, columns, of_where), read_u(frame, columns, of_u)
        matrices = len(x) // n
        are_right = np.ones((matrices, columns), np.bool_)
        sizes = n, rows_of(pairs) // matrices, len(y) // matrices
        blocks = blocks_of(n, x, y, are_right)
        workers = _workers(frame, blocks)
        turns = turns_of(blocks, workers)
        given = turns, sizes, x, mask, pairs, y, are_right
        return are_right[:0] if _call(frame, workers, loop, given) else are_right

    return compiled()(run)


@cache
def of_tall_columns(loop: Any, where: int | None, u: int | None, dtypes: tuple[Any, ...]) -> Any:
    """Return what `of_columns` does, a few columns after the other, each time by a loop over their lanes."""
    read_where, read_u = _reading(where, _matrix), _reading(u, _matrix)
    of_x, of_where, of_u, of_y = dtypes
    mask_of, u_of = (_nothing if i is None else _some for i in (where, u))
    rows_of, together = _no_rows if u is None else len, together_of(of_y)
    lanes = together // VECTORS

    def run(frame: int) -> Array:
        n, columns = _size(frame)
        x = _matrix(frame, ARGUMENTS, 0, columns, of_x)
        g = _matrix(frame, RESULTS, 0, columns, of_y)
        masks, all_u = read_where(frame, columns, of_where), read_u(frame, columns, of_u)
        matrices, are_all = len(x) // n, True
        right, workers = np.ones((matrices, columns), np.bool_), _workers(frame, lanes)
        height_of_u = rows_of(all_u) // matrices
        for i in range(matrices):
            some_x, mask, some_g = _some(x, i, n), mask_of(masks, i, n), _some(g, i, n)
            some_u, some_right = u_of(all_u, i, height_of_u), _some(right, i, 1)
            for start in range(0, columns, together):
                block, room = (start, min(together, columns - start)), room_of_lanes(g)
                turns = turns_of_phases(PHASES_OF_COLUMNS)
                given = turns, block, some_x, mask, some_u, some_g, some_right, room
                are_all = _call(frame, workers, loop, given) and are_all
        return right[:0] if are_all else right

    return compiled()(run)


@inlined()
def _some(a: Array, i: int, height: int) -> Array:
    return a[i * height : (i + 1) * height]


@inlined()
def _call(frame: int, workers: int, loop: Any, arguments: Any) -> bool:
    """Call a loop on XLA's threads, with arguments that who calls this keeps alive; tell if none says False."""
    share, place, ends = as_c(loop, arguments)
    in_pool(_word(_word(frame, API), SCHEDULE), _word(frame, CONTEXT), workers, share, place)
    refuse_failure(ends)
    return word_at(ends) & SAID_FALSE == 0


@inlined()
def _if_some_are_wrong(found: Array) -> Array:
    """Return of which slices what is told is finite, and of none where it is of all."""
    are_right = np.isfinite(found)
    return are_right[:0] if np.all(are_right) else are_right
