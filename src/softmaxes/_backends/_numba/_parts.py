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
    dominant_of,
    largest_of_row,
    sum_of_second,
)
from softmaxes._backends._numba._numbers import compiled, inlined
from softmaxes._backends._numba._rows import (
    divide,
    extremes,
    far_sums,
    keep,
    largest_of,
    near_sums,
    scale,
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

__all__ = ["PART", "long_row", "long_row_pulled"]

# What is found of a part: of its scores and terms, as in `_rows`; where a probability above 1/2 is, -1 if
# nowhere, and the cotangent there; the sums of products, and of cotangents of scores.
HIGHEST, LOWEST, IS_FAR, BELOW, TOP, PLACE, DOMINANT, TOTAL, REST = range(9)
FOUND = 9


def long_row(
    f: Callable[..., Array], x: Array, where: Array | None, y: Array, excess: Array
) -> None:
    """Do what the loop over rows does, for one row."""
    found = np.empty((-(-x.shape[1] // PART), FOUND))
    in_phases(VALUES[f], len(found), PHASES, x, where, y, found, excess)


def long_row_pulled(f: Any, x: Array, where: Array | None, u: Array, g: Array, sums: Array) -> None:
    """Do what the loop over rows of scores and cotangents does, for one row."""
    found = np.empty((-(-x.shape[1] // PART), FOUND))
    kept = u if where is None or u.shape[1] == 1 else np.empty_like(x)
    in_phases(PULLED[f], len(found), PHASES, x, where, u, kept, g, found, sums)


class _Row(NamedTuple):
    """The memory of a row, or of a part of it; None for what is not there."""

    x: Memory
    where: Memory
    terms: Memory
    u: Memory
    kept: Memory
    y: Memory


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
        part_of(row.kept, start, stop),
        part_of(row.y, start, stop),
    )


# Sums ---------------------------------------------------------------------------------------------


@inlined()
def _near(part: _Row, i: int, found: Array, known: Memory, results: Array) -> None:
    highest, is_far, below, top = near_sums(part.x, part.where, 0, (0.0, 0.0), part.terms)
    found[i, HIGHEST], found[i, LOWEST], found[i, IS_FAR] = highest, highest, is_far
    found[i, BELOW], found[i, TOP] = below, top


@inlined()
def _ends(part: _Row, i: int, found: Array, known: Memory, results: Array) -> None:
    found[i, HIGHEST], found[i, LOWEST] = extremes(part.x, part.where, 0)


@inlined()
def _far(part: _Row, i: int, found: Array, known: Memory, results: Array) -> None:
    _, scale = _scale(part.x, found)
    _, _, below, top = far_sums(part.x, part.where, 0, scale, part.terms)
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
    finish(known, 1)
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
        turns: Array, x: Array, where: Array | None, y: Array, found: Array, excess: Array
    ) -> None:
        of_y, known = memory_of(y), room_of_slices(np.float64(0.0))
        terms = of_y if has_terms else None
        row = _Row(memory_of(x), memory_of(where), terms, None, None, of_y)
        _reduce(turns, row, found, known, excess)
        end(turns, row, found, known, excess)

    return compiled()(loop)


@inlined()
def _softmax(part: _Row, known: Memory) -> None:
    divide(part.terms, None, 0, known[LARGEST, 0], known[DIVISOR, 0], part.y)


@inlined()
def _log_softmax(part: _Row, known: Memory) -> None:
    subtract(part.x, part.where, 0, -known[LOG, 0], known[MAXIMUM, 0], part.y)


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
        kept: Array,
        g: Array,
        found: Array,
        sums: Array,
    ) -> None:
        of_g, known = memory_of(g), room_of_slices(np.float64(0.0))
        row = _Row(memory_of(x), memory_of(where), of_g, memory_of(u), memory_of(kept), of_g)
        _reduce(turns, row, found, known, sums)
        end(turns, row, found, known, sums)

    return compiled()(loop)


def _pulling(sum_of_products: Callable[..., Any], write: Callable[..., Any]) -> Any:
    """Return what ends a row, as `_row_by` in `_cotangents` does."""

    @inlined()
    def _first(part: _Row, i: int, found: Array, known: Memory, sums: Array) -> None:
        divide(part.y, None, 0, known[LARGEST, 0], known[DIVISOR, 0], part.y)
        _keep(part.u, part.where, part.kept)
        found[i, PLACE] = dominant_of(part.y, 0) if largest_of_row(part.y, 0) > 0.5 else -1.0
        found[i, DOMINANT] = part.kept[0, int(max(found[i, PLACE], 0.0))]

    @inlined()
    def _second(part: _Row, i: int, found: Array, known: Memory, sums: Array) -> None:
        found[i, TOTAL] = sum_of_products(part.y, part.kept, 0, _u_dominant(found))

    @inlined()
    def _third(part: _Row, i: int, found: Array, known: Memory, sums: Array) -> None:
        write(part.y, part.kept, 0, _u_dominant(found), np.sum(found[:, TOTAL]), part.y)
        place = int(found[i, PLACE])
        if place >= 0:
            part.y[0, place] = 0.0
        found[i, REST] = sum_of_second(part.y, part.y, 0, 0.0)

    @inlined()
    def _last(part: _Row, i: int, found: Array, known: Memory, sums: Array) -> None:
        place = int(found[i, PLACE])
        if place >= 0:
            part.y[0, place] = -np.sum(found[:, REST])
        if i == 0:
            sums[0] = known[EXCESS, 0] + np.sum(found[:, TOTAL])

    first, second = _phase(FIRST, _first), _phase(SECOND, _second)
    third, last = _phase(THIRD, _third), _phase(LAST, _last)

    @inlined()
    def end(turns: Array, row: _Row, found: Array, known: Memory, sums: Array) -> None:
        first(turns, row, found, known, sums)
        second(turns, row, found, known, sums)
        third(turns, row, found, known, sums)
        last(turns, row, found, known, sums)

    return end


@inlined()
def _keep(u: Memory, where: Memory | None, kept: Memory) -> None:
    """Write the cotangents that count; where there is no mask, they are there."""
    if where is not None:
        keep(u, where, 0, 0.0, 0.0, kept)


@inlined()
def _u_dominant(found: Array) -> float:
    number = 0.0
    for i in range(len(found)):
        number = found[i, DOMINANT] if found[i, PLACE] >= 0.0 else number
    return number


@inlined()
def _of_logsumexp(part: _Row, i: int, found: Array, known: Memory, sums: Array) -> None:
    u = part.u[0, 0]
    divide(part.y, None, 0, known[LARGEST, 0], known[DIVISOR, 0], part.y)
    scale(part.y, None, 0, u, 0.0, part.y)
    if i == 0:
        sums[0] = known[EXCESS, 0] + u


PULLED = {
    **{f: _of_cotangents(_pulling(*passes)) for f, passes in PASSES.items()},
    _rules.logsumexp.pull: _of_cotangents(_phase(LAST, _of_logsumexp)),
}
