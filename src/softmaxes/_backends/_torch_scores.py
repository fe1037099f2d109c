"""
Scores alone on the processor, in the operations of which PyTorch's compiler makes the best code.

It takes whatever compares two arrays for a reduction, as the result has so few bytes, and keeps it for the
backward pass: a mask to write and to read, which takes longer than all the rest. So here entries are
compared with numbers only. Nor is anything selected at the maximum, as in `_primals`: for the processor
no product and difference are compiled to one rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from softmaxes import _primals, _rules
from softmaxes._arrays import Array, Arrays, Axes, Namespace, are_single
from softmaxes._rules._rule import sum_to_zero

__all__ = ["formula"]


def formula(
    f: Callable[..., Array], axis: Axes, arguments: tuple[Any, ...]
) -> Callable[..., Array]:
    """Return what takes the place of f for these arguments, which may be f."""
    own = FORMULAS.get(f)
    if own is None:
        return f
    x, *options = next(a for a in arguments if isinstance(a, Arrays))
    if any(a is not None for a in options) or are_single(x, axis):
        return f
    return own if x.device.type == "cpu" and 0 not in x.shape else f


AT_ONCE = 16  # entries


class _Terms(NamedTuple):
    """As in `_primals`; `vanishes` is where a term is 0 whatever the others are."""

    maximum: Array
    z: Array
    terms: Array
    rest: Array
    whole: Array
    vanishes: Array


def _softmax(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    s = _terms(arrays.x, axis=axis, xp=xp)
    return xp.where(s.vanishes, 0.0, s.terms / _divisor(s, xp=xp))


def _log_softmax(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    s = _terms(arrays.x, axis=axis, xp=xp)
    return xp.where(s.vanishes, -math.inf, s.z - _defined(s, _log_sum(s, xp=xp), xp=xp))


def _logsumexp(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    s = _terms(arrays.x, axis=axis, xp=xp)
    return s.maximum + _log_sum(s, xp=xp)


def _log_softmax_vjp(p: Array, arrays: Arrays, u: Array, *, axis: Axes, xp: Namespace) -> Array:
    s = _terms(arrays.x, axis=axis, xp=xp)  # of which the compiler sees that they are those of p
    is_undefined = xp.isnan(_divisor(s, xp=xp)) | (s.maximum == -math.inf)
    total = _added(u, axis=axis, xp=xp)
    g = u - xp.where(p == 0.0, 0.0, p * total)
    g = xp.where(s.vanishes & is_undefined, 0.0, g)
    return sum_to_zero(p > 0.5, g, axis=axis, xp=xp)


FORMULAS: dict[Any, Callable[..., Array]] = {
    _primals.softmax: _softmax,
    _primals.log_softmax: _log_softmax,
    _primals.logsumexp: _logsumexp,
    _rules.log_softmax.vjp: _log_softmax_vjp,
}


def _terms(x: Array, *, axis: Axes, xp: Namespace) -> _Terms:
    maximum = xp.max(x, axis=axis, keepdims=True)
    # Beside +inf the others are as good as -inf. A NaN needs no shift, but is in the sum.
    x = xp.where(maximum == math.inf, xp.where(x == math.inf, 0.0, -math.inf), x)
    shift = xp.where(xp.abs(maximum) < math.inf, maximum, 0.0)
    z = x - shift
    part = z - x
    error = (x - (z - part)) - (shift + part)
    vanishes = z == -math.inf
    terms = xp.where(vanishes, 0.0, xp.exp(z) * (1.0 + error))
    ones = xp.round(terms)
    rest = _added(terms - ones, axis=axis, xp=xp)
    return _Terms(maximum, z, terms, rest, xp.sum(ones, axis=axis, keepdims=True), vanishes)


def _added(a: Array, *, axis: Axes, xp: Namespace) -> Array:
    """
    Return the sum: in float64 of float32, and else of a few entries at a time.

    The compiler adds a row to a vector of sums, each of which takes thousands of entries in turn. Where one
    is large, and each of the others a little less than half an ulp of it, all others are lost.
    """
    if a.dtype == xp.float32:
        return xp.astype(xp.sum(a, axis=axis, keepdims=True, dtype=xp.float64), a.dtype)
    for one in axis:
        a = _shortened(a, one % a.ndim, xp=xp)
    return xp.sum(a, axis=axis, keepdims=True)


def _shortened(a: Array, axis: int, *, xp: Namespace) -> Array:
    """Return fewer entries along an axis, of the same sum."""
    while (n := a.shape[axis]) > 2 * AT_ONCE:
        before, behind = a.shape[:axis], a.shape[axis + 1 :]
        whole = n - n % AT_ONCE
        some, left = xp.split(a, (whole, n - whole), axis)
        parts = xp.sum(xp.reshape(some, (*before, -1, AT_ONCE, *behind)), axis=axis + 1)
        a = xp.concat((parts, left), axis=axis) if whole < n else parts
    return a


def _divisor(s: _Terms, *, xp: Namespace) -> Array:
    return _defined(s, s.whole + s.rest, xp=xp)


def _log_sum(s: _Terms, *, xp: Namespace) -> Array:
    return xp.log1p(s.rest + (s.whole - 1.0))


def _defined(s: _Terms, a: Array, *, xp: Namespace) -> Array:
    """Return what is known of slices, NaN for those of several +inf, which have no limit."""
    return xp.where((s.maximum == math.inf) & (s.whole > 1.0), math.nan, a)
