"""
One long row, in parts that threads share: what `_rows` and `_cotangents` do of a row, in phases.

In a phase each thread takes parts, until none are left, and waits for those of the others. Who comes so
late that there is none reads and writes no entry of the row, whose memory may not be there any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from softmaxes import _primals, _rules
from softmaxes._arrays import Array
from softmaxes._backends._numba._cotangents import (
    PASSES,
    PASSES_OF_PAIRS,
    above,
    largest_in,
    sum_of,
    weigh,
)
from softmaxes._backends._numba._numbers import compiled, inlined
from softmaxes._backends._numba._rows import (
    Row,
    copy,
    divide,
    extremes,
    far_sums,
    largest_of,
    near_sums,
    subtract,
)
from softmaxes._backends._numba._shared import in_phases, rows_after, wait_for
from softmaxes._backends._numba._slices import (
    DIVISOR,
    EXCESS,
    LARGEST,
    LOG,
    MAXIMUM,
    finish,
    room_of_slices,
    scale_of,
    two_sum,
    write,
)
from softmaxes._backends._numba._vectors import Memory, filled, first_of, memory_of, part_of
from softmaxes._backends._sums import TILE as PART

__all__ = [
    "FOUND",
    "PART",
    "PHASES",
    "PULLED",
    "VALUES",
    "copied",
    "long_row",
    "long_row_of_cotangents",
    "long_row_pulled",
]

# What is found of a part: of its scores and terms, as in `_rows`; where a probability above 1/2 is, -1 if
# nowhere, and the cotangent there; the sums of products, and of cotangents of scores.
HIGHEST, LOWEST, IS_FAR, BELOW, TOP, PLACE, DOMINANT, TOTAL, REST = range(9)
FOUND = 9


def long_row(
    f: Callable[..., Array],
    x: Array,
    where: Array | None,
    room: Array,
    y: Array,
    excess: Array,
) -> bool | None:
    """Do what the loop over rows does, for one row, with room for its terms."""
    found = np.empty((-(-x.shape[1] // PART), FOUND))
    return in_phases(VALUES[f], len(found), PHASES, x, where, room, y, found, excess)


def long_row_pulled(
    f: Any, x: Array, where: Array | None, u: Array, room: Array, g: Array, sums: Array
) -> bool | None:
    """Do what the loop over rows of scores and cotangents does, for one row, with room for its terms."""
    found = np.empty((-(-x.shape[1] // PART), FOUND))
    return in_phases(PULLED[f], len(found), PHASES, x, where, u, room, g, found, sums)


def long_row_of_cotangents(f: Any, p: Array, u: Array, g: Array, sums: Array) -> bool | None:
    """Do what the loop over rows of probabilities and cotangents does, for one row."""
    found = np.empty((-(-p.shape[1] // PART), FOUND))
    return in_phases(COTANGENTS[f], len(found), PHASES, p, u, g, found, sums)


class _Row(NamedTuple):
    """The memory of a row, or of a part of it, and room for cotangents; None for what is not there."""

    x: Memory
    where: Memory
    terms: Memory
    u: Memory
    y: Memory
    room: Memory


PHASES = 7
NEAR, ENDS, FAR, FIRST, SECOND, THIRD, LAST = range(PHASES)


def _phase(number: int, work: Callable[..., None]) -> Any:
    """Return a phase: `work` for each part of a row, its number, what is found of all, and of the row."""

    @inlined()
    def phase(turns: Array, row: _Row, found: Array, known: Memory, results: Array) -> None:
        counters, parts = turns[number], len(found)
        i = rows_after(counters, 0)
        while i < parts:
            work(_part(row, i * PART), i, found, known, results)
            i = rows_after(counters, 1)
        wait_for(counters, parts)

    return phase


@inlined()
def _part(row: _Row, start: int) -> _Row:
    stop = min(start + PART, row.x.length)
    return _Row(
        part_of(row.x, start, stop),
        part_of(row.where, start, stop),
        part_of(row.terms, start, stop),
        part_of(row.u, start, stop),
        part_of(row.y, start, stop),
        part_of(row.room, start, stop),
    )


# Sums ---------------------------------------------------------------------------------------------


@inlined()
def _near(part: _Row, i: int, found: Array, known: Memory, results: Array) -> None:
    highest, is_far, below, top = near_sums(_scores(part), (0.0, 0.0))
    found[i, HIGHEST], found[i, LOWEST], found[i, IS_FAR] = highest, highest, is_far
    found[i, BELOW], found[i, TOP], found[i, PLACE] = below, top, -1.0


@inlined()
def _scores(part: _Row) -> Row:
    return Row(part.x, part.where, 0, part.terms)


@inlined()
def _ends(part: _Row, i: int, found: Array, known: Memory, results: Array) -> None:
    found[i, HIGHEST], found[i, LOWEST] = extremes(part.x, part.where, 0)


@inlined()
def _far(part: _Row, i: int, found: Array, known: Memory, results: Array) -> None:
    _, scale = _scale(part.x, found)
    _, _, below, top = far_sums(_scores(part), scale)
    found[i, BELOW], found[i, TOP] = below, top


@inlined()
def _scale(x: Memory, found: Array) -> Any:
    """Return the maximum of the row, and the shift of its terms and the power of 2 that raises them."""
    highest, lowest = found[0, HIGHEST], found[0, LOWEST]
    for i in range(1, len(found)):
        highest, lowest = max(highest, found[i, HIGHEST]), min(lowest, found[i, LOWEST])
    maximum = first_of(filled(x, highest))
    return maximum, scale_of(maximum, first_of(filled(x, lowest)))


_near_sums, _find_ends, _far_sums = _phase(NEAR, _near), _phase(ENDS, _ends), _phase(FAR, _far)


@inlined()
def _reduce(turns: Array, row: _Row, found: Array, known: Memory, results: Array) -> None:
    """Write to `known` what is found of the row."""
    _near_sums(turns, row, found, known, results)
    if np.any(found[:, IS_FAR] > 0.0):
        _find_ends(turns, row, found, known, results)
        _far_sums(turns, row, found, known, results)
    below = error = top = 0.0
    for i in range(len(found)):
        below, error = two_sum(below, error, found[i, BELOW])
        below, error = two_sum(below, error, min(top, found[i, TOP]))
        top = max(top, found[i, TOP])
    maximum, scale = _scale(row.x, found)
    write(known, 0, maximum, scale, below + error, top)
    finish(row.x, known, 1, True)
    known[LARGEST, 0] = largest_of(row.x, maximum, scale)


# Values -------------------------------------------------------------------------------------------


def _of_values(result: Callable[..., None], *, has_terms: bool) -> Any:
    """Return a loop over the parts of a row, which ends by `result` of each."""

    @inlined()
    def work(part: _Row, i: int, found: Array, known: Memory, excess: Array) -> None:
        result(part, known)
        if i == 0:
            excess[0, 0] = known[EXCESS, 0]

    end = _phase(LAST, work)

    def loop(
        turns: Array,
        x: Array,
        where: Array | None,
        room: Array,
        y: Array,
        found: Array,
        excess: Array,
    ) -> bool:
        known, terms = room_of_slices(np.float64(0.0)), memory_of(room) if has_terms else None
        row = _Row(memory_of(x), memory_of(where), terms, None, memory_of(y), None)
        _reduce(turns, row, found, known, excess)
        end(turns, row, found, known, excess)
        return not np.isnan(excess[0, 0])

    return compiled()(loop)


@inlined()
def _softmax(part: _Row, known: Memory) -> None:
    divide(part.terms, None, 0, (known[LARGEST, 0], known[DIVISOR, 0]), part.y)


@inlined()
def _log_softmax(part: _Row, known: Memory) -> None:
    subtract(part.x, part.where, 0, (-abs(known[LOG, 0]), known[MAXIMUM, 0]), part.y)


@inlined()
def _logsumexp(part: _Row, known: Memory) -> None:
    part.y[0, 0] = known[MAXIMUM, 0] + known[LOG, 0]


@inlined()
def _excess(part: _Row, known: Memory) -> None:
    part.y[0, 0] = known[EXCESS, 0]


VALUES = {
    _primals.softmax: _of_values(_softmax, has_terms=True),
    _primals.log_softmax: _of_values(_log_softmax, has_terms=False),
    _primals.logsumexp: _of_values(_logsumexp, has_terms=False),
    _primals.excess: _of_values(_excess, has_terms=False),
}


# Cotangents of scores -------------------------------------------------------------------------------


def _of_cotangents(end: Callable[..., None]) -> Any:
    """Return a loop over the parts of a row, which ends by `end` of the row."""

    def loop(
        turns: Array,
        x: Array,
        where: Array | None,
        u: Array,
        room: Array,
        g: Array,
        found: Array,
        sums: Array,
    ) -> bool:
        known, terms = room_of_slices(np.float64(0.0)), memory_of(room)
        row = _Row(memory_of(x), memory_of(where), terms, memory_of(u), memory_of(g), terms)
        _reduce(turns, row, found, known, sums)
        end(turns, row, found, known, sums)
        return bool(np.isfinite(sums[0]))

    return compiled()(loop)


def _pulling(sum_of_products: Callable[..., Any], write: Callable[..., Any]) -> Any:
    """Return what ends a row, as `_row_by` in `_cotangents` does."""

    @inlined()
    def _second(part: _Row, i: int, found: Array, known: Memory, sums: Array) -> None:
        numbers = *_scale_of(known), _u_dominant(found)
        found[i, TOTAL] = sum_of_products(part.terms, part.where, part.u, 0, numbers)

    @inlined()
    def _third(part: _Row, i: int, found: Array, known: Memory, sums: Array) -> None:
        numbers = *_scale_of(known), _u_dominant(found), np.sum(found[:, TOTAL])
        write(part.terms, part.where, part.u, 0, numbers, part.room)
        if found[i, PLACE] >= 0.0:
            part.room[0, int(found[i, PLACE])] = 0.0
        found[i, REST] = sum_of(part.room, 0)

    @inlined()
    def _only(part: _Row, i: int, found: Array, known: Memory, sums: Array) -> None:
        numbers = *_scale_of(known), 0.0, np.sum(found[:, TOTAL])
        write(part.terms, part.where, part.u, 0, numbers, part.y)
        _tell(i, found, known, sums)

    second, third, only = _phase(SECOND, _second), _phase(THIRD, _third), _phase(LAST, _only)

    @inlined()
    def end(turns: Array, row: _Row, found: Array, known: Memory, sums: Array) -> None:
        has_dominant = known[LARGEST, 0] > 0.5 * known[DIVISOR, 0]
        if has_dominant:
            _find_dominant(turns, row, found, known, sums)
        second(turns, row, found, known, sums)
        if has_dominant:
            third(turns, row, found, known, sums)
            _end_dominant(turns, row, found, known, sums)
        else:
            only(turns, row, found, known, sums)

    return end


@inlined()
def _scale_of(known: Memory) -> tuple[float, float]:
    return known[LARGEST, 0], known[DIVISOR, 0]


@inlined()
def _first(part: _Row, i: int, found: Array, known: Memory, sums: Array) -> None:
    place = above(part.terms, 0, 0.5 * known[DIVISOR, 0])
    found[i, PLACE], found[i, DOMINANT] = place, part.u[0, max(place, 0)]


@inlined()
def _last(part: _Row, i: int, found: Array, known: Memory, sums: Array) -> None:
    if found[i, PLACE] >= 0.0:
        part.room[0, int(found[i, PLACE])] = -np.sum(found[:, REST])
    copy(part.room, None, 0, (), part.y)
    _tell(i, found, known, sums)


@inlined()
def _tell(i: int, found: Array, known: Memory, sums: Array) -> None:
    """Write a number that is finite where the cotangents are right."""
    if i == 0:
        has_support = known[EXCESS, 0] >= 0.0
        sums[0] = np.sum(found[:, TOTAL]) if has_support else np.nan


_find_dominant, _end_dominant = _phase(FIRST, _first), _phase(LAST, _last)


@inlined()
def _u_dominant(found: Array) -> float:
    number = 0.0
    for i in range(len(found)):
        number = found[i, DOMINANT] if found[i, PLACE] >= 0.0 else number
    return number


@inlined()
def _of_logsumexp(part: _Row, i: int, found: Array, known: Memory, sums: Array) -> None:
    u = part.u[0, 0]
    weigh(part.terms, None, 0, (known[LARGEST, 0], known[DIVISOR, 0], u), part.y)
    if i == 0:
        sums[0] = known[EXCESS, 0] + u


PULLED = {
    **{f: _of_cotangents(_pulling(*passes)) for f, passes in PASSES.items()},
    _rules.logsumexp.pull: _of_cotangents(_phase(LAST, _of_logsumexp)),
}


# Cotangents of probabilities ---------------------------------------------------------------------


def _of_pairs(end: Callable[..., None]) -> Any:
    """Return a loop over the parts of a row of probabilities and cotangents, which ends by `end` of the row."""

    def loop(turns: Array, p: Array, u: Array, g: Array, found: Array, sums: Array) -> bool:
        known, terms, of_g = room_of_slices(np.float64(0.0)), memory_of(p), memory_of(g)
        row = _Row(terms, None, terms, memory_of(u), of_g, of_g)
        _find_largest(turns, row, found, known, sums)
        known[LARGEST, 0], known[DIVISOR, 0] = np.max(found[:, TOP]), 1.0
        known[EXCESS, 0] = 0.0 if known[LARGEST, 0] > 0.0 else np.nan
        end(turns, row, found, known, sums)
        return bool(np.isfinite(sums[0]))

    return compiled()(loop)


@inlined()
def _largest(part: _Row, i: int, found: Array, known: Memory, sums: Array) -> None:
    found[i, TOP], found[i, PLACE] = largest_in(part.terms, 0), -1.0


_find_largest = _phase(NEAR, _largest)

COTANGENTS = {f: _of_pairs(_pulling(*passes)) for f, passes in PASSES_OF_PAIRS.items()}


@compiled()
def copied(a: Array, y: Array) -> None:
    copy(memory_of(a), None, 0, (), memory_of(y))
