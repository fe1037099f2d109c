"""
NumPy: slices as the contiguous rows of tiles that stay in cache.

One row is computed the same way whatever stands beside it, so its bits depend neither on the batch
nor on the axis nor on the number of threads, and NumPy's pairwise summation, which covers the
contiguous axis only, covers every axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from softmaxes._arrays import Array, Arrays, Axes, Call, leaves, mapped, quiet
from softmaxes._backends import _ordinary
from softmaxes._backends._ordinary import FORMULAS
from softmaxes._backends._threads import each

__all__ = ["by_rows"]

TILE = 1 << 17  # entries; of rows of any kind about ten temporaries of a tile live at a time
TILES = 2  # that a thread does one after the other, in the same memory


def by_rows(f: Callable[..., Array], call: Call, *arguments: Any) -> Array:
    """Return f(*arguments), evaluated on tiles of shape (rows, n) along the last axis."""
    k = len(call.axis)
    ndim = max(a.ndim for a in leaves(arguments))
    moved = mapped(partial(_slices_last, axis=call.axis, ndim=ndim), arguments)
    shape = np.broadcast_shapes(*(a.shape for a in leaves(moved)))
    matrices = mapped(partial(_matrix, shape=shape, k=k), moved)
    rows, n = math.prod(shape[:-k]), math.prod(shape[-k:])

    step = max(1, TILE // max(n, 1))
    tiles = [slice(i, i + step) for i in range(0, max(rows, 1), step)]
    with quiet(np):
        if f in FORMULAS and rows * n and _is_plain(*arguments):
            out = _empty(moved[0].x, matrices[0].x, call, reduces=FORMULAS[f].reduces)
            parts = [tiles[i : i + TILES] for i in range(0, len(tiles), TILES)]
            each(partial(_plain, f, call, matrices[0], out), parts)
        else:
            first = _general(f, call, matrices, tiles[0])
            out = np.empty((rows, first.shape[-1]), call.dtype)
            out[tiles[0]] = first
            each(partial(_fill, f, call, matrices, out), tiles[1:])
    kept = shape[-k:] if out.shape[-1] == n else (1,) * k
    return np.moveaxis(out.reshape(shape[:-k] + kept), range(-k, 0), call.axis)


def _slices_last(a: Array, axis: Axes, ndim: int) -> Array:
    a = a.reshape((1,) * (ndim - a.ndim) + a.shape)
    return np.moveaxis(a, axis, range(-len(axis), 0))


def _matrix(a: Array, shape: tuple[int, ...], k: int) -> Array:
    """Return a as (rows, n), where either is 1 if a does not vary along it."""
    batch = shape[:-k] if math.prod(a.shape[:-k]) != 1 else a.shape[:-k]
    slices = shape[-k:] if math.prod(a.shape[-k:]) != 1 else a.shape[-k:]
    a = np.broadcast_to(a, batch + slices)
    return a.reshape(math.prod(batch), math.prod(slices))


def _tile(a: Array, call: Call, rows: Any) -> Array:
    part = a if a.shape[0] == 1 else a[rows]
    return np.ascontiguousarray(call.in_working_precision(part))


# Rows of any kind ---------------------------------------------------------------------------------


def _general(f: Callable[..., Array], call: Call, matrices: Any, rows: Any) -> Array:
    return f(*mapped(partial(_tile, call=call, rows=rows), matrices), axis=(-1,), xp=np)


def _fill(f: Callable[..., Array], call: Call, matrices: Any, out: Array, rows: Any) -> None:
    out[rows] = _general(f, call, matrices, rows)


# Rows of scores without options, most of them ordinary --------------------------------------------


def _is_plain(arrays: Any, *others: Any) -> bool:
    return not others and all(a is None for a in arrays[2:])  # after the scores and their mask


def _empty(moved: Array, matrix: Array, call: Call, *, reduces: bool) -> Array:
    """Return an array for the results, which lie in memory as x does, as a matrix."""
    if reduces:
        return np.empty((len(matrix), 1), call.dtype)
    alike = moved if np.may_share_memory(moved, matrix) else matrix
    return np.empty_like(alike, call.dtype).reshape(matrix.shape)


def _plain(
    f: Callable[..., Array], call: Call, arrays: Arrays, out: Array, tiles: list[slice]
) -> None:
    rows, n = arrays.x[tiles[0]].shape
    memory = np.empty((2, rows, min(n, TILE)), call.working)
    for tile in tiles:
        _plain_tile(f, call, arrays, out, tile, memory[:, : len(out[tile])])


def _plain_tile(
    f: Callable[..., Array], call: Call, arrays: Arrays, out: Array, rows: slice, memory: Array
) -> None:
    x = _scores(call, arrays, rows)
    top = _ordinary.top(x)
    maximum = x.reshape(-1)[top][:, None]
    terms = _place(x, out[rows])
    for i in range(0, x.shape[-1], TILE):  # more than once for a long row alone
        part = slice(i, i + TILE)
        spare = memory[:, :, : x[:, part].shape[-1]]
        _ordinary.terms(x[:, part], maximum, terms[:, part], *spare)
    y = FORMULAS[f].of(x, terms, maximum, _ordinary.excess(terms, top))
    if not np.may_share_memory(y, out):
        out[rows] = y
    is_ordinary = np.isfinite(maximum[:, 0])
    if not is_ordinary.all():
        _fill(f, call, (arrays,), out, np.arange(len(out))[rows][~is_ordinary])


def _scores(call: Call, arrays: Arrays, rows: slice) -> Array:
    x = _tile(arrays.x, call, rows)
    return x if arrays.where is None else _ordinary.kept(x, _tile(arrays.where, call, rows))


def _place(x: Array, y: Array) -> Array:
    """Return an array like x to work in, which is the result where that is one."""
    fits = y.shape == x.shape and y.dtype == x.dtype and y.flags.c_contiguous
    return y if fits else np.empty_like(x)
