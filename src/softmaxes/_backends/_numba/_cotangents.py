"""
VJPs, as in `softmaxes._backends._cotangents`: from probabilities, or from scores, and cotangents.

From scores, the probabilities of a row are made and used up while it is in cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from softmaxes import _rules
from softmaxes._arrays import Array
from softmaxes._backends._numba._numbers import compiled, inlined, lanes_of
from softmaxes._backends._numba._rows import divide, keep, reduce_row, scale
from softmaxes._backends._numba._shared import end_of, rows_after
from softmaxes._backends._numba._slices import (
    BELOW,
    DIVISOR,
    LARGEST,
    room_of_slices,
    two_sum,
)
from softmaxes._backends._numba._vectors import (
    Memory,
    any_of,
    filled,
    first_places,
    folded,
    fused,
    highest_of,
    load,
    load_first,
    memory_of,
    row_of,
    store,
    store_first,
)

__all__ = ["COTANGENTS", "PASSES", "PULLS", "dominant_of", "largest_of_row", "sum_of_second"]


def _row_by(sum_of_products: Callable[..., Any], write: Callable[..., Any]) -> Any:
    """Return what ends a row by `write(p, u, row, u_dominant, sum of products, g)`, and 0 for its sum."""

    @inlined()
    def of_row(p: Memory, u: Memory, row: int, g: Memory) -> float:
        """Write the cotangents, and return a number that is finite where they are right."""
        largest = largest_of_row(p, row)
        place = dominant_of(p, row) if largest > 0.5 else -1
        u_dominant = u[row, place] if place >= 0 else u[row, 0] - u[row, 0]
        total = sum_of_products(p, u, row, u_dominant)
        write(p, u, row, u_dominant, total, g)
        if place >= 0:
            g[row, place] = 0.0
            g[row, place] = -sum_of_second(g, g, row, 0.0)
        return total if largest > 0.0 else np.nan

    return of_row


def _over_pairs(of_row: Callable[..., float]) -> Any:
    """Return a loop over rows of probabilities and cotangents."""

    def loop(turns: Array | None, p: Array, u: Array, g: Array, sums: Array) -> None:
        of_p, of_u, of_g = memory_of(p), memory_of(u), memory_of(g)
        first = rows_after(turns, 0)
        while first < len(p):
            stop = end_of(turns, first, len(p))
            for row in range(first, stop):
                sums[row] = of_row(of_p, of_u, row, of_g)
            first = rows_after(turns, stop - first)

    return compiled()(loop)


def _over_scores(of_row: Callable[..., float]) -> Any:
    """
    Return a loop over rows of scores and cotangents, which do not count where a mask is False.

    A row of cotangents may be one, for all of a row of scores.
    """

    def loop(
        turns: Array | None, x: Array, where: Array | None, u: Array, g: Array, sums: Array
    ) -> None:
        scores, of_u, of_g, mask = memory_of(x), memory_of(u), memory_of(g), memory_of(where)
        room, found = np.empty((1, x.shape[1]), x.dtype), room_of_slices(np.float64(0.0))
        kept = row_of(memory_of(room), 0)
        first = rows_after(turns, 0)
        while first < len(x):
            stop = end_of(turns, first, len(x))
            for row in range(first, stop):
                reduce_row(scores, mask, row, of_g, found, 0)
                divide(of_g, None, row, found[LARGEST, 0], found[DIVISOR, 0], of_g)
                if where is None or of_u.length == 1:
                    total = of_row(of_g, of_u, row, of_g)
                else:
                    keep(of_u, mask, row, 0.0, 0.0, kept)
                    total = of_row(of_g, kept, row, of_g)
                sums[row] = total if found[BELOW, 0] >= 0.0 else np.nan
            first = rows_after(turns, stop - first)
        room[0, 0] = 0.0  # up to here it must live, to which `kept` does not refer

    return compiled()(loop)


@inlined()
def _row_of_logsumexp(p: Memory, u: Memory, row: int, g: Memory) -> float:
    scale(p, None, row, u[row, 0], 0.0, g)
    return np.float64(u[row, 0])


@inlined()
def largest_of_row(p: Memory, row: int) -> Any:
    """Return the largest probability."""
    n, lanes, largest = p.length, lanes_of(p), filled(p, 0.0)
    for start in range(0, n - lanes + 1, lanes):
        largest = max(load(p, row, start, largest), largest)
    if n % lanes:
        places = first_places(n % lanes, largest)
        largest = max(load_first(p, row, n - n % lanes, places), largest)
    return highest_of(largest)


@inlined()
def dominant_of(p: Memory, row: int) -> int:
    """Return where the probability above 1/2 is."""
    n, lanes, half, place = p.length, lanes_of(p), filled(p, 0.5), 0
    while place + lanes <= n and not any_of(load(p, row, place, half) > half):
        place += lanes
    while not p[row, place] > 0.5:
        place += 1
    return place


def _summing(of: Callable[..., Any]) -> Any:
    """Return the sum over a row of `of` its entries, and those of another, and a number."""

    @inlined()
    def total(p: Memory, u: Memory, row: int, number: Any) -> float:
        n, lanes, repeated = p.length, lanes_of(p), filled(p, number)
        found = error = filled(p, 0.0)
        for start in range(0, n - lanes + 1, lanes):
            term = of(load(p, row, start, found), load(u, row, start, found), repeated)
            found, error = two_sum(found, error, term)
        if n % lanes:
            start, places = n - n % lanes, first_places(n % lanes, found)
            first, second = load_first(p, row, start, places), load_first(u, row, start, places)
            found, error = two_sum(found, error, of(first, second, repeated))
        return np.float64(folded(found)) + np.float64(folded(error))

    return total


def _mapping(of: Callable[..., Any]) -> Any:
    """Return a loop that writes `of` the entries of two rows and two numbers."""

    @inlined()
    def write(p: Memory, u: Memory, row: int, a: Any, b: Any, g: Memory) -> None:
        n, lanes, first, second = p.length, lanes_of(p), filled(p, a), filled(p, b)
        for start in range(0, n - lanes + 1, lanes):
            found = of(load(p, row, start, first), load(u, row, start, first), first, second)
            store(g, row, start, found)
        if n % lanes:
            start, places = n - n % lanes, first_places(n % lanes, first)
            pair = load_first(p, row, start, places), load_first(u, row, start, places)
            store_first(g, row, start, places, of(*pair, first, second))

    return write


@inlined()
def _product(p: Any, u: Any, u_dominant: Any) -> Any:
    return p * (u - u_dominant)


@inlined()
def _second(p: Any, u: Any, number: Any) -> Any:
    return u


@inlined()
def _of_softmax(p: Any, u: Any, u_dominant: Any, mean: Any) -> Any:
    return p * ((u - u_dominant) - mean)


@inlined()
def _of_log_softmax(p: Any, u: Any, u_dominant: Any, total: Any) -> Any:
    return fused(p, total * -1.0, u)


sum_of_second = _summing(_second)
# Of a row: the sum that a cotangent has of all its entries, and what writes them.
PASSES = {
    _rules.softmax.pull: (_summing(_product), _mapping(_of_softmax)),
    _rules.log_softmax.pull: (sum_of_second, _mapping(_of_log_softmax)),
}
_row_of_softmax, _row_of_log_softmax = (_row_by(*passes) for passes in PASSES.values())

COTANGENTS = {
    _rules.softmax.vjp: _over_pairs(_row_of_softmax),
    _rules.log_softmax.vjp: _over_pairs(_row_of_log_softmax),
}
PULLS = {
    _rules.softmax.pull: _over_scores(_row_of_softmax),
    _rules.log_softmax.pull: _over_scores(_row_of_log_softmax),
    _rules.logsumexp.pull: _over_scores(_row_of_logsumexp),
}
