"""
Rows and columns of NumPy in loops that Numba compiles, where `SOFTMAXES_NUMBA=1` asks for them.

NumPy takes a pass over a tile for every operation, and where the processor has no AVX-512 it takes
exponentials in float64 one after the other. Here a term is made in one go, several side by side:

    z + error = x - shift exactly,    k = round(z / log 2),    r = z - k log 2 + error,    term = 2^k e^r

with |r| <= (log 2) / 2, and of the Taylor series of e^r what counts in the dtype. The shift is 0 where
all scores of a slice are so near 0 that none is needed, as in `_moderate`, and the maximum where that is
finite, as in `_ordinary`. Sums have one order, so the bits of a row are those of the same column.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from softmaxes import _primals
from softmaxes._arrays import Array, Call
from softmaxes._backends._moderate import BOUNDS
from softmaxes._backends._numba._columns import COLUMNS
from softmaxes._backends._numba._cotangents import COTANGENTS
from softmaxes._backends._numba._long import of_sum, sum_near
from softmaxes._backends._numba._rows import ROWS, divide, extremes, subtract, sums
from softmaxes._backends._numba._slices import (
    BLOCK,
    LANES,
    Scale,
    log_of_sum,
    of_sums,
    scale_of_row,
)
from softmaxes._backends._sums import FORMULAS
from softmaxes._backends._sums import TILE as PART
from softmaxes._backends._threads import each

__all__ = ["LONGEST", "TILE", "Finished", "columns", "cotangents", "rows", "shortcut", "width"]

TILE = 1 << 16  # entries of rows between which a thread may change
LONGEST = PART  # entries of a column: a longer row is summed in parts
WIDEST = 512  # columns, of which the lanes stay in cache


class Finished(NamedTuple):
    """The results of rows; `are_right` tells of which."""

    y: Array
    are_right: Array

    def result(self, f: Callable[..., Array]) -> Array:
        """Return the results, which are those of f already."""
        return self.y


def shortcut(f: Callable[..., Array], call: Call) -> Callable[[Array], Array | None] | None:
    """Return what takes the few rows of a call to the result, or to None; None where there are none."""
    n = call.shape[-1]
    is_known = f in ROWS and call.axis == (-1,) and np.dtype(call.working) in BOUNDS
    if not is_known or call.dtype != call.working or not 0 < math.prod(call.shape) <= TILE:
        return None
    loop, matrix = ROWS[f], (math.prod(call.shape[:-1]), n)
    reduces = FORMULAS[f].reduces
    place, shape = ((matrix[0], 1), call.reduced) if reduces else (matrix, call.shape)

    def of_few(x: Array) -> Array | None:
        if not x.flags.c_contiguous or x.dtype != call.dtype:
            return None
        y = np.empty(place, call.dtype)
        are_right = loop(x.reshape(matrix), None, y, None)
        return y.reshape(shape)[()] if are_right else None

    return of_few


def rows(f: Callable[..., Array], where: Array | None, x: Array, out: Array | None) -> Finished:
    """Return the results of a formula of `_primals`, in out if there is one."""
    y, excess = np.empty((len(x), 1)) if out is None else out, np.empty((len(x), 1))
    if x.shape[1] <= PART:
        ROWS[f](x, where, y, excess)
    else:
        _of_parts(f, x[0], None if where is None else where[0], y[0], excess[0])
    return Finished(y, ~np.isnan(excess))


def _of_parts(
    f: Callable[..., Array], x: Array, where: Array | None, y: Array, excess: Array
) -> None:
    """Do what the loop over rows does, for one long row, whose parts the threads share."""
    number = x.dtype.type  # compiled code hands numbers over in double precision

    def taken(part: slice) -> tuple[Array, Array | None]:
        return x[part], None if where is None else where[part]

    def room(part: slice) -> tuple[Array | None, Array]:
        return y[part] if f is _primals.softmax else None, np.empty(BLOCK, x.dtype)

    def finish(part: slice) -> None:
        if f is _primals.softmax:
            divide(y[part], divisor, number(largest))
        else:
            subtract(*taken(part), number(maximum), excess[0], y[part])

    def ends(found: list[Any]) -> tuple[Any, Any, tuple[Any, ...]]:
        highest, lowest, others = zip(*found, strict=True)
        return number(np.max(highest)), number(np.min(lowest)), others

    parts = [slice(start, start + PART) for start in range(0, x.size, PART)]
    highest, lowest, totals = ends(each(lambda part: sum_near(*taken(part), *room(part)), parts))
    maximum, excess[0], divisor, largest = of_sum(highest, lowest, math.fsum(totals))
    if np.isnan(excess[0]):
        highest, lowest, are_there = ends(each(lambda part: extremes(*taken(part)), parts))
        maximum, shift, largest, lowering = scale_of_row(highest, lowest, any(are_there))
        scale = Scale(number(maximum), number(shift), number(largest), lowering)
        found = each(lambda part: sums(*taken(part), scale, *room(part)), parts)
        totals, errors, counts = zip(*found, strict=True)
        excess[0], divisor = of_sums(scale, math.fsum(totals + errors), sum(counts))
    if f in (_primals.softmax, _primals.log_softmax):
        each(finish, parts)
    else:
        y[0] = excess[0] if f is _primals.excess else log_of_sum(number(maximum), excess[0])


def columns(f: Callable[..., Array], x: Array, out: Array, part: slice) -> Array:
    """Write the results of some columns to out, and return for which they are right."""
    start, stop, _ = part.indices(x.shape[1])
    excess = np.empty(stop - start)
    COLUMNS[f](x, (start, stop), out, excess)
    return ~np.isnan(excess)


def cotangents(f: Any, p: Array, u: Array) -> tuple[Array, Array]:
    """Return the cotangents by a VJP of `_rules`, and for which rows they are right."""
    g, sums = np.empty_like(p), np.empty(len(p))
    COTANGENTS[f](p, u, g, sums)
    return g, np.isfinite(sums)


def width(n: int) -> int:
    """Return how many columns of so many entries to work at once, so that they stay in cache."""
    return max(LANES, min(WIDEST, PART // n // LANES * LANES))
