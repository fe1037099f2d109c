"""
JAX: a linear map that is transposed by a function of its own.

`jax.custom_derivatives.linear_call` is neither batched nor differentiated by its residuals. This
one is, so that all transformations apply to a derivative that is computed in a cheaper way than
JAX would find by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

__all__ = ["linear"]


def linear(
    f: Callable[[Any, Any], Any], transpose: Callable[[Any, Any], Any], residuals: Any, x: Any
) -> Any:
    """Return f(residuals, x), which is linear in x; transpose(residuals, u) is its cotangent."""
    (r_leaves, r_tree), (x_leaves, x_tree) = jax.tree.flatten(residuals), jax.tree.flatten(x)
    shape = jax.eval_shape(f, residuals, x)
    y_tree, k = jax.tree.structure(shape), len(r_leaves)

    def flat(g: Any, tree: Any) -> Callable[..., list[Any]]:
        def of_leaves(*a: Any) -> list[Any]:
            residuals, x = jax.tree.unflatten(r_tree, a[:k]), jax.tree.unflatten(tree, a[k:])
            return jax.tree.leaves(g(residuals, x))

        return of_leaves

    avals = tuple(jax.core.ShapedArray(a.shape, a.dtype) for a in jax.tree.leaves(shape))
    y = linear_p.bind(
        *r_leaves, *x_leaves, f=flat(f, x_tree), transpose=flat(transpose, y_tree), avals=avals, k=k
    )
    return jax.tree.unflatten(y_tree, y)


def _call(*a: Any, f: Any, **_: Any) -> list[Any]:
    y: list[Any] = f(*a)
    return y


def _avals(*a: Any, avals: Any, **_: Any) -> list[Any]:
    return list(avals)


def _jvp(
    primals: Sequence[Any], tangents: Sequence[Any], *, k: int, **params: Any
) -> tuple[list[Any], list[Any]]:
    y = linear_p.bind(*primals, k=k, **params)
    moving = [i for i in range(k) if type(tangents[i]) is not ad.Zero]

    def of_residuals(*r: Any) -> list[Any]:
        a = list(primals)
        for i, value in zip(moving, r, strict=True):
            a[i] = value
        return _call(*a, **params)

    parts = []
    if moving:
        r, dr = ([a[i] for i in moving] for a in (primals, tangents))
        parts.append(jax.jvp(of_residuals, r, dr)[1])
    if any(type(t) is not ad.Zero for t in tangents[k:]):
        dx = [ad.instantiate_zeros(t) for t in tangents[k:]]
        parts.append(linear_p.bind(*primals[:k], *dx, k=k, **params))
    return y, [sum(terms[1:], terms[0]) for terms in zip(*parts, strict=True)]


def _transpose(
    cts: Sequence[Any], *a: Any, k: int, f: Any, transpose: Any, avals: Any
) -> list[Any]:
    u = [ad.instantiate_zeros(ct) for ct in cts]
    of_x = tuple(x.aval for x in a[k:])
    of_u = linear_p.bind(*a[:k], *u, k=k, f=transpose, transpose=f, avals=of_x)
    return [*[None] * k, *of_u]


def _batched(
    a: Sequence[Any], axes: Sequence[Any], *, k: int, f: Any, transpose: Any, avals: Any
) -> tuple[list[Any], list[int]]:
    (size,) = {x.shape[axis] for x, axis in zip(a, axes, strict=True) if axis is not None}
    # All of x varies, so that its cotangent may.
    x = [
        jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(a[k:], axes[k:], strict=True)
    ]

    def many(g: Any) -> Callable[..., list[Any]]:
        return lambda *a: jax.vmap(g, in_axes=(*axes[:k], *[0] * (len(a) - k)))(*a)

    of_all = tuple(aval.update(shape=(size, *aval.shape)) for aval in avals)
    y = linear_p.bind(*a[:k], *x, k=k, f=many(f), transpose=many(transpose), avals=of_all)
    return y, [0] * len(y)


linear_p = Primitive("softmaxes_linear")
linear_p.multiple_results = True
linear_p.def_impl(_call)
linear_p.def_abstract_eval(_avals)
mlir.register_lowering(linear_p, mlir.lower_fun(_call, multiple_results=True))
ad.primitive_jvps[linear_p] = _jvp
ad.primitive_transposes[linear_p] = _transpose
batching.primitive_batchers[linear_p] = _batched
