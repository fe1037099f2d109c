"""
NumPy: slices as the contiguous rows of tiles that stay in cache.

One row is computed the same way whatever stands beside it, so its bits depend neither on the batch
nor on the axis, and NumPy's pairwise summation, which covers the contiguous axis only, covers every
axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from softmaxes._arrays import Array, Axes, Call, leaves, mapped, quiet

__all__ = ["by_rows"]

TILE = 1 << 16  # entries; about ten temporaries of a tile live at a time


def by_rows(f: Callable[..., Array], call: Call, *arguments: Any) -> Array:
    """Return f(*arguments), evaluated on tiles of shape (rows, n) along the last axis."""
    k = len(call.axis)
    ndim = max(a.ndim for a in leaves(arguments))
    moved = mapped(partial(_slices_last, axis=call.axis, ndim=ndim), arguments)
    shape = np.broadcast_shapes(*(a.shape for a in leaves(moved)))
    matrices = mapped(partial(_matrix, shape=shape, k=k), moved)
    rows, n = math.prod(shape[:-k]), math.prod(shape[-k:])

    step = max(1, TILE // max(n, 1))
    out: Array = None
    for i in range(0, max(rows, 1), step):
        with quiet(np):
            tile = mapped(partial(_tile, call=call, start=i, stop=i + step), matrices)
            y = f(*tile, axis=(-1,), xp=np)
            out = np.empty((rows, y.shape[-1]), call.dtype) if out is None else out
            out[i : i + step] = y
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


def _tile(a: Array, call: Call, start: int, stop: int) -> Array:
    part = a if a.shape[0] == 1 else a[start:stop]
    return np.ascontiguousarray(call.in_working_precision(part))
