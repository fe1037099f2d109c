"""The rules, callable on any array: no automatic differentiation engine is needed."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

from softmaxes import _functions, _rules
from softmaxes._arrays import Array, Call, like
from softmaxes._backends import apply, evaluate
from softmaxes._rules import Rule

__all__ = ["hvp", "jacobian", "jvp", "vjp"]


def jvp(
    function: Callable[..., Array], x: Array, v: Array, /, *rest: Array, **options: Any
) -> tuple[Array, Array]:
    rule, call, shape = _linearised(function, x, *rest, **options)
    v = _in_slices(like("v", v, call, call.shape), call)
    y, p = _value_and_probabilities(rule, call)
    tangents = call.arrays._replace(x=v, where=None, temperature=None, weights=None)
    dy = evaluate(rule.jvp, call, p, call.arrays, tangents)
    return call.xp.reshape(y, shape), call.xp.reshape(dy, shape)


def vjp(
    function: Callable[..., Array], x: Array, /, *rest: Array, **options: Any
) -> tuple[Array, Callable[[Array], Array]]:
    rule, call, shape = _linearised(function, x, *rest, **options)
    y, p = _value_and_probabilities(rule, call)

    def pullback(u: Array) -> Array:
        u = call.xp.reshape(like("u", u, call, shape), y.shape)
        return call.xp.reshape(evaluate(rule.vjp, call, p, call.arrays, u), call.shape)

    return call.xp.reshape(y, shape), pullback
