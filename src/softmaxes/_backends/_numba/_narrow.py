"""
Matrices of few columns: several side by side in the nearest cache, where they are worked as one.

Short rows are such, of one column each. Entries are copied a vector at a time, from the first matrix to the
last: what is copied beyond a row is overwritten by the next.
"""

from __future__ import annotations

from typing import Any

from softmaxes._arrays import Array
from softmaxes._backends._numba._numbers import inlined, lanes_of
from softmaxes._backends._numba._vectors import Memory, filled, load, store

__all__ = ["gather", "keep", "matrices_at_once", "scatter"]

LARGE = 1 << 10  # entries of a matrix, of more of which it is worked where it lies
TALL = 256  # rows, of more of which as well


@inlined()
def matrices_at_once(n: int, columns: int, matrices: int, together: int) -> int:
    """Return how many matrices of n rows to bring side by side, for so many columns; 0 if none."""
    is_small = n <= TALL and n * columns <= LARGE and 4 * columns <= together
    return together // columns if is_small and matrices > 1 else 0


@inlined()
def keep(room: Array | None) -> None:
    """Let an array live up to here, to which no memory refers."""
    if room is not None:
        room[0, 0] = 0


def _moving(*, is_back: bool) -> Any:
    """
    Return a loop that copies matrices of n rows, which lie one below the other, side by side, or back.

    It copies so many from the first on. Nothing from the entry `end` on is read or written there.
    """

    @inlined()
    def move_row(
        a: Memory, row: int, room: Memory, i: int, place: int, n: int, has_more: bool
    ) -> None:
        if is_back:
            _copy(n, has_more, room, i, place, a, row, 0)
        else:
            _copy(n, has_more, a, row, 0, room, i, place)

    @inlined()
    def move(
        a: Memory | None, first: int, count: int, n: int, columns: int, end: int, room: Memory
    ) -> None:
        if a is None:
            return
        if columns == 1:
            for row in range(n):
                for i in range(count):
                    move_row(a, (first + i) * n + row, room, row, i, 1, False)
            return
        for i in range(count):
            for row in range(n):
                of_a = (first + i) * n + row
                has_more = (of_a + 1) * columns + lanes_of(a) <= end
                move_row(a, of_a, room, row, i * columns, columns, has_more)

    return move


@inlined()
def _copy(
    n: int, has_more: bool, a: Memory, row: int, start: int, to: Memory, to_row: int, place: int
) -> None:
    """Copy n entries of a row, by whole vectors if there may be more."""
    if has_more:
        for i in range(0, n, lanes_of(a)):
            store(to, to_row, place + i, load(a, row, start + i, filled(a, 0.0)))
    else:
        for i in range(n):
            to[to_row, place + i] = a[row, start + i]


gather, scatter = _moving(is_back=False), _moving(is_back=True)
