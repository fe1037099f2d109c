"""
JAX's arrays in the memory of the processor, computed by NumPy's compiled loops, where they lie.

XLA calls NumPy in the midst of what it has compiled. It has no formula to compile then, and between
the arguments and the result it keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from softmaxes import _rules
from softmaxes._arrays import Array, Arrays, Axes, Call, are_single, leaves, mapped
from softmaxes._backends import _numpy
from softmaxes._backends._compiled import loops
from softmaxes._backends._jax_modes import Modes, value_and_tangent
from softmaxes._backends._threads import allowed, beside_threads_that_stay
from softmaxes._backends._xla import DTYPES, HANDLER, arrays_of, numbered, registered
from softmaxes._rules import Rule

__all__ = ["apply"]

MANY = 1 << 16  # entries, from which on a mask is not copied to their shape
DEVICES = 1  # of more, XLA would bring the parts of an array together first


def apply(rule: Rule, axis: Axes, working: Any, dtype: Any, arrays: Arrays) -> Array | None:
    """Return the rule's function of arrays in the dtype `dtype`, or None where NumPy does not compute it."""
    x, where, *options = arrays
    if not _are_shared(rule, axis, arrays):
        return None
    if where is not None and x.size < MANY:
        arrays = Arrays(x, jnp.broadcast_to(where, x.shape), *options)
    to = _axes(x, axis)
    moved = jax.tree.map(lambda a: jnp.moveaxis(a, axis, to), arrays)
    return jnp.moveaxis(differentiable(rule, to, working, dtype)(moved), to, axis)


def _are_shared(rule: Rule, axis: Axes, arrays: Arrays) -> bool:
    x = arrays.x
    is_known = x.size > 0 and np.dtype(x.dtype) in DTYPES.values()
    if not is_known or are_single(x, axis) or not _numpy.has_loops(rule.pull, arrays):
        return False
    return jax.default_backend() == "cpu" and jax.device_count() <= DEVICES


def _axes(x: Array, axis: Axes) -> Axes:
    """Return where to move the axes of slices, for these to be rows or columns that loops are fast on."""
    stays = _numpy.are_rows(x, axis) or _numpy.are_columns(x, axis)
    return axis if stays else tuple(range(-len(axis), 0))


@cache
def differentiable(rule: Rule, axis: Axes, working: Any, dtype: Any) -> Any:
    """Return the rule's function of arrays, computed in `working` and rounded to `dtype`."""
    of_rows = partial(_by_rows, axis=axis, working=working)

    @jax.custom_jvp
    def f(arrays: Arrays) -> Array:
        shape = _reduced(arrays.x.shape, axis) if rule.reduces else arrays.x.shape
        return of_rows(rule.primal, arrays, like=jax.ShapeDtypeStruct(shape, dtype))

    def f_jvp(primals: tuple[Arrays], tangents: tuple[Arrays]) -> tuple[Array, Array]:
        (arrays,), (moving,) = primals, tangents
        if isinstance(moving.x, SymbolicZero):
            return (y := f(arrays)), jnp.zeros_like(y)
        modes = Modes(
            together=lambda arrays, v: (f(arrays), pushed(arrays, v)),
            first=lambda arrays: (f(arrays), ()),
            tangent=lambda known, v: pushed(known[0], v),
            transpose=lambda known, u: pulled(known[0], u),
        )
        y, dy = value_and_tangent(modes, arrays, moving.x)
        return y, dy

    @jax.custom_jvp
    def pulled(arrays: Arrays, u: Array) -> Array:
        return of_rows(rule.pull, arrays, u, like=arrays.x)

    @pulled.defjvp
    def pulled_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
        def formula(arrays: Arrays, u: Array) -> Array:
            p, arrays = probabilities(arrays)
            g = rule.vjp(p, arrays, u.astype(working), axis=axis, xp=jnp)
            return g.astype(primals[0].x.dtype)

        return pulled(*primals), jax.jvp(formula, primals, tangents)[1]

    def pushed(arrays: Arrays, v: Array) -> Array:
        if rule is _rules.softmax and v.dtype == dtype:
            return pulled(arrays, v)  # the Jacobian is symmetric
        p, arrays = probabilities(arrays)
        dy = rule.jvp(p, None, arrays, Arrays(v.astype(working)), axis=axis, xp=jnp)
        return dy.astype(dtype)

    def probabilities(arrays: Arrays) -> tuple[Array, Arrays]:
        wide = arrays._replace(x=arrays.x.astype(working))
        return differentiable(_rules.softmax, axis, working, working)(wide), wide

    f.defjvp(f_jvp, symbolic_zeros=True)
    return f


def _reduced(shape: tuple[int, ...], axis: Axes) -> tuple[int, ...]:
    axes = {a % len(shape) for a in axis}
    return tuple(1 if a in axes else n for a, n in enumerate(shape))


def _by_rows(
    f: Callable[..., Array], *arguments: Any, axis: Axes, working: Any, like: Any
) -> Array:
    """Return f(*arguments), of the shape and dtype of `like`, computed in the dtype `working`."""
    (arrays, *others), template = arguments, mapped(lambda _: 0, arguments)
    kinds = tuple(
        None if a is None else np.dtype(a.dtype)
        for a in (arrays.x, arrays.where, *(others or [None]), like)
    )
    is_whole = arrays.where is None or arrays.where.shape == arrays.x.shape
    size = _numpy.size_of(arrays.x, axis) if is_whole else None
    with beside_threads_that_stay():
        threads = allowed()
    way = None
    if size is not None:
        slices, dtypes = arrays.x.size // size[0], (np.dtype(working), kinds[-1])
        way = loops().way_of(f, size, slices, dtypes, threads)
    handler, number = _target(f, axis, np.dtype(working), kinds, template, way)
    result = jax.ShapeDtypeStruct(like.shape, like.dtype)
    call = jax.ffi.ffi_call(registered(handler), result, vmap_method="broadcast_all")
    numbers = number, threads, *(size or ())
    return call(*leaves(arguments), call=np.array(numbers, np.int64))


@cache
def _target(
    f: Any, axis: Axes, working: Any, kinds: Any, template: Any, way: Any
) -> tuple[int, int]:
    """Return the address of a handler, and the number of what it is to do, or to do with what is left."""
    call = Call("x", Arrays(None), axis, working, kinds[-1], (), (), (), np)
    run = loops().framed(f, way, working, kinds) if way else None

    def work(frame: int) -> None:
        with beside_threads_that_stay():
            are_right = run and run(frame)
            if are_right is not None and not len(are_right):
                return
            *flat, out = arrays_of(frame)
            in_order = iter(flat)
            given = mapped(lambda _: next(in_order), template)
            if are_right is None:
                _numpy.written(f, call, *given, out=out)
            else:
                _numpy.write_left(f, call, are_right, *given, out=out)

    return loops().handler(run, HANDLER) if run else HANDLER, numbered(work)
