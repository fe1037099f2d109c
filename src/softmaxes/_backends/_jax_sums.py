"""
JAX: sums of few numbers, by halves.

On the CPU, XLA adds what is fewer than some thousand numbers one after the other. Where one is large,
and each of the others a little less than half an ulp of it, all others are lost. Of a batch there may be
more, which it hands to a library that adds rows well. So this is a primitive: it learns of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from softmaxes._arrays import Array, Axes

__all__ = ["added"]

FEW = 1 << 12  # numbers, fewer of which XLA does not hand to the library
SHORT = 8  # numbers, of which few are added in turn


def added(a: Array, *, axis: Axes, keepdims: bool) -> Array:
    """Return the sum over axes."""
    is_known = all(isinstance(n, int) for n in a.shape) and a.dtype in (jnp.float32, jnp.float64)
    lengths = [a.shape[i] for i in axis]
    if is_known and keepdims and max(lengths, default=0) > SHORT and prod(a.shape) < FEW:
        return sum_p.bind(a, axes=tuple(i % a.ndim for i in axis))
    return jnp.sum(a, axis=axis, keepdims=keepdims)


def _by_halves(a: Array, *, axes: Sequence[int]) -> Array:
    for axis in axes:
        a = _shortened(a, axis)
    return _as_it_is(a, axes=axes)


def _shortened(a: Array, axis: int) -> Array:
    """Return fewer numbers along an axis, of the same sum."""
    half = a.shape[axis] // 2
    if 2 * half <= SHORT:
        return a
    first, second, last = jnp.split(a, (half, 2 * half), axis)
    return _shortened(jnp.concatenate([first + second, last], axis), axis)


def _as_it_is(a: Array, *, axes: Sequence[int]) -> Array:
    return jnp.sum(a, axis=tuple(axes), keepdims=True)


def _aval(a: Any, *, axes: Sequence[int]) -> Any:
    return ShapedArray(tuple(1 if i in axes else n for i, n in enumerate(a.shape)), a.dtype)


def _transposed(u: Any, a: Any, *, axes: Sequence[int]) -> list[Any]:
    return [ad.Zero(a.aval) if type(u) is ad.Zero else jnp.broadcast_to(u, a.aval.shape)]


def _batched(a: list[Array], batch: list[int], *, axes: Sequence[int]) -> tuple[Array, int]:
    moved = jnp.moveaxis(a[0], batch[0], 0)
    return added(moved, axis=tuple(i + 1 for i in axes), keepdims=True), 0


sum_p = Primitive("softmaxes_sum")
sum_p.def_impl(_by_halves)
sum_p.def_abstract_eval(_aval)
mlir.register_lowering(sum_p, mlir.lower_fun(_as_it_is, multiple_results=False))
mlir.register_lowering(sum_p, mlir.lower_fun(_by_halves, multiple_results=False), platform="cpu")
ad.deflinear2(sum_p, _transposed)
batching.primitive_batchers[sum_p] = _batched
