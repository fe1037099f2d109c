"""
The seam: what one library needs beyond the array API standard.

`apply` evaluates a function with its derivatives attached, `evaluate` any formula alone. A backend
knows no function; that of JAX is imported when the first of its arrays arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from softmaxes._arrays import Array, Call, is_jax_namespace, is_numpy_namespace, mapped
from softmaxes._rules import Rule

__all__ = ["apply", "evaluate"]


def apply(rule: Rule, call: Call) -> Array:
    """Return the rule's function of the call's arrays, differentiable where an engine can."""
    if is_jax_namespace(call.xp):
        from softmaxes._backends import _jax

        return _jax.apply(rule, call)
    return evaluate(rule.primal, call, call.arrays)


def evaluate(f: Callable[..., Array], call: Call, *arguments: Any) -> Array:
    """Return f(*arguments), arrays and tuples of arrays, computed in the working precision."""
    from softmaxes._backends import _numpy

    if is_numpy_namespace(call.xp):
        return _numpy.by_rows(f, call, *arguments)
    with _numpy.quiet():
        y = f(*mapped(call.in_working_precision, arguments), axis=call.axis, xp=call.xp)
        return call.xp.astype(y, call.dtype, copy=False)
