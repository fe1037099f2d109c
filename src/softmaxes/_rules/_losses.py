"""The rules of the losses. What they are written in is a pair: the probabilities, and one array more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from softmaxes import _primals
from softmaxes._arrays import Array, Arrays, Axes, Namespace
from softmaxes._rules._joint import cross_entropy_of_numbers, cross_entropy_of_numbers_jvp
from softmaxes._rules._normalisers import softmax
from softmaxes._rules._rule import (
    Rule,
    can_change,
    centred,
    covariance,
    is_dominant,
    sum_to_zero,
    sum_where,
)

__all__ = [
    "cross_entropy",
    "entropy",
    "kl_divergence",
    "log_ratio",
    "reference",
    "shifted",
    "targets",
]

Pair: TypeAlias = tuple[Array, Array]

# cross_entropy ------------------------------------------------------------------------------------
# y = -Σ q_i log p_i,    ∂y/∂x_i = Q p_i - q_i with Q = Σ q,    ∂y/∂q_i = -log p_i,    Hessian Q J
#
# The gradient is that of log_softmax, transposed. But q counts in Q where a mask leaves no p_i too:
# a label there is infinitely far away, in the direction of all other classes.


def _cross_entropy_jvp(
    pair: Pair, d: Array, arrays: Arrays, tangents: Arrays, *, axis: Axes, xp: Namespace
) -> Array:
    dy = 0.0
    if tangents.x is not None:
        gradient, moves = _excess_over_targets(pair, arrays, axis=axis, xp=xp)
        dy = sum_where(moves, gradient * tangents.x, axis=axis, xp=xp)
    if tangents.labels is None:
        return dy
    # Where log p is -inf, the loss is infinite or q is 0: it counts as 0, like their product.
    finite = ~xp.isinf(d)
    dq = _targets_jvp(pair[1], None, arrays, tangents, axis=axis, xp=xp)
    return dy - sum_where(finite, dq * xp.where(finite, d, 0.0), axis=axis, xp=xp)


def _cross_entropy_vjp(pair: Pair, arrays: Arrays, u: Array, *, axis: Axes, xp: Namespace) -> Array:
    gradient, moves = _excess_over_targets(pair, arrays, axis=axis, xp=xp)
    return xp.where(moves, gradient * u, 0.0)


def _cross_entropy_hvp(pair: Pair, arrays: Arrays, v: Array, *, axis: Axes, xp: Namespace) -> Array:
    p, q = pair
    h = xp.sum(q, axis=axis, keepdims=True) * covariance(p, arrays, v, axis=axis, xp=xp)
    return xp.where(can_change(p, arrays, axis=axis, xp=xp), h, 0.0)


def _excess_over_targets(pair: Pair, arrays: Arrays, *, axis: Axes, xp: Namespace) -> Pair:
    """Return Q p - q, centred, and where it may differ from 0."""
    p, q = pair
    total = xp.sum(q, axis=axis, keepdims=True)
    gradient = sum_to_zero(p > 0.5, total * p - q, axis=axis, xp=xp)
    moves = can_change(p, arrays, axis=axis, xp=xp) & ((p != 0.0) | (q != 0.0))
    return xp.where(moves, gradient, 0.0), moves


def _targets_jvp(
    q: Array, d: None, arrays: Arrays, tangents: Arrays, *, axis: Axes, xp: Namespace
) -> Array:
    if tangents.labels is None:
        return xp.zeros_like(q)
    return _primals.targets(arrays._replace(labels=tangents.labels), axis=axis, xp=xp)


targets = Rule(_primals.targets, _targets_jvp)
cross_entropy = Rule(
    _primals.cross_entropy,
    _cross_entropy_jvp,
    _cross_entropy_vjp,
    _cross_entropy_hvp,
    probabilities=softmax,
    beside=targets,
    reduces=True,
    joint=cross_entropy_of_numbers,
    joint_jvp=cross_entropy_of_numbers_jvp,
)


# kl_divergence and entropy ------------------------------------------------------------------------
# y = Σ p_i r_i with r = log p - log q, and y = -Σ p_i r_i with r = log p. In both,
#     ∂(Σ p r)/∂x = J r,    dr = (I - 1 pᵀ) dx,    d(J r) = J dr + dJ r,
#     dJ r = a k - p Σ a k  with a = J dx and k = r - Σ p r.
# J ignores a constant in r, so that of the entropy may be x less its maximum. By the scores of q,
# ∂y/∂x_i = q_i - p_i. An infinite r counts as 0.


def _kl_divergence_jvp(
    pair: Pair, q: Array, arrays: Arrays, tangents: Arrays, *, axis: Axes, xp: Namespace
) -> Array:
    dy = 0.0
    if tangents.x is not None:
        gradient = _mean_gradient(pair, arrays, axis=axis, xp=xp)
        dy = sum_where(pair[0] != 0.0, gradient * tangents.x, axis=axis, xp=xp)
    if tangents.q_logits is None:
        return dy
    p, r = pair
    change = xp.where((p != 0.0) & (xp.abs(r) < 1.0), p * xp.expm1(-r), q - p)
    change = sum_to_zero(p > 0.5, change, axis=axis, xp=xp)
    moves = (xp.sum(p, axis=axis, keepdims=True) != 0.0) & ((p != 0.0) | (q != 0.0))
    change = xp.where(moves, change, 0.0) * tangents.q_logits
    return dy + sum_where(moves, change, axis=axis, xp=xp)


def _kl_divergence_vjp(pair: Pair, arrays: Arrays, u: Array, *, axis: Axes, xp: Namespace) -> Array:
    return xp.where(pair[0] == 0.0, 0.0, u * _mean_gradient(pair, arrays, axis=axis, xp=xp))


def _kl_divergence_hvp(pair: Pair, arrays: Arrays, v: Array, *, axis: Axes, xp: Namespace) -> Array:
    p, r = pair
    dr = xp.where(xp.isinf(r), 0.0, centred(p, v, axis=axis, xp=xp))
    a = covariance(p, arrays, v, axis=axis, xp=xp)
    k = xp.where(xp.isinf(r), 0.0, r)
    k = xp.where(p == 0.0, 0.0, centred(p, k, axis=axis, xp=xp))
    h = a * k - p * xp.sum(a * k, axis=axis, keepdims=True)
    h = sum_to_zero(is_dominant(p, arrays, axis=axis, xp=xp), h, axis=axis, xp=xp)
    h = xp.where(p == 0.0, 0.0, h)  # of a slice with a NaN, a masked entry too
    return covariance(p, arrays, dr, axis=axis, xp=xp) + h


def _mean_gradient(pair: Pair, arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    p, r = pair
    return covariance(p, arrays, xp.where(xp.isinf(r), 0.0, r), axis=axis, xp=xp)


def _negated(f: Callable[..., Array]) -> Callable[..., Array]:
    def negated(*arguments: Any, axis: Axes, xp: Namespace) -> Array:
        return -f(*arguments, axis=axis, xp=xp)

    return negated


def _reference_jvp(
    q: Array, d: None, arrays: Arrays, tangents: Arrays, *, axis: Axes, xp: Namespace
) -> Array:
    if tangents.q_logits is None:
        return xp.zeros_like(q)
    return covariance(q, arrays, tangents.q_logits, axis=axis, xp=xp)


def _log_ratio_jvp(
    pair: Pair, d: None, arrays: Arrays, tangents: Arrays, *, axis: Axes, xp: Namespace
) -> Array:
    p, q = pair
    dr = xp.zeros_like(p)
    if tangents.x is not None:
        dr = dr + centred(p, tangents.x, axis=axis, xp=xp)
    if tangents.q_logits is not None:
        dr = dr - centred(q, tangents.q_logits, axis=axis, xp=xp)
    return xp.where(p == 0.0, 0.0, dr)


def _shifted_jvp(
    z: Array, d: None, arrays: Arrays, tangents: Arrays, *, axis: Axes, xp: Namespace
) -> Array:
    return xp.zeros_like(z) if tangents.x is None else tangents.x


shifted = Rule(_primals.shifted, _shifted_jvp)
reference = Rule(_primals.reference, _reference_jvp)
log_ratio = Rule(_primals.log_ratio, _log_ratio_jvp, probabilities=softmax, beside=reference)
kl_divergence = Rule(
    _primals.kl_divergence,
    _kl_divergence_jvp,
    _kl_divergence_vjp,
    _kl_divergence_hvp,
    probabilities=softmax,
    beside=log_ratio,
    reduces=True,
)
entropy = Rule(
    _primals.entropy,
    _negated(_kl_divergence_jvp),
    _negated(_kl_divergence_vjp),
    _negated(_kl_divergence_hvp),
    probabilities=softmax,
    beside=shifted,
    reduces=True,
)
