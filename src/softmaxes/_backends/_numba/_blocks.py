"""
Loops over columns that threads share: some of one matrix are taken at once, or those of several narrow ones.

Their terms stay in cache, in room of their own, where they are not so far apart as the results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from softmaxes._arrays import Array
from softmaxes._backends._numba._columns import FIRST, FOURTH, fill, room_of_columns
from softmaxes._backends._numba._narrow import gather, keep, matrices_at_once, scatter
from softmaxes._backends._numba._numbers import compiled, inlined, lanes_of, real_of, zeros
from softmaxes._backends._numba._shared import end_of, rows_after
from softmaxes._backends._numba._slices import MOST, room_of_slices
from softmaxes._backends._numba._vectors import (
    BYTES,
    Memory,
    block_of,
    either,
    filled,
    folded,
    load,
    memory_of,
)

__all__ = ["LONG", "VECTORS", "are_finite", "blocks_of", "over_columns", "tell", "whole_vectors"]

ROOM = 1 << 23  # bytes of the terms of a few columns, of which more are written among the results
LONG = ROOM // (4 * MOST)  # entries of a column, up to which there is room in single precision
VECTORS = MOST * 4 // BYTES  # of columns that are taken at once, as many as there is room for


class Cut(NamedTuple):
    """
    How columns are cut into blocks.

    How many columns are taken at once: in each row they are half a kilobyte, as what a processor fetches ahead should
    not be what another writes. Of how many matrices each block has the columns, 0 if only some of one; how many there
    are of all matrices, and of one; and by how many entries the first of one is shorter than the others.
    """

    together: int
    several: int
    blocks: int
    across: int
    before: int


@inlined()
def _cut(n: int, x: Array, y: Array, right: Array) -> Cut:
    (matrices, columns), together = right.shape, VECTORS * lanes_of(memory_of(x))
    several, before = matrices_at_once(n, columns, matrices, together), _before_a_line(y, together)
    across = (before + columns + together - 1) // together
    blocks = matrices * across
    if several:
        blocks = (matrices + several - 1) // several
    return Cut(together, several, blocks, across, before)


@compiled()
def blocks_of(n: int, x: Array, y: Array, right: Array) -> int:
    """Return how many times a loop over columns of n entries takes some at once."""
    blocks: int = _cut(n, x, y, right).blocks
    return blocks


@inlined()
def _before_a_line(y: Array, together: int) -> int:
    """
    Return how many entries of a line of cache are before the first of an array, if all rows begin in a line as it does.

    Blocks of columns that begin with a line share none, for which threads would wait. Where a row is one, it is 0.
    """
    is_same = y.strides[0] % BYTES == 0 and y.shape[1] > together
    return y.ctypes.data % BYTES // y.itemsize if is_same else 0


@inlined()
def tell(told: Memory, right: Memory) -> bool:
    """Write for which columns not all is right, and tell whether it is for all."""
    are_all = are_finite(told)
    for i in range(0 if are_all else told.length):
        right[0, i] = np.isfinite(told[0, i])
    return are_all


@inlined()
def are_finite(numbers: Memory) -> bool:
    """Tell whether all numbers of a row are: none of them times 0 is anything else."""
    lanes, zero = lanes_of(numbers), filled(numbers, 0.0)
    whole, total = numbers.length // lanes * lanes, zero
    for i in range(0, whole, lanes):
        total = total + load(numbers, 0, i, zero) * 0.0
    found = folded(total)
    for i in range(whole, numbers.length):
        found += numbers[0, i] * 0.0
    return bool(found == 0.0)


@inlined()
def whole_vectors(n: int, lanes: int) -> int:
    """Return how many places there are in the vectors that n numbers take."""
    return (n + lanes - 1) // lanes * lanes


class Block(NamedTuple):
    """Columns: their scores, mask and cotangents if there are any, results, and whether these are right."""

    x: Memory
    where: Memory | None
    u: Memory | None
    y: Memory
    right: Memory


@inlined()
def _lying(i: int, cut: Cut, sizes: tuple[int, int, int], arrays: Block) -> Block:
    """Return a block of columns of one matrix, where they lie."""
    n, height_of_u, height_of_y = sizes
    matrix, end = i // cut.across, (i % cut.across + 1) * cut.together - cut.before
    start = max(0, end - cut.together)
    width = min(end, arrays.right.length) - start
    return Block(
        block_of(arrays.x, matrix * n, start, width),
        block_of(arrays.where, matrix * n, start, width),
        block_of(arrays.u, matrix * height_of_u, start, width),
        block_of(arrays.y, matrix * height_of_y, start, width),
        block_of(arrays.right, matrix, start, width),
    )


@inlined()
def _gathered(
    i: int, cut: Cut, matrices: int, sizes: tuple[int, int, int], arrays: Block, rooms: Block
) -> Block:
    """Return a block of the columns of several matrices, whose scores, masks and cotangents are side by side."""
    n, height_of_u, _ = sizes
    columns, begin = arrays.right.length, i * cut.several
    count = min(cut.several, matrices - begin)
    width = whole_vectors(count * columns, lanes_of(arrays.x))
    end, end_of_u = matrices * n * columns, matrices * height_of_u * columns
    gather(arrays.x, begin, count, n, columns, end, rooms.x)
    gather(arrays.where, begin, count, n, columns, end, rooms.where)
    gather(arrays.u, begin, count, height_of_u, columns, end_of_u, rooms.u)
    return Block(
        block_of(rooms.x, 0, 0, width),
        block_of(rooms.where, 0, 0, width),
        block_of(rooms.u, 0, 0, width),
        block_of(rooms.y, 0, 0, width),
        block_of(arrays.right, begin, 0, count * columns),
    )


@inlined()
def _scatter(i: int, cut: Cut, sizes: tuple[int, int, int], block: Block, arrays: Block) -> None:
    """Copy the results of a block of several matrices to where they belong."""
    _, _, height = sizes
    columns, begin = arrays.right.length, i * cut.several
    count = block.right.length // columns
    end = (begin + count) * height * columns  # behind which another thread may write
    scatter(arrays.y, begin, count, height, columns, end, block.y)


def over_columns(work: Callable[..., None], *, has_terms: bool) -> Any:
    """
    Return a loop over the columns of matrices, which lie one below the other.

    It calls `work(x, where, u, terms, y, state, found, n, told)` for a few columns at once, of one matrix or
    of several narrow ones, which writes a number of each column that is finite where all is right. The sizes are
    the heights of a matrix of x, u and y. `right` has a row for each matrix: False where a
    column is not right. The loop tells whether all are.
    """

    def loop(
        turns: Array | None,
        sizes: tuple[int, int, int],
        x: Array,
        where: Array | None,
        u: Array | None,
        y: Array,
        right: Array,
    ) -> bool:
        n, _, _ = sizes
        (matrices, columns), cut = right.shape, _cut(n, x, y, right)
        arrays = _block(x, where, u, y, right)
        real, lanes = real_of(arrays.x), lanes_of(arrays.x)
        wide = min(cut.together, whole_vectors(max(1, cut.several) * columns, lanes))
        height = n if has_terms and n * wide * (BYTES // lanes) <= ROOM else 0
        room, told = np.empty((height + 1, wide), real), np.zeros((1, MOST))
        found, whole = room_of_slices(np.float64(0.0)), room_of_columns(real(0.0))
        fill(whole, FIRST, FOURTH + 1, 1.0)  # of what is no column, where nothing is subnormal
        rows = n if cut.several else 1
        entries = MOST + BYTES  # and those that are copied beyond the last
        room_x, room_where = zeros(x, rows, entries), zeros(where, rows, entries)
        room_u, room_y = zeros(u, rows, entries), zeros(y, rows, entries)
        rooms = _block(room_x, room_where, room_u, room_y, right)
        first, all_are_right = rows_after(turns, 0), True
        while first < cut.blocks:
            stop = end_of(turns, first, cut.blocks)
            for i in range(first, stop):
                if cut.several:
                    block = _gathered(i, cut, matrices, sizes, arrays, rooms)
                else:
                    block = _lying(i, cut, sizes, arrays)
                width = block.x.length
                terms = either(height > 0, block_of(memory_of(room), 0, 0, width), block.y)
                state = block_of(whole, 0, 0, whole_vectors(width, lanes))
                some_told = block_of(memory_of(told), 0, 0, block.right.length)
                work(block.x, block.where, block.u, terms, block.y, state, found, n, some_told)
                if cut.several:
                    _scatter(i, cut, sizes, block, arrays)
                all_are_right = tell(some_told, block.right) and all_are_right
            first = rows_after(turns, stop - first)
        keep(room)
        keep(told)
        keep(room_x)
        keep(room_where)
        keep(room_u)
        keep(room_y)
        return all_are_right

    return compiled()(loop)


@inlined()
def _block(x: Array, where: Array | None, u: Array | None, y: Array, right: Array) -> Block:
    return Block(memory_of(x), memory_of(where), memory_of(u), memory_of(y), memory_of(right))
