"""
JAX: the rules as `jax.custom_jvp`, compiled once per kind of call.

From the one JVP rule JAX derives reverse mode, higher orders, vmap, linearize and checkpoint. The
only file, outside the command line, that says `import jax`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from softmaxes._arrays import Array, Arrays, Axes, Call, replaced
from softmaxes._backends import _jax_shared, _jax_sums
from softmaxes._rules import Rule, ingredients

__all__ = ["apply", "compiled", "compiled_with_all"]

# Recompute in the backward pass what follows from the arguments, instead of keeping it.
rematerialised = partial(jax.checkpoint, prevent_cse=False)


def apply(rule: Rule, call: Call, *, squeezed: bool = False) -> Array:
    """Return the function of the call's arrays, compiled, so that small eager calls are fast."""
    given = {name: a for name, a in call.arrays._asdict().items() if a is not None}
    f = _compiled(rule, call.axis, call.working, call.dtype, squeezed)
    return f(given.pop("x"), **given)


def compiled_with_all(f: Callable[[Array], Array]) -> Any:
    """Return a function that checks an array and applies a rule to it, compiled as one."""
    return jax.jit(f)


@cache
def compiled(f: Callable[..., Any], jvp: Callable[..., Array] | None) -> Any:
    """Return a formula, compiled, which JAX differentiates by its rule, or as it stands."""
    primal = partial(f, xp=jnp)
    if jvp is None:
        return jax.jit(primal)
    f = jax.custom_jvp(primal)

    def f_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
        y = f(*primals)
        return y, jvp(y, primals, tangents, xp=jnp)

    f.defjvp(f_jvp)
    return jax.jit(f)


@cache
def _compiled(rule: Rule, axis: Axes, working: Any, dtype: Any, squeezed: bool) -> Any:
    def narrowed(x: Array, **options: Array) -> Array:
        y = _jax_shared.apply(rule, axis, working, dtype, Arrays(x, **options))
        if y is None:
            is_read_as_it_is = working != dtype and not options.keys() - {"where"}
            x = x if is_read_as_it_is else x.astype(working)
            y = _of_rows(rule, axis, Arrays(x, **options)).astype(dtype)
        return jnp.squeeze(y, axis) if squeezed else y

    # A narrow input is half the size of what the rule keeps: keep the input instead.
    return jax.jit(narrowed if working == dtype else rematerialised(narrowed))


def _of_rows(rule: Rule, axis: Axes, arrays: Arrays) -> Array:
    """
    Return the rule's function, with axes of length 1 behind the others moved in front.

    That moves no number, but on the CPU sums over a column take ten times as long as over a row.
    """
    shape = arrays.x.shape
    last = max(a for a in range(-len(shape), 0) if a in axis or shape[a] > 1)
    behind = tuple(range(last + 1, 0))
    front = tuple(range(len(behind)))
    rows = jax.tree.map(lambda a: jnp.moveaxis(a, behind, front), arrays)
    y = differentiable(rule, tuple(a - last - 1 for a in axis))(rows)
    return jnp.moveaxis(y, front, behind)


@cache
def differentiable(rule: Rule, axis: Axes) -> Any:
    """Return the rule's function of arrays, in working precision, as a `jax.custom_jvp`."""

    @jax.custom_jvp
    def f(arrays: Arrays) -> Array:
        y = rule.primal(arrays, axis=axis, xp=PRIMALS)
        return y.astype(jnp.float32) if jnp.finfo(y.dtype).bits < 32 else y

    def tangent(y: Array, arrays: Arrays, tangents: Arrays) -> Array:
        # A barrier keeps the compiler from sharing sums between value and derivative, and with
        # that from summing the value in another order when it is differentiated. One for each
        # array: in a common barrier, an array without a tangent would get one of zeros.
        def value(of: Rule) -> Array:
            if of is rule:
                return jax.lax.optimization_barrier(y)
            return differentiable(of, axis)(jax.tree.map(jax.lax.optimization_barrier, arrays))

        p, d = ingredients(rule, value, tangents)
        dy = rule.jvp(p, d, arrays, tangents, axis=axis, xp=XP)
        return jnp.broadcast_to(jnp.asarray(dy, y.dtype), y.shape)  # 0 where nothing moves it

    def f_jvp(primals: tuple[Arrays], tangents: tuple[Arrays]) -> tuple[Array, Array]:
        (arrays,), (moving,) = primals, tangents
        y = f(arrays)  # f, not the primal: the rule serves its own derivative too
        known = Arrays(*(None if _is_zero(t) else t.astype(y.dtype) for t in moving))
        # Saved for the backward pass: the arguments that `tangent` uses, and nothing else.
        return y, rematerialised(tangent)(y, arrays, known)

    f.defjvp(f_jvp, symbolic_zeros=True)
    return f


def _sum(a: Array, **options: Any) -> Array:
    """
    Return the sum as one number for each slice, in what is made of it forwards and backwards.

    On the CPU the library to which XLA hands sums would write it once for each entry of a short
    row. It leaves selections to XLA, which does not see through a barrier that this one is none.
    """
    total = _jax_sums.added(a, **options)
    if jax.default_backend() != "cpu" or total.shape == a.shape:
        return total
    always = jax.lax.optimization_barrier(jnp.asarray(True))
    return jnp.where(always, total, jnp.zeros_like(total))


PRIMALS, XP = replaced(jnp, sum=_jax_sums.added), replaced(jnp, sum=_sum)


def _is_zero(tangent: Any) -> bool:
    return tangent is None or isinstance(tangent, SymbolicZero)
