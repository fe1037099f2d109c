"""
The seam: what one library needs beyond the array API standard.

`called`, `value` and `apply` evaluate a function with its derivatives attached, `evaluate` any formula
alone, and `compute` one without a call, entry by entry. A backend knows no function; each but that of
NumPy is imported when the first of its arrays arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from softmaxes._arrays import (
    EAGER_JAX,
    Array,
    Arrays,
    Axis,
    Call,
    Namespace,
    Outline,
    as_array,
    call_without_scores,
    checked,
    familiar,
    is_alone,
    is_compiled_by_torch,
    is_kind,
    library,
    mapped,
    outlined,
    quiet,
    result_dtype,
    unwrapped,
)
from softmaxes._backends import _numpy, _row
from softmaxes._backends._compiled import loops
from softmaxes._rules import Rule

__all__ = [
    "apply",
    "by_the_standard",
    "called",
    "compute",
    "evaluate",
    "factor",
    "of_products",
    "value",
]


def called(
    rule: Rule, name: str, x: Any, axis: Any, keepdims: Any = False, /, **options: Any
) -> Array:
    """
    Return the rule's function of scores of that name, once all arguments are checked.

    Of all that scores alone ask, the answer is one function, kept for the next of their dtype and shape.
    """
    if (t := options.get("temperature")) is not None and type(t) in (int, float) and t == 1:
        options["temperature"] = None
    if is_alone(axis, keepdims, options):
        xp = None if type(x) in EAGER_JAX else familiar(x)
        if type(x) in EAGER_JAX:  # perhaps from now on
            return _compiled(rule, name, axis, keepdims)(x)
        if xp is None and type(x) in (list, tuple):
            x, xp = as_array(name, x)
        if xp is not None:
            y = _shortcut(rule, name, outlined(x, axis, keepdims, xp))(x)
            if y is not None:
                return y
        elif is_compiled_by_torch(x):
            from softmaxes._backends import _torch

            if _torch.is_ordinary(x, axis):
                return _torch.in_one_node(rule.primal.__name__, name, x, axis, keepdims)
    return value(rule, checked(**{name: x}, axis=axis, keepdims=keepdims, **options))


@lru_cache(maxsize=1024)
def _compiled(rule: Rule, name: str, axis: Axis, keepdims: bool) -> Callable[[Array], Array]:
    """Return the function of scores alone, which JAX checks and compiles for each dtype and shape."""
    from softmaxes._backends import _jax

    def f(x: Array) -> Array:
        return value(rule, checked(**{name: x}, axis=axis, keepdims=keepdims))

    g: Callable[[Array], Array] = _jax.compiled_with_all(f)
    return g


@lru_cache(maxsize=1024)
def _shortcut(rule: Rule, name: str, outline: Outline) -> Callable[[Array], Array | None]:
    """Return what takes scores with that outline to the result, where it can, and else to None."""
    call = call_without_scores(name, outline)
    dtype, *_, xp = outline
    if library(xp) == "numpy" and is_kind(dtype, ("bool", "integral"), xp):
        return partial(_promoted, rule, name, outline)
    if call is None or library(xp) == "jax.numpy":
        return _nothing

    def known(x: Array) -> Array:
        return value(rule, call._replace(arrays=Arrays(x)))

    if library(xp) == "torch":
        return known
    return (loops() or _row).shortcut(rule.primal, call) or known


def _promoted(rule: Rule, name: str, outline: Outline, x: Array) -> Array:
    """Return the function of integers of NumPy, which would wrap."""
    *_, axis, keepdims, xp = outline
    return called(rule, name, xp.astype(x, result_dtype(xp, x=x)), axis, keepdims)


def _nothing(x: Array) -> None:
    return None


def value(rule: Rule, call: Call) -> Array:
    """Return the rule's function of the call's arrays, in the shape of the result."""
    shape = _shape(rule, call)
    if library(call.xp) == "jax.numpy":
        from softmaxes._backends import _jax

        return _jax.apply(rule, call, squeezed=len(shape) < call.arrays.x.ndim)
    return call.shaped(apply(rule, call), shape)


def _shape(rule: Rule, call: Call) -> tuple[int, ...]:
    return call.reduced if rule.reduces else call.shape


def apply(rule: Rule, call: Call) -> Array:
    """Return the rule's function, differentiable where an engine can, with the axes it reduces."""
    name = library(call.xp)
    if name == "jax.numpy":
        from softmaxes._backends import _jax

        return _jax.apply(rule, call)
    if name == "torch":
        from softmaxes._backends import _torch

        return _torch.apply(rule, call)
    if name == "dask.array":
        from softmaxes._backends import _dask

        return _dask.apply(rule, call)
    return evaluate(rule.primal, call, call.arrays)


def evaluate(f: Callable[..., Array], call: Call, *arguments: Any) -> Array:
    """Return f(*arguments), arrays and tuples of arrays, computed in the working precision."""
    if library(call.xp) == "numpy":
        return _numpy.by_rows(f, call, *arguments)
    if library(call.xp) == "dask.array":
        from softmaxes._backends import _dask

        return _dask.evaluate(f, call, *arguments)
    return by_the_standard(f, call, *arguments)


def by_the_standard(f: Callable[..., Array], call: Call, *arguments: Any) -> Array:
    """Return f(*arguments) of the arrays as they are, computed in the working precision."""
    try:
        with quiet(call.xp):
            y = f(*mapped(call.in_working_precision, arguments), axis=call.axis, xp=call.xp)
            return call.xp.astype(y, call.dtype, copy=False)
    except AttributeError as error:
        if error.obj is not call.xp:
            raise
        missing = f"{library(call.xp)} has no function {error.name}"
        raise TypeError(f"{missing}, which the array API standard asks for") from error


def of_products(xp: Namespace) -> Any:
    """Return `values`, `pushforward`, `pullback` and `hvp` of scores that are a product, in tiles."""
    if library(xp) == "jax.numpy":
        from softmaxes._backends import _jax_products

        return _jax_products
    if library(xp) == "torch":
        from softmaxes._backends import _torch_products

        return _torch_products
    from softmaxes._backends import _products

    return _products


def factor(a: Array, *, xp: Namespace) -> Array:
    """Return an array as the matrix products of its library take it."""
    if library(xp) == "dask.array":
        from softmaxes._backends import _dask

        return _dask.without_empty_chunks(a)
    return a


def compute(
    f: Callable[..., Any],
    *arguments: Any,
    jvp: Callable[..., Array] | None = None,
    xp: Namespace,
) -> Any:
    """
    Return f(*arguments), arrays and tuples of arrays that are of one precision already.

    An engine differentiates it by `jvp(y, arguments, tangents)`, or without one as it stands.
    """
    if library(xp) == "jax.numpy":
        from softmaxes._backends import _jax

        return _jax.compiled(f, jvp)(*arguments)
    if library(xp) == "torch" and jvp is not None:
        from softmaxes._backends import _torch

        return _torch.compute(f, jvp, *arguments)
    if library(xp) == "dask.array":
        from softmaxes._backends import _dask

        arguments = _dask.of_one_library(arguments)
        return mapped(partial(_dask.silenced, arguments=arguments), f(*arguments, xp=xp))
    with quiet(xp):
        return mapped(partial(unwrapped, xp=xp), f(*arguments, xp=xp))
