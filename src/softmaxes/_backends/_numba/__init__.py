"""
Rows and columns of NumPy in loops that Numba compiles, where `SOFTMAXES_NUMBA=1` asks for them.

NumPy takes a pass over a tile for every operation, and where the processor has no AVX-512 it takes
exponentials in float64 one after the other. Here a term is made in one go, several side by side:

    z + error = x - shift exactly,    k = round(z / log 2),    r = z - k log 2 + error,    term = 2^k e^r

with |r| <= (log 2) / 2, and a polynomial for e^r. The shift is 0 where all scores of a slice are so near
0 that none is needed, as in `_moderate`, and the maximum where that is finite, as in `_ordinary`. One
reading is enough where the shift is 0. For each term t in its turn

    below = below + min(top, t),    top = max(top, t),

so that `below` is the sum of the terms but for the largest, whichever that turns out to be, and S - 1
does not cancel where one term is nearly all of S: it is below / e^(maximum - shift). There are several such
sums side by side, which are brought together at the end. They have one order, so the bits of a row are those
of the same column.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from softmaxes import _primals
from softmaxes._arrays import Array, Arrays, Call, broadcast, last_name
from softmaxes._backends._moderate import BOUNDS
from softmaxes._backends._numba import _frames
from softmaxes._backends._numba._blocks import LONG, blocks_of
from softmaxes._backends._numba._columns_pulled import PULLS_OF_COLUMNS
from softmaxes._backends._numba._columns_valued import COLUMNS
from softmaxes._backends._numba._cotangents import COTANGENTS, PULLS
from softmaxes._backends._numba._frames import handler
from softmaxes._backends._numba._parts import (
    PART,
    PULLED,
    VALUES,
    long_row,
    long_row_of_cotangents,
    long_row_pulled,
)
from softmaxes._backends._numba._rows import ROWS
from softmaxes._backends._numba._shared import on_threads
from softmaxes._backends._numba._tall import TALL, are_tall, tall_columns
from softmaxes._backends._sums import FORMULAS
from softmaxes._backends._threads import allowed

__all__ = [
    "LONGEST",
    "PART",
    "PULLS",
    "TILE",
    "WIDE",
    "columns",
    "cotangents",
    "framed",
    "handler",
    "loop_of",
    "of_columns",
    "reads",
    "rows",
    "shortcut",
    "way_of",
]

TILE = 1 << 17  # entries of rows or columns between which a thread may change, if not more
# Entries of a column of a dtype: a longer row is summed in parts, or narrow results have no place for terms.
LONGEST = {"float32": PART, "float64": PART, "bfloat16": LONG}
# Entries of a row, of which fewer take less time as a column, and rows, of which fewer do not.
SHORT = {np.dtype(np.float32): 24, np.dtype(np.float64): 11}
FEW = 64
_OF_COLUMNS = COLUMNS | PULLS_OF_COLUMNS
WIDE = 2  # columns: even so few take less time than a copy to rows


@cache
def reads(dtype: Any, working: Any) -> bool:
    """Tell whether loops that work in one dtype take another, or the same, as it is in memory."""
    return bool(dtype == working or (_is_half(dtype) and working == np.float32))


@cache
def _is_half(dtype: Any) -> bool:
    return last_name(dtype) == "bfloat16"


def shortcut(f: Callable[..., Array], call: Call) -> Callable[[Array], Array | None] | None:
    """Return what takes the few rows of a call to the result, or to None; None where there are none."""
    n = call.shape[-1]
    is_known = f in ROWS and call.axis == (-1,) and np.dtype(call.working) in BOUNDS
    if not is_known or call.dtype != call.working or not 0 < math.prod(call.shape) <= TILE:
        return None
    reduces, rows = FORMULAS[f].reduces, math.prod(call.shape[:-1])
    place, shape = ((rows, 1), call.reduced) if reduces else ((rows, n), call.shape)
    loop, is_turned = ROWS[f], _are_short((rows, n), call.working)

    def of_few(x: Array) -> Array | None:
        if not x.flags.c_contiguous or x.dtype != call.dtype:
            return None
        y = np.empty(place, call.dtype)
        if is_turned:
            are_right = _in_columns(_OF_COLUMNS[f], (rows, n, 1), x, None, None, y) is None
        else:
            are_right = loop(None, x.reshape(rows, n), None, y, None)
        return y.reshape(shape)[()] if are_right else None

    return of_few


def rows(f: Callable[..., Array], arrays: Arrays, out: Array) -> Array | None:
    """Write the results of a formula of `_primals`; return for which rows they are right, None if for all."""
    x, where = _stored(arrays.x), _mask(arrays)
    working = _working(x)
    y = _place(out, working, np.float64 if FORMULAS[f].reduces else working)
    if _are_short(x.shape, working):
        are_right = _in_columns(_OF_COLUMNS[f], (*x.shape, 1), x, where, None, y)
    else:
        excess = np.empty((len(x), 1))
        if x.shape[1] <= PART:
            are_all = on_threads(ROWS[f], *x.shape, x, where, y, excess)
        else:
            room = _wide(y, x) if f is _primals.softmax else y
            are_all = long_row(f, x, where, room, y, excess)
        are_right = None if are_all else ~np.isnan(excess)
    _put(y, out)
    return are_right


def _are_short(size: tuple[int, ...], working: Any) -> bool:
    """Tell whether the rows of a matrix of this size take less time as matrices of one column."""
    rows, n = size
    return n < SHORT[np.dtype(working)] and rows >= FEW


def _stored(a: Array) -> Array:
    """Return an array as loops take it: bfloat16 as integers, the upper halves of float32."""
    return a.view(np.uint16) if _is_half(a.dtype) else a


def _working(x: Array) -> Any:
    """Return the dtype of the numbers of what loops take."""
    return np.dtype(np.float32) if x.dtype == np.uint16 else x.dtype


def _mask(arrays: Arrays) -> Array | None:
    x, where, *_ = arrays
    return None if where is None else np.ascontiguousarray(broadcast(where, x.shape, np))


def _place(out: Array, working: Any, wide: Any) -> Array:
    """Return where to write results: where they belong, if loops can write there, or in another dtype."""
    is_written = out.flags.c_contiguous and reads(out.dtype, working)
    return _stored(out) if is_written else np.empty(out.shape, wide)


def _wide(y: Array, x: Array) -> Array:
    """Return an array for the terms of x, which are in the place of results that are as wide."""
    return y if y.dtype == _working(x) and y.shape == x.shape else np.empty(x.shape, _working(x))


def _put(y: Array, out: Array) -> None:
    if not np.may_share_memory(y, out):
        out[...] = y


@cache
def loop_of(f: Any) -> Callable[..., Array | None] | None:
    """Return which of these functions writes the results of rows by f."""
    if f in ROWS:
        return rows
    return pulled if f in PULLS else cotangents if f in COTANGENTS else None


def of_columns(f: Callable[..., Array]) -> Callable[..., Array]:
    """Return what writes a function of columns, or the cotangents by the `pull` of a rule."""
    return columns_pulled if f in PULLS else columns


class Way(NamedTuple):
    """How slices lie: their length, and the number of columns, 0 of rows; and whether they are few, or tall."""

    n: int
    columns: int
    are_few: bool
    are_tall: bool


def way_of(
    f: Callable[..., Array],
    size: tuple[int, int],
    slices: int,
    dtypes: tuple[Any, Any],
    threads: int,
) -> Way:
    """Return how so many slices lie, for a loop that works in a dtype, has results in another, and so many threads."""
    n, columns = size
    shape = slices // max(1, columns), n, columns
    return Way(n, columns, slices < FEW, columns > 0 and are_tall(f, shape, dtypes, threads))


def framed(
    f: Callable[..., Array], way: Way, working: Any, dtypes: Sequence[Any]
) -> Callable[[int], Array] | None:
    """
    Return what works calls of XLA, by the address of a frame; None where no loop does.

    The dtypes are those of scores, mask, cotangents and results, None of what there is not. It returns which slices
    are right, if not all are.
    """
    (n, columns, are_few, is_tall), (x, where, u, y) = way, dtypes
    columns = columns or int(_are_short((0 if are_few else FEW, n), working))
    if not all(reads(dtype, working) for dtype in (x, u, y) if dtype is not None):
        return None
    stored = tuple(dtype and _stored_as(dtype) for dtype in dtypes)
    is_pull, arguments = f in PULLS, (where and 1, u and (2 if where else 1), stored)
    run: Callable[[int], Array]
    if is_tall:
        run = _frames.of_tall_columns(TALL[f], *arguments)
    elif columns:
        run = _frames.of_columns(_OF_COLUMNS[f], *arguments)
    elif n <= PART:
        run = _frames.of_rows((PULLS if is_pull else ROWS)[f], *arguments)
    else:
        has_room = y == working or not (is_pull or f is _primals.softmax)
        room = None if has_room else working.type
        run = _frames.of_long_rows((PULLED if is_pull else VALUES)[f], *arguments, room)
    return run


def _stored_as(dtype: Any) -> Any:
    return np.uint16 if _is_half(dtype) else dtype.type


def columns(f: Callable[..., Array], arrays: Arrays, out: Array) -> Array | None:
    """Write the results of the columns of matrices to out; return for which they are right, None if for all."""
    return _in_matrices(f, arrays, None, out)


def columns_pulled(f: Any, arrays: Arrays, u: Array, g: Array) -> Array | None:
    """Write the cotangents of the columns of matrices by the `pull` of a rule, and return what `columns` does."""
    return _in_matrices(f, arrays, u, g)


def _in_matrices(f: Any, arrays: Arrays, u: Array | None, out: Array) -> Array | None:
    x, where, u = (
        a if a is None else _stored(np.ascontiguousarray(a)) for a in (arrays.x, arrays.where, u)
    )
    size, y = arrays.x.shape, _stored(out)
    if are_tall(f, size, (_working(x), y.dtype), allowed()):
        return tall_columns(f, size, x, where, u, y)
    return _in_columns(_OF_COLUMNS[f], size, x, where, u, y)


def _in_columns(
    loop: Any,
    size: tuple[int, ...],
    x: Array,
    where: Array | None,
    u: Array | None,
    y: Array,
) -> Array | None:
    """Call a loop over the columns of matrices of a size; return for which it is right, None if for all."""
    matrices, n, columns = size
    flat = [a if a is None else a.reshape(-1, columns) for a in (x, where, u, y)]
    height_of_u, height_of_y = (0 if a is None else len(a) // matrices for a in flat[2:])
    right = np.ones((matrices, columns), np.bool_)
    sizes = n, height_of_u, height_of_y
    blocks = blocks_of(n, flat[0], flat[3], right)
    are_all = on_threads(loop, blocks, -(-x.size // blocks), sizes, *flat, right)
    return None if are_all else right


def cotangents(f: Any, p: Array, _: Arrays, u: Array, g: Array) -> Array | None:
    """Write the cotangents by a VJP of `_rules`, and return what `rows` does."""
    sums = np.empty(len(p))
    if p.shape[1] <= PART:
        are_all = on_threads(COTANGENTS[f], *p.shape, p, u, g, sums)
    else:
        are_all = long_row_of_cotangents(f, p, u, g, sums)
    return None if are_all else np.isfinite(sums)


def pulled(f: Any, arrays: Arrays, u: Array, out: Array) -> Array | None:
    """Write the cotangents of scores by the `pull` of a rule, and return what `rows` does."""
    x, where, u = _stored(arrays.x), _mask(arrays), _stored(u)
    g = _place(out, _working(x), _working(x))
    if _are_short(x.shape, _working(x)):
        are_right = _in_columns(_OF_COLUMNS[f], (*x.shape, 1), x, where, u, g)
    else:
        sums = np.empty(len(out))
        if x.shape[1] <= PART:
            are_all = on_threads(PULLS[f], *x.shape, x, where, u, g, sums)
        else:
            are_all = long_row_pulled(f, x, where, u, _wide(g, x), g, sums)
        are_right = None if are_all else np.isfinite(sums)
    _put(g, out)
    return are_right
