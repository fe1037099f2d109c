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
from softmaxes._backends._numba._numbers import compiled, inlined, lanes_of, real_of
from softmaxes._backends._numba._rows import (
    ENTRIES,
    copy,
    mapping,
    new_room,
    quotient,
    reduce_rows,
)
from softmaxes._backends._numba._shared import end_of, rows_after
from softmaxes._backends._numba._slices import (
    BELOW,
    DIVISOR,
    LARGEST,
    TOGETHER,
    room_of_shifts,
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
    kept,
    kept_first,
    load,
    load_first,
    memory_of,
    row_of,
    select,
    store,
    store_first,
)

__all__ = [
    "COTANGENTS",
    "FORMULAS",
    "PASSES",
    "PASSES_OF_PAIRS",
    "PULLS",
    "above",
    "counted",
    "four_of",
    "given",
    "largest_in",
    "of_logsumexp",
    "one_more",
    "passes",
    "second",
    "sum_of",
    "weigh",
]


def _row_by(sum_of_products: Callable[..., Any], write: Callable[..., Any]) -> Any:
    """Return what ends a row by what is written of the sum of products, and 0 for the sum of the row."""

    @inlined()
    def of_row(
        terms: Memory,
        where: Memory | None,
        u: Memory,
        row: int,
        scale: Any,
        room: Memory,
        g: Memory,
    ) -> Any:
        """Write the cotangents, and return a number that is finite where they are right."""
        largest, half = scale[0], 0.5 * scale[1]
        place = above(terms, row, half) if largest > half else -1
        u_dominant = np.float64(u[row, place]) if place >= 0 else 0.0
        total = sum_of_products(terms, where, u, row, (*scale, u_dominant))
        numbers = *scale, u_dominant, total
        if place < 0:
            write(terms, where, u, row, numbers, g)
        else:
            write(terms, where, u, row, numbers, room)
            room[row, place] = 0.0
            room[row, place] = -sum_of(room, row)
            copy(room, None, row, (), g)
        return total

    return of_row


def _over_pairs(of_row: Callable[..., Any]) -> Any:
    """Return a loop over rows of probabilities and cotangents."""

    def loop(turns: Array | None, p: Array, u: Array, g: Array, sums: Array) -> bool:
        of_p, of_u, of_g, all_are_right = memory_of(p), memory_of(u), memory_of(g), True
        first = rows_after(turns, 0)
        while first < len(p):
            stop = end_of(turns, first, len(p))
            for row in range(first, stop):
                top = largest_in(of_p, row)
                total = of_row(of_p, None, of_u, row, (top, 1.0), of_g, of_g)
                sums[row] = total if top > 0.0 else np.nan
                all_are_right = all_are_right and np.isfinite(sums[row])
            first = rows_after(turns, stop - first)
        return all_are_right

    return compiled()(loop)


def _over_scores(of_row: Callable[..., Any]) -> Any:
    """
    Return a loop over rows of scores and cotangents, which do not count where a mask is False.

    A row of cotangents may be one, for all of a row of scores.
    """

    def loop(
        turns: Array | None, x: Array, where: Array | None, u: Array, g: Array, sums: Array
    ) -> bool:
        scores, mask, of_u, of_g = memory_of(x), memory_of(where), memory_of(u), memory_of(g)
        together = max(1, min(TOGETHER, len(x), ENTRIES // scores.length))
        room, found = new_room(scores, together), room_of_slices(np.float64(0.0))
        terms, shifts, all_are_right = memory_of(room), room_of_shifts(real_of(scores)(0.0)), True
        first = rows_after(turns, 0)
        while first < len(x):
            stop = end_of(turns, first, len(x))
            for begin in range(first, stop, together):
                count = min(together, stop - begin)
                reduce_rows(scores, mask, begin, count, terms, shifts, found)
                for i in range(count):
                    row, terms_of_row = begin + i, row_of(terms, i)
                    scale = found[LARGEST, i], found[DIVISOR, i]
                    total = of_row(terms_of_row, mask, of_u, row, scale, terms_of_row, of_g)
                    sums[row] = np.nan if np.isnan(found[BELOW, i]) else total
                    if found[BELOW, i] < 0.0:  # of no support
                        _clear(of_g, row)
                    all_are_right = all_are_right and np.isfinite(sums[row])
            first = rows_after(turns, stop - first)
        room[0, 0] = 0.0  # up to here it must live, to which `terms` does not refer
        return all_are_right

    return compiled()(loop)


@inlined()
def _clear(g: Memory, row: int) -> None:
    for i in range(g.length):
        g[row, i] = 0.0


@inlined()
def _row_of_logsumexp(
    terms: Memory, where: Memory | None, u: Memory, row: int, scale: Any, room: Memory, g: Memory
) -> Any:
    weigh(terms, None, row, (*scale, u[row, 0]), g)
    return np.float64(u[row, 0])


@inlined()
def largest_in(p: Memory, row: int) -> Any:
    """Return the largest probability."""
    n, lanes, found = p.length, lanes_of(p), filled(p, 0.0)
    for start in range(0, n - lanes + 1, lanes):
        found = max(load(p, row, start, found), found)
    if n % lanes:
        places = first_places(n % lanes, found)
        found = max(load_first(p, row, n - n % lanes, places), found)
    return highest_of(found)


@inlined()
def above(p: Memory, row: int, number: float) -> int:
    """Return where an entry above a number is, -1 if nowhere."""
    n, lanes, least, place = p.length, lanes_of(p), filled(p, number), 0
    while place + lanes <= n and not any_of(load(p, row, place, least) > least):
        place += lanes
    while place < n and not p[row, place] > number:
        place += 1
    return place if place < n else -1


def _summing(
    probability: Callable[..., Any], summand: Callable[..., Any], *, is_written: bool
) -> Any:
    """Return the sum over a row of `summand(p, u, number)`, and write the probabilities if they are needed again."""
    where_to, sum_of_four = _there if is_written else _nowhere, four_of(summand)

    @inlined()
    def vector(
        terms: Memory, where: Memory | None, u: Memory, row: int, start: int, numbers: Any
    ) -> Any:
        largest, divisor, number = numbers
        p = probability(load(terms, row, start, largest), None, largest, divisor)
        store(where_to(terms), row, start, p)
        return summand(p, counted(load(u, row, start, p), kept(where, row, start, p)), number)

    @inlined()
    def first(
        terms: Memory, where: Memory | None, u: Memory, row: int, start: int, numbers: Any
    ) -> Any:
        largest, divisor, number = numbers
        places = first_places(terms.length - start, largest)
        p = probability(load_first(terms, row, start, places), None, largest, divisor)
        store_first(where_to(terms), row, start, places, p)
        of_u = counted(load_first(u, row, start, places), kept_first(where, row, start, places))
        return summand(p, of_u, number)

    @inlined()
    def sum_of_row(terms: Memory, where: Memory | None, u: Memory, row: int, numbers: Any) -> float:
        n, lanes, start, repeated = terms.length, lanes_of(terms), 0, filled(terms, numbers)
        sums = filled(terms, 0.0), filled(terms, 0.0)
        while start + 4 * lanes <= n:
            a = vector(terms, where, u, row, start, repeated)
            b = vector(terms, where, u, row, start + lanes, repeated)
            c = vector(terms, where, u, row, start + 2 * lanes, repeated)
            d = vector(terms, where, u, row, start + 3 * lanes, repeated)
            sums = sum_of_four(sums, a, b, c, d)
            start += 4 * lanes
        while start + lanes <= n:
            sums = one_more(sums, vector(terms, where, u, row, start, repeated))
            start += lanes
        if start < n:
            sums = one_more(sums, first(terms, where, u, row, start, repeated))
        total, error = sums
        return np.float64(folded(total)) + np.float64(folded(error))

    return sum_of_row


def four_of(summand: Callable[..., Any]) -> Any:
    """
    Return what adds four vectors to a sum and its error.

    Products with probabilities may be added to each other first: none is larger than the sum that errors are
    measured by. Cotangents alone may nearly cancel.
    """
    return _four_in_turn if summand is second else _four_at_once


@inlined()
def one_more(sums: Any, a: Any) -> tuple[Any, Any]:
    total, error = sums
    return two_sum(total, error, a)


@inlined()
def _four_at_once(sums: Any, a: Any, b: Any, c: Any, d: Any) -> tuple[Any, Any]:
    return one_more(sums, (a + b) + (c + d))


@inlined()
def _four_in_turn(sums: Any, a: Any, b: Any, c: Any, d: Any) -> tuple[Any, Any]:
    return one_more(one_more(one_more(one_more(sums, a), b), c), d)


@inlined()
def counted(u: Any, mask: Any) -> Any:
    return u if mask is None else select(mask, u, 0.0)


@inlined()
def sum_of(a: Memory, row: int) -> Any:
    return _sum_alone(a, None, a, row, (0.0, 0.0, 0.0))


@inlined()
def _there(terms: Memory) -> Memory:
    return terms


@inlined()
def _nowhere(terms: Memory) -> None:
    return None


def _mapping(probability: Callable[..., Any], of: Callable[..., Any]) -> Any:
    """Return a loop that writes `of(p, u, number, sum)` for the entries of two rows."""

    @inlined()
    def write(
        terms: Memory, where: Memory | None, u: Memory, row: int, numbers: Any, g: Memory
    ) -> None:
        n, lanes, like = terms.length, lanes_of(terms), filled(terms, 0.0)
        largest, divisor, number, total = filled(terms, numbers)
        for start in range(0, n - lanes + 1, lanes):
            p = probability(load(terms, row, start, like), None, largest, divisor)
            of_u = counted(load(u, row, start, like), kept(where, row, start, like))
            store(g, row, start, of(p, of_u, number, total))
        if n % lanes:
            start, places = n - n % lanes, first_places(n % lanes, like)
            p = probability(load_first(terms, row, start, places), None, largest, divisor)
            of_u = counted(load_first(u, row, start, places), kept_first(where, row, start, places))
            store_first(g, row, start, places, of(p, of_u, number, total))

    return write


@inlined()
def given(p: Any, mask: Any, largest: Any, divisor: Any) -> Any:
    return p


@inlined()
def _product(p: Any, u: Any, u_dominant: Any) -> Any:
    return p * (u - u_dominant)


@inlined()
def second(p: Any, u: Any, number: Any) -> Any:
    return u


@inlined()
def _of_softmax(p: Any, u: Any, u_dominant: Any, mean: Any) -> Any:
    return p * ((u - u_dominant) - mean)


@inlined()
def _of_log_softmax(p: Any, u: Any, u_dominant: Any, total: Any) -> Any:
    return fused(p, total * -1.0, u)


@inlined()
def of_logsumexp(term: Any, mask: Any, largest: Any, divisor: Any, u: Any) -> Any:
    return quotient(term, None, largest, divisor) * u


_sum_alone = _summing(given, second, is_written=False)
weigh = mapping(of_logsumexp)

# The summand of the sum that a cotangent has of a slice, and the cotangent with it.
FORMULAS = {
    _rules.softmax: (_product, _of_softmax),
    _rules.log_softmax: (second, _of_log_softmax),
}


def passes(summand: Any, of: Any, summing: Any, mapping: Any) -> tuple[Any, Any]:
    """Return what sums over a slice of terms, and what writes the cotangents."""
    if summand is second:  # which needs no probabilities: they are used as they are made
        return summing(quotient, summand, is_written=False), mapping(quotient, of)
    return summing(quotient, summand, is_written=True), mapping(given, of)


PASSES = {rule.pull: passes(*formulas, _summing, _mapping) for rule, formulas in FORMULAS.items()}
PASSES_OF_PAIRS = {
    rule.vjp: (_summing(given, summand, is_written=False), _mapping(given, of))
    for rule, (summand, of) in FORMULAS.items()
}
COTANGENTS = {f: _over_pairs(_row_by(*passes)) for f, passes in PASSES_OF_PAIRS.items()}
PULLS = {f: _over_scores(_row_by(*passes)) for f, passes in PASSES.items()} | {
    _rules.logsumexp.pull: _over_scores(_row_of_logsumexp)
}
