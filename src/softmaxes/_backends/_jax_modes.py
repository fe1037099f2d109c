"""
JAX: a derivative that is computed in one way forwards and in another backwards.

`jax.custom_jvp` does not tell which of the two is asked for. Forwards, the value and the tangent are
cheapest together. Backwards, the value is needed first, and with it what the cotangents will be made
of; then the tangent is a linear map with a transpose of its own.
`jax.custom_derivatives.linear_call`, which is such a map, is neither batched nor differentiated by
its residuals. These primitives are, so that all transformations of JAX apply.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive, Var
from jax.interpreters import ad, batching, mlir
from jax.interpreters import partial_eval as pe

from softmaxes._arrays import Array

__all__ = ["Modes", "value_and_tangent"]

Leaves = list[Any]


class Modes(NamedTuple):
    """
    How a function of some arrays, and its tangent for the tangents x, are computed.

    `together(arrays, x)` is the pair of both. `first(arrays)` is the value, and what to keep. Then
    `tangent((arrays, kept), x)`, linear in x, is transposed by `transpose((arrays, kept), u)`.
    """

    together: Callable[[Any, Any], tuple[Any, Any]]
    first: Callable[[Any], tuple[Any, Any]]
    tangent: Callable[[Any, Any], Any]
    transpose: Callable[[Any, Any], Any]


def value_and_tangent(modes: Modes, arrays: Any, x: Any) -> tuple[Array, Array]:
    """Return the value, an array, and its tangent for the tangents x."""
    a_leaves, a_tree = _flat(arrays)
    x_leaves, x_tree = _flat(x)
    y, kept = jax.eval_shape(modes.first, arrays)
    (_, kept_tree), k = _flat(kept), len(a_leaves)
    last = k + kept_tree.num_leaves

    def together(*a: Any) -> Leaves:
        return list(modes.together(a_tree.unflatten(a[:k]), x_tree.unflatten(a[k:])))

    def first(*a: Any) -> Leaves:
        return jax.tree.leaves(modes.first(a_tree.unflatten(a)))

    def linear(g: Any, tree: Any, *a: Any) -> Leaves:
        known = a_tree.unflatten(a[:k]), kept_tree.unflatten(a[k:last])
        return jax.tree.leaves(g(known, tree.unflatten(a[last:])))

    tangent = partial(linear, modes.tangent, x_tree)
    transpose = partial(linear, modes.transpose, jax.tree.structure(y))
    aval = jax.core.ShapedArray(y.shape, y.dtype)
    functions = {"together": together, "first": first, "tangent": tangent, "transpose": transpose}
    y, dy = both_p.bind(*a_leaves, *x_leaves, k=k, avals=(aval, aval), **functions)
    return y, dy


def _flat(tree: Any) -> tuple[Leaves, Any]:
    return jax.tree.flatten(tree)


def _moved(f: Callable[..., Leaves], primals: Leaves, tangents: Leaves) -> tuple[Leaves, Leaves]:
    """Return f(*primals) and its tangents; what has no tangent, or a symbolic zero, stays."""
    moving = [i for i, t in enumerate(tangents) if _moves(t)]

    def of_moving(*some: Any) -> Leaves:
        a = list(primals)
        for i, value in zip(moving, some, strict=True):
            a[i] = value
        return f(*a)

    x, v = ([a[i] for i in moving] for a in (primals, tangents))
    found: tuple[Leaves, Leaves] = jax.jvp(of_moving, x, v)
    return found


def _moves(tangent: Any) -> bool:
    return tangent is not None and type(tangent) is not ad.Zero


def _avals(*_: Any, avals: Any, **params: Any) -> Leaves:
    return list(avals)


def _batch_of_x(a: Leaves, axes: Sequence[Any], k: int) -> tuple[int, Leaves]:
    """Return the size of a batch, and the arguments with all of x batched, so that its cotangent is."""
    (size,) = {x.shape[axis] for x, axis in zip(a, axes, strict=True) if axis is not None}
    x = [
        jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(a[k:], axes[k:], strict=True)
    ]
    return size, [*a[:k], *x]


# The value and the tangent ------------------------------------------------------------------------


def _together(*a: Any, together: Any, **_: Any) -> Leaves:
    return together(*a)  # type: ignore[no-any-return]


def _both_jvp(primals: Leaves, tangents: Leaves, **params: Any) -> tuple[Leaves, Leaves]:
    return _moved(params["together"], primals, tangents)


def _both_batched(
    a: Leaves, axes: Sequence[Any], *, k: int, avals: Any, **functions: Any
) -> tuple[Leaves, list[Any]]:
    size, a = _batch_of_x(a, axes, k)
    # The value, and what is kept with it, is one for all where only the tangents are many.
    each = 0 if any(axis is not None for axis in axes[:k]) else None

    def many(f: Any, last: int) -> Callable[..., Leaves]:
        def in_axes(n: int) -> tuple[Any, ...]:
            return (*axes[:k], *[each] * (n - k - last), *[0] * last)

        out_axes = [each, 0] if f is functions["together"] else 0
        return lambda *a: jax.vmap(f, in_axes(len(a)), out_axes)(*a)

    batched = {
        "together": many(functions["together"], len(a) - k),
        "first": functions["first"] if each is None else many(functions["first"], 0),
        "tangent": many(functions["tangent"], len(a) - k),
        "transpose": many(functions["transpose"], 1),
    }
    wide = [aval.update(shape=(size, *aval.shape)) for aval in avals]
    avals = avals[0] if each is None else wide[0], wide[1]
    return both_p.bind(*a, k=k, avals=avals, **batched), [each, 0]


def _both_partly_known(trace: Any, *tracers: Any, k: int, **params: Any) -> Leaves:
    """Compute the value where only tangents are not known: what follows is linear in these."""
    known = [t.pval.get_known() for t in tracers[:k]]
    if any(a is None for a in known) or all(t.is_known() for t in tracers):
        return trace.default_process_primitive(both_p, tracers, {"k": k, **params})  # type: ignore[no-any-return]
    y, *kept = params["first"](*known)
    avals = params["avals"][1:]
    linear = {"f": params["tangent"], "transpose": params["transpose"], "avals": avals}
    a = [*known, *kept, *tracers[k:]]
    return [y, *trace.default_process_primitive(linear_p, a, {"k": k + len(kept), **linear})]


def _both_in_checkpoint(
    saveable: Any, unknown: Sequence[bool], instantiated: Sequence[bool], eqn: Any
) -> tuple[Any, Any, list[bool], list[bool], Leaves]:
    """Compute the value where only tangents are not known, and all of it once more later."""
    k, first = eqn.params["k"], eqn.params["first"]
    value = {"f": lambda *a: first(*a)[:1], "transpose": None, "avals": eqn.params["avals"][:1]}
    now = eqn.replace(
        primitive=linear_p, invars=eqn.invars[:k], outvars=eqn.outvars[:1], params={"k": k, **value}
    )
    unknowns = [any(unknown[:k]), any(unknown)]
    needed = [
        a for a, has in zip(eqn.invars, instantiated, strict=True) if isinstance(a, Var) and not has
    ]
    return None if unknowns[0] else now, eqn, unknowns, [True, True], needed


both_p = Primitive("softmaxes_value_and_tangent")
both_p.multiple_results = True
both_p.def_impl(_together)
both_p.def_abstract_eval(_avals)
mlir.register_lowering(both_p, mlir.lower_fun(_together, multiple_results=True))
ad.primitive_jvps[both_p] = _both_jvp
batching.primitive_batchers[both_p] = _both_batched
pe.custom_partial_eval_rules[both_p] = _both_partly_known
pe.partial_eval_jaxpr_custom_rules[both_p] = _both_in_checkpoint


# The tangent alone --------------------------------------------------------------------------------


def _call(*a: Any, f: Any, **_: Any) -> Leaves:
    return f(*a)  # type: ignore[no-any-return]


def _jvp(primals: Leaves, tangents: Leaves, *, k: int, **params: Any) -> tuple[Leaves, Leaves]:
    y = linear_p.bind(*primals, k=k, **params)
    parts = []
    if any(map(_moves, tangents[:k])):
        still = [None] * (len(primals) - k)
        parts.append(_moved(params["f"], primals, [*tangents[:k], *still])[1])
    if any(map(_moves, tangents[k:])):
        dx = [ad.instantiate_zeros(t) for t in tangents[k:]]
        parts.append(linear_p.bind(*primals[:k], *dx, k=k, **params))
    return y, [sum(terms[1:], terms[0]) for terms in zip(*parts, strict=True)]


def _transpose(cts: Leaves, *a: Any, k: int, f: Any, transpose: Any, avals: Any) -> Leaves:
    u = [ad.instantiate_zeros(ct) for ct in cts]
    of_x = tuple(x.aval for x in a[k:])
    of_u = linear_p.bind(*a[:k], *u, k=k, f=transpose, transpose=f, avals=of_x)
    return [*[None] * k, *of_u]


def _batched(
    a: Leaves, axes: Sequence[Any], *, k: int, f: Any, transpose: Any, avals: Any
) -> tuple[Leaves, list[int]]:
    size, a = _batch_of_x(a, axes, k)

    def many(f: Any) -> Callable[..., Leaves]:
        return lambda *a: jax.vmap(f, in_axes=(*axes[:k], *[0] * (len(a) - k)))(*a)

    of_all = tuple(aval.update(shape=(size, *aval.shape)) for aval in avals)
    y = linear_p.bind(*a, k=k, f=many(f), transpose=many(transpose), avals=of_all)
    return y, [0] * len(y)


linear_p = Primitive("softmaxes_tangent")
linear_p.multiple_results = True
linear_p.def_impl(_call)
linear_p.def_abstract_eval(_avals)
mlir.register_lowering(linear_p, mlir.lower_fun(_call, multiple_results=True))
ad.primitive_jvps[linear_p] = _jvp
ad.primitive_transposes[linear_p] = _transpose
batching.primitive_batchers[linear_p] = _batched
