"""
NumPy: slices as the contiguous rows of tiles that stay in cache.

One row is computed the same way whatever stands beside it, so its bits depend neither on the batch
nor on the axis nor on the number of threads, and NumPy's pairwise summation, which covers the
contiguous axis only, covers every axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np

from softmaxes._arrays import (
    Array,
    Arrays,
    Axes,
    Call,
    are_single,
    broadcast,
    last_name,
    leaves,
    mapped,
    quiet,
    replaced,
)
from softmaxes._backends import _columns, _cotangents, _moderate, _ordinary, _tempered
from softmaxes._backends._compiled import loops
from softmaxes._backends._moderate import BOUNDS, FEW
from softmaxes._backends._sums import FORMULAS, TILE, Sums, added, kept
from softmaxes._backends._threads import crew, each
from softmaxes._states import State

__all__ = [
    "are_columns",
    "are_rows",
    "as_rows",
    "by_rows",
    "has_loops",
    "has_pull",
    "size_of",
    "write_left",
    "write_rows",
    "written",
]

SMALL = 1 << 17  # entries of a tile of rows of any kind, which has about ten temporaries
COPIED = 2048  # slices, up to which a copy of few entries to rows takes less than NumPy's calls for columns


def by_rows(f: Callable[..., Array], call: Call, *arguments: Any) -> Array:
    """Return f(*arguments), evaluated on tiles of shape (rows, n) along the last axis."""
    if f in FORMULAS and np.dtype(call.working) in BOUNDS and _have_roads(call.axis, *arguments):
        is_plain = arguments[0].temperature is None
        if is_plain and (y := _of_few(f, call, *arguments)) is not None:
            return y
        with crew():
            if is_plain and (y := _of_columns(f, call, *arguments)) is not None:
                return y
            return _in_place(f, call, *arguments)
    if f in _cotangents.FORMULAS and (y := _of_pairs(f, call, *arguments)) is not None:
        return y
    matrices, shape = _matrices(call, arguments)
    k = len(call.axis)
    rows, n = math.prod(shape[:-k]), math.prod(shape[-k:])

    first, *others = _tiles(rows, n)
    with quiet(np):
        y = _general(f, call, matrices, first)
        out = np.empty((rows, y.shape[-1]), call.dtype)
        out[first] = y
        each(partial(_fill, f, call, matrices, out), others, are_heavy=True)
    return _as_they_were(out, shape, call.axis, reduced=out.shape[-1] != n)


def _matrices(call: Call, arguments: Any) -> tuple[Any, tuple[int, ...]]:
    """Return arrays as matrices of slices, and the shape of all with the slices last."""
    ndim = max(a.ndim for a in leaves(arguments))
    moved = mapped(partial(_slices_last, axis=call.axis, ndim=ndim), arguments)
    shape = np.broadcast_shapes(*(a.shape for a in leaves(moved)))
    return mapped(partial(_matrix, shape=shape, k=len(call.axis)), moved), shape


def _slices_last(a: Array, axis: Axes, ndim: int) -> Array:
    if a.ndim < ndim:
        a = a.reshape((1,) * (ndim - a.ndim) + a.shape)
    last = tuple(range(-len(axis), 0))
    return a if axis == last else np.moveaxis(a, axis, last)


def _as_they_were(out: Array, shape: tuple[int, ...], axis: Axes, *, reduced: bool) -> Array:
    """Return a matrix of results with the axes of the scores, whose shape with slices last is given."""
    last = tuple(range(-len(axis), 0))
    out = out.reshape(shape[: -len(axis)] + (1,) * len(axis) if reduced else shape)
    return out if axis == last else np.moveaxis(out, last, axis)


def _matrix(a: Array, shape: tuple[int, ...], k: int) -> Array:
    """Return a as (rows, n), where either is 1 if a does not vary along it."""
    if a.shape != shape:
        batch = shape[:-k] if math.prod(a.shape[:-k]) != 1 else a.shape[:-k]
        slices = shape[-k:] if math.prod(a.shape[-k:]) != 1 else a.shape[-k:]
        a = broadcast(a, batch + slices, np)
    return a.reshape(math.prod(a.shape[:-k]), math.prod(a.shape[-k:]))


def _tiles(rows: int, n: int, entries: int = SMALL) -> list[slice]:
    if rows * n <= entries:
        return [slice(rows)]
    step = max(1, entries // n)
    return [slice(i, i + step) for i in range(0, rows, step)]


def _parts(x: Array, call: Call) -> list[slice]:
    """Return tiles of rows; one of all for compiled loops, where they read x as it is."""
    rows, n = x.shape
    if loops() is None:
        return _tiles(rows, n, TILE)
    is_read = loops().reads(x.dtype, call.working) and x.flags.c_contiguous
    fits = is_read and n <= loops().PART
    return [slice(None)] if fits else _tiles(rows, n, loops().TILE)


def _left(are_right: Array, n: int) -> list[Array]:
    """Return the indices of the slices of n entries that are not right, as many at once as a tile has."""
    left = np.flatnonzero(~are_right)
    return [left[some] for some in _tiles(len(left), n) if len(left)]


def _tile(a: Array, call: Call, rows: Any) -> Array:
    return np.ascontiguousarray(call.in_working_precision(_taken(a, rows)))


def _taken(a: Array, rows: Any) -> Array:
    """Return some rows of a matrix, which may have but one for all."""
    return a if len(a) == 1 else a[rows]


# Rows of any kind ---------------------------------------------------------------------------------


def _sum(a: Array, *, axis: Axes, keepdims: bool) -> Array:
    """Return the sum of rows of real numbers by halves, and that of integers as NumPy's."""
    if a.dtype.kind != "f" or a.size == 0 or not keepdims:
        return np.sum(a, axis=axis, keepdims=keepdims)
    return added(np.ascontiguousarray(a)).astype(a.dtype, copy=False)


NP = replaced(np, sum=_sum)


def _general(f: Callable[..., Array], call: Call, matrices: Any, rows: Any) -> Array:
    tiles = mapped(partial(_tile, call=call, rows=rows), matrices)
    if f not in _cotangents.FORMULAS or (found := _cotangents.of_rows(f, *tiles)) is None:
        return f(*tiles, axis=(-1,), xp=NP)
    _write_left(f, call, tiles, *found)
    return found[0]


def _write_left(
    f: Callable[..., Array], call: Call, tiles: Any, y: Array, are_right: Array | None
) -> None:
    """Write the results of the rows for which they are not right, by the formula as it stands."""
    if are_right is None:  # they are for all
        return
    for rows in _left(are_right, leaves(tiles)[0].shape[-1]):
        y[rows] = f(*mapped(partial(_tile, call=call, rows=rows), tiles), axis=(-1,), xp=NP)


def _fill(f: Callable[..., Array], call: Call, matrices: Any, out: Array, rows: Any) -> None:
    out[rows] = _general(f, call, matrices, rows)


# Rows of scores without options, most of them ordinary --------------------------------------------


def _have_roads(axis: Axes, arrays: Any, *state: Any) -> bool:
    """Tell whether there are scores, and beside them and their mask nothing but one temperature of each slice."""
    _, _, temperature, *others = arrays
    if arrays.x.size == 0 or any(a is not None for a in others):
        return False
    if loops() is None and not state and are_single(arrays.x, axis):
        return False  # the formulas see that there is nothing to compute
    return temperature is None or (not state and all(temperature.shape[a] == 1 for a in axis))


def _are_plain(arrays: Arrays, *_: Any) -> bool:
    return arrays.x.size > 0 and all(
        a is None for a in arrays[2:]
    )  # after the scores and their mask


def _of_few(f: Callable[..., Array], call: Call, arrays: Arrays, *state: State) -> Array | None:
    """Return the result where there is little to compute; None where there is more."""
    x, where, *_ = arrays
    if x.size > FEW or state or loops() is not None:
        return None
    if not x.dtype == call.dtype == call.working:
        return None
    moved = _slices_last(x, call.axis, x.ndim)
    lies_in_rows, n = moved.flags.c_contiguous, math.prod(x.shape[a] for a in call.axis)
    if not lies_in_rows and x.size > COPIED * n:
        return None
    if where is not None:
        where = _slices_last(broadcast(where, x.shape, np), call.axis, x.ndim)
    rows = mapped(partial(_matrix, shape=moved.shape, k=len(call.axis)), (moved, where))
    y = _moderate.of_few(f, *mapped(np.ascontiguousarray, rows))
    if y is None:
        return None
    y = _as_they_were(y, moved.shape, call.axis, reduced=FORMULAS[f].reduces)
    if lies_in_rows or FORMULAS[f].reduces:
        return y
    out = np.empty_like(x)  # in memory as x
    out[...] = y
    return out


def _of_columns(f: Callable[..., Array], call: Call, arrays: Arrays, *state: State) -> Array | None:
    """Return the result where slices lie across wide rows of memory; None where they do not."""
    x, where, *_ = arrays
    is_read = call.dtype == call.working or (loops() and loops().reads(call.dtype, call.working))
    if x.dtype != call.dtype or not is_read or state:
        return None
    if not x.flags.c_contiguous:
        if not x.flags.f_contiguous or len(call.axis) > 1:
            return None
        turned = Arrays(x.T, where if where is None else np.broadcast_to(where, x.shape).T)
        y = _of_columns(f, call._replace(axis=(-1 - call.axis[0] - x.ndim,)), turned)
        return y if y is None else y.T
    by = loops() or _columns
    if (size := _as_columns(x, call.axis)) is None or (where is not None and by is _columns):
        return None
    reduced = [1 if a - x.ndim in call.axis else n for a, n in enumerate(x.shape)]
    out = np.empty(reduced if FORMULAS[f].reduces else x.shape, call.dtype)
    _write_columns(by.columns, f, call, size, arrays, out=out)
    return out


def _as_columns(x: Array, axis: Axes) -> tuple[int, int, int] | None:
    """Return the shape of matrices whose columns are the slices; None where their rows are not so wide."""
    matrices, n, columns = size = _across(x, axis)
    are_adjacent = axis == tuple(range(axis[0], axis[-1] + 1))
    by = loops() or _columns
    is_taken = 1 < n <= by.LONGEST.get(last_name(x.dtype), 0) and columns >= by.WIDE
    return size if is_taken and are_adjacent and matrices > 0 else None


def _across(x: Array, axis: Axes) -> tuple[int, int, int]:
    """Return how many entries are before, along and behind adjacent axes."""
    first, stop = x.ndim + axis[0], x.ndim + axis[-1] + 1
    before, along, behind = x.shape[:first], x.shape[first:stop], x.shape[stop:]
    return math.prod(before), math.prod(along), math.prod(behind)


def _write_columns(
    loop: Callable[..., Array],
    f: Callable[..., Array],
    call: Call,
    size: tuple[int, int, int],
    *arguments: Any,
    out: Array,
) -> None:
    """Write the results of columns by `loop(f, *arguments, out)`, which tells of which they are right."""
    matrices, y = _as_matrices(size, *arguments, out=out)
    with quiet(np):
        are_right = loop(f, *matrices, y)
        if are_right is not None and not are_right.all():
            fill = _plain if f in FORMULAS else _fill
            _write_columns_left(partial(fill, f, call), matrices, y, are_right)


def _as_matrices(
    size: tuple[int, int, int], arrays: Arrays, *others: Array, out: Array
) -> tuple[Any, Array]:
    """Return arrays, and the place of the results, as matrices of columns."""
    given = mapped(lambda a: np.broadcast_to(a, arrays.x.shape).reshape(size), arrays)
    *flat, y = (a.reshape(size[0], -1, size[2]) for a in (*others, out))
    return (given, *flat), y


def _write_columns_left(
    fill: Callable[[Any, Array, slice], None], matrices: Any, out: Array, are_right: Array
) -> None:
    """Write the results of the columns for which they are not right, by `fill` of them as rows."""

    def work(part: tuple[int, Array]) -> None:
        matrix, left = part
        rows = np.empty((len(left), out.shape[1]), out.dtype)
        fill(mapped(lambda a: a[matrix][:, left].T, matrices), rows, slice(None))
        out[matrix][:, left] = rows.T

    n = matrices[0].x.shape[1]
    each(work, [(i, left) for i in range(len(out)) for left in _left(are_right[i], n)])


def _in_place(f: Callable[..., Array], call: Call, arrays: Arrays, *state: State) -> Array:
    reduces = FORMULAS[f].reduces
    moved = _slices_last(arrays.x, call.axis, arrays.x.ndim)
    matrices, _ = _matrices(call, (arrays, *state))
    x = matrices[0].x
    out = _empty(moved, x, call, reduces=reduces)
    work = partial(_plain, f, call, matrices, out)
    parts = _parts(x, call) if _have_loop(*matrices) else _tiles(len(x), x.shape[-1], TILE)
    with np.errstate(all="ignore"):
        each(work, parts, are_heavy=True, have_parts=x.shape[-1] > TILE)
    return _as_they_were(out, moved.shape, call.axis, reduced=reduces)


def _have_loop(arrays: Arrays, *state: State) -> bool:
    return loops() is not None and not state and arrays.temperature is None


def _empty(moved: Array, matrix: Array, call: Call, *, reduces: bool) -> Array:
    """Return an array for the results, which lie in memory as x does, as a matrix."""
    if reduces:
        return np.empty((len(matrix), 1), call.dtype)
    alike = moved if np.may_share_memory(moved, matrix) else matrix
    return np.empty_like(alike, call.dtype).reshape(matrix.shape)


def _plain(f: Callable[..., Array], call: Call, matrices: Any, out: Array, rows: Any) -> None:
    """Write the results of some rows, of each by the first of the roads that is right for it."""
    if _have_loop(*matrices):
        _by_loops(loops().rows, f, call, matrices, out, rows)
        return
    x, where, roads = _roads(f, call, matrices, rows)
    for road in roads:
        found = road(x, None if FORMULAS[f].reduces else _place(x, out[rows]))
        count = np.count_nonzero(found.are_right)
        if count:
            if where is not None and FORMULAS[f].has_scores:
                found = found._replace(x=kept(x, where))
            y = found.result(f)
            if not np.may_share_memory(y, out):
                out[rows] = y
            if count == len(x):
                return
            are_left = ~found.are_right[:, 0]
            rows, x = np.arange(len(out))[rows][are_left], x[are_left]
            where = where if where is None else where[are_left]
        if where is not None:
            x, where = kept(x, where), None
    _fill(f, call, matrices, out, rows)


def _roads(
    f: Callable[..., Array], call: Call, matrices: Any, rows: Any
) -> tuple[Array, Array | None, tuple[Callable[..., Sums], ...]]:
    """Return some rows, the mask that the first of the roads takes, and the roads."""
    arrays, *state = matrices
    x = np.ascontiguousarray(arrays.x[rows], call.working)
    formula, where = FORMULAS[f], arrays.where
    if where is not None:
        where = np.broadcast_to(_tile(where, call, rows), x.shape)
    is_simpler = formula.has_scores and call.working not in _moderate.STALLS
    cut = 0
    if where is not None and (state or is_simpler or arrays.temperature is not None):
        cut = x.size - int(np.count_nonzero(where))
        x, where = kept(x, where), None
    if state:
        given = mapped(partial(_tile, call=call, rows=rows), state[0])
        return x, None, (partial(_ordinary.sums_given, given, has_terms=formula.has_terms),)
    if arrays.temperature is not None:
        temperature = _tile(arrays.temperature, call, rows)
        return x, None, (partial(_tempered.sums, temperature, cut=cut),)
    roads = partial(_moderate.sums, cut=cut), _ordinary.sums
    return x, where, roads if where is None else (partial(_moderate.sums_of_kept, where), *roads)


def _place(x: Array, y: Array) -> Array:
    """Return an array like x to work in, which is the result where that is one."""
    fits = y.shape == x.shape and y.dtype == x.dtype and y.flags.c_contiguous
    return y if fits else np.empty_like(x)


# Rows in compiled loops ---------------------------------------------------------------------------


def _by_loops(
    loop: Callable[..., Array],
    f: Callable[..., Array],
    call: Call,
    matrices: Any,
    out: Array,
    rows: slice,
) -> None:
    """Write the results of some rows by `loop(f, *arguments, out)`, which tells of which they are right."""
    tiles, place = mapped(partial(_read, call=call, rows=rows), matrices), out[rows]
    _write_left(f, call, tiles, place, loop(f, *tiles, place))


def _read(a: Array, call: Call, rows: slice) -> Array:
    """Return some rows as loops read them."""
    part = _taken(a, rows)
    is_read = loops().reads(part.dtype, call.working)
    return np.ascontiguousarray(part if is_read else call.in_working_precision(part))


def _of_pairs(
    f: Callable[..., Array], call: Call, p: Array, arrays: Arrays, u: Array
) -> Array | None:
    """Return the cotangents from probabilities in rows of memory; None where they are not."""
    is_known = loops() is not None and np.dtype(call.working) in BOUNDS
    if not is_known or not p.dtype == u.dtype == call.dtype == call.working:
        return None
    if not are_rows(p, call.axis) or not _cotangents.are_pairs(f, p, arrays, u):
        return None
    out = np.empty(p.shape, call.dtype)
    _write(loops().cotangents, f, call, out, p, Arrays(None), u)
    return out


def as_rows(
    f: Callable[..., Array], call: Call, *arguments: Any
) -> tuple[int, tuple[int, ...]] | None:
    """
    Return the number of rows, and the shape of the result, where a loop reads all arrays as rows of memory.

    It is None where it does not, or where an option asks for more.
    """
    first, *others = leaves(arguments)
    known = _rows_of(f, call.axis, first.shape, *(a.shape for a in others))
    if known is None or not all(_is_read(a, call) for a in (first, *others)):
        return None
    is_pair = f in _cotangents.FORMULAS
    is_plain = _cotangents.are_pairs(f, *arguments) if is_pair else _are_plain(*arguments)
    return known if is_plain else None


def write_rows(f: Callable[..., Array], call: Call, rows: int, y: Array, *arguments: Any) -> None:
    """Write f(*arguments) to y by a loop, in few calls."""
    matrices, out = mapped(lambda a: a.reshape(rows, -1), (arguments, y))
    are_right = loops().loop_of(f)(f, *matrices, out)
    if are_right is not None:
        with quiet(np):
            _write_left(f, call, matrices, out, are_right)


@lru_cache(maxsize=1024)
def _rows_of(
    f: Any, axis: Axes, shape: tuple[int, ...], *others: tuple[int, ...]
) -> tuple[int, tuple[int, ...]] | None:
    """Return how many rows contiguous arrays have, and the shape of f of them; None if no loop takes them all."""
    k = len(axis)
    if loops() is None or loops().loop_of(f) is None or axis != tuple(range(-k, 0)):
        return None
    rows, n, reduced = math.prod(shape[:-k]), math.prod(shape[-k:]), (*shape[:-k], *(1,) * k)
    fits = rows * n > 0 and (n <= loops().PART or rows == 1)
    if not fits or any(a not in (shape, reduced) for a in others):
        return None
    return rows, reduced if f in FORMULAS and FORMULAS[f].reduces else shape


def _is_read(a: Array, call: Call) -> bool:
    return bool(a.flags.c_contiguous) and a.dtype in (call.working, np.bool_)


def has_pull(f: Callable[..., Array], axis: Axes, arrays: Arrays) -> bool:
    """Tell whether there is a loop for a `pull` of these scores: without options, in rows or columns of memory."""
    x = arrays.x
    return has_loops(f, arrays) and (are_rows(x, axis) or _as_columns(x, axis) is not None)


def has_loops(f: Callable[..., Array], arrays: Arrays) -> bool:
    """Tell whether there are loops for a `pull` of these scores, if they lie in rows of memory."""
    _, _, *options = arrays
    return loops() is not None and f in loops().PULLS and all(a is None for a in options)


def are_columns(x: Array, axis: Axes) -> bool:
    """Tell whether slices are columns of memory that a loop takes."""
    return _as_columns(x, axis) is not None


def are_rows(x: Array, axis: Axes) -> bool:
    """Tell whether slices are rows of memory, if the array is contiguous."""
    across = [a in axis for a in range(-x.ndim, 0) if x.shape[a] > 1]
    return 0 not in x.shape and across == sorted(across)


def written(
    f: Callable[..., Array], call: Call, arrays: Arrays, *others: Array, out: Array
) -> None:
    """Write f(arrays, *others) of slices that are rows or columns of memory, a function or the `pull` of a rule."""
    if are_rows(arrays.x, call.axis):
        _write(loops().loop_of(f), f, call, out, arrays, *others)
    else:
        size = _across(arrays.x, call.axis)
        _write_columns(loops().of_columns(f), f, call, size, arrays, *others, out=out)


def write_left(
    f: Callable[..., Array], call: Call, are_right: Array, *arguments: Any, out: Array
) -> None:
    """Write those results of `written` that are not right, by the formula as it stands."""
    x = arguments[0].x
    with quiet(np):
        if are_rows(x, call.axis):
            matrices, _ = _matrices(call, arguments)
            y = out.reshape(len(matrices[0].x), -1)
            _write_left(f, call, matrices, y, are_right)
        else:
            matrices, y = _as_matrices(_across(x, call.axis), *arguments, out=out)
            _write_columns_left(partial(_fill, f, call), matrices, y, are_right)


def size_of(x: Array, axis: Axes) -> tuple[int, int]:
    """Return the length of slices that are rows or columns of memory, and the number of columns, 0 of rows."""
    if are_rows(x, axis):
        return math.prod(x.shape[a] for a in axis), 0
    _, n, columns = _across(x, axis)
    return n, columns


def _write(
    loop: Callable[..., Array], f: Callable[..., Array], call: Call, out: Array, *arguments: Any
) -> None:
    """Write the results of rows of memory by a loop."""
    matrices, _ = _matrices(call, arguments)
    x, *_ = leaves(matrices)
    work = partial(_by_loops, loop, f, call, matrices, out.reshape(len(x), -1))
    with quiet(np):
        each(work, _parts(x, call))
