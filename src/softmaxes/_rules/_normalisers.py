"""The rules of softmax, log_softmax and logsumexp, and of what else they and `online` need."""

from __future__ import annotations

from functools import partial

from softmaxes import _primals
from softmaxes._arrays import Array, Arrays, Axes, Namespace, are_single
from softmaxes._rules._rule import (
    Rule,
    by_scores,
    can_change,
    centred,
    covariance,
    is_dominant,
    per_temperature,
    sum_to_zero,
    sum_where,
)

__all__ = ["density", "excess", "log_softmax", "logsumexp", "maximum", "softmax"]

# softmax ------------------------------------------------------------------------------------------
# y = p,    ∂p_i/∂z_j = p_i (δ_ij - p_j),    z = x / temperature
#
# With weights, p_i = w_i d_i for the density d_i = e^z_i / Σ w_j e^z_j; the p_i still sum to 1.
#     ∂p_i/∂w_j = δ_ij d_i - p_i d_j


def _softmax_jvp(
    p: Array, d: Array, arrays: Arrays, tangents: Arrays, *, axis: Axes, xp: Namespace
) -> Array:
    linear = partial(covariance, p, arrays, axis=axis, xp=xp)
    by_z = by_scores(linear, arrays, tangents, axis=axis, xp=xp)
    if tangents.weights is None:
        return by_z
    share = xp.where(d == 0.0, 0.0, d * tangents.weights)
    by_w = share - p * xp.sum(share, axis=axis, keepdims=True)
    dominant = is_dominant(p, arrays, axis=axis, xp=xp)
    return by_z + sum_to_zero(dominant, by_w, axis=axis, xp=xp)


def _softmax_vjp(p: Array, arrays: Arrays, u: Array, *, axis: Axes, xp: Namespace) -> Array:
    return per_temperature(covariance(p, arrays, u, axis=axis, xp=xp), arrays, xp=xp)


def _softmax_hvp(p: Array, arrays: Arrays, v: Array, *, axis: Axes, xp: Namespace) -> Array:
    return xp.where(xp.isnan(p), p, 0.0 * p)  # Σ p = 1 has no curvature


softmax = Rule(_primals.softmax, _softmax_jvp, _softmax_vjp, _softmax_hvp)


# log_softmax --------------------------------------------------------------------------------------
# y_i = z_i - logsumexp(z),    J = I - 1 pᵀ,    Jᵀ = I - p 1ᵀ,    Hessian of Σ y: -n (diag(p) - p pᵀ)
#
# Of one entry J is p (1 - p), as it is for softmax.


def _log_softmax_jvp(
    p: Array, d: Array, arrays: Arrays, tangents: Arrays, *, axis: Axes, xp: Namespace
) -> Array:
    def deviation(v: Array) -> Array:
        if are_single(p, axis):
            return covariance(p, arrays, v, axis=axis, xp=xp)
        v = centred(p, v, axis=axis, xp=xp)
        return xp.where(can_change(p, arrays, axis=axis, xp=xp), v, 0.0)

    return by_scores(deviation, arrays, tangents, axis=axis, xp=xp)


def _log_softmax_vjp(p: Array, arrays: Arrays, u: Array, *, axis: Axes, xp: Namespace) -> Array:
    if are_single(p, axis):
        return _softmax_vjp(p, arrays, u, axis=axis, xp=xp)
    u = xp.where(can_change(p, arrays, axis=axis, xp=xp), u, 0.0)
    total = xp.sum(u, axis=axis, keepdims=True)
    g = sum_to_zero(p > 0.5, u - xp.where(p == 0.0, 0.0, p * total), axis=axis, xp=xp)
    return per_temperature(g, arrays, xp=xp)


def _log_softmax_hvp(p: Array, arrays: Arrays, v: Array, *, axis: Axes, xp: Namespace) -> Array:
    counted = xp.astype(can_change(p, arrays, axis=axis, xp=xp), p.dtype)
    n = xp.sum(counted, axis=axis, keepdims=True)
    h = covariance(p, arrays, per_temperature(v, arrays, xp=xp), axis=axis, xp=xp)
    return -n * per_temperature(h, arrays, xp=xp)


log_softmax = Rule(
    _primals.log_softmax, _log_softmax_jvp, _log_softmax_vjp, _log_softmax_hvp, softmax
)


# logsumexp ----------------------------------------------------------------------------------------
# y = log Σ w_i e^x_i,    ∂y/∂x_i = p_i,    ∂y/∂w_i = d_i,    Hessian diag(p) - p pᵀ


def _logsumexp_jvp(
    p: Array, d: Array, arrays: Arrays, tangents: Arrays, *, axis: Axes, xp: Namespace
) -> Array:
    def mean(v: Array) -> Array:
        return sum_where(p != 0.0, p * v, axis=axis, xp=xp)

    by_z = by_scores(mean, arrays, tangents, axis=axis, xp=xp)
    if tangents.weights is None:
        return by_z
    return by_z + sum_where(d != 0.0, d * tangents.weights, axis=axis, xp=xp)


def _logsumexp_vjp(p: Array, arrays: Arrays, u: Array, *, axis: Axes, xp: Namespace) -> Array:
    return xp.where(p == 0.0, 0.0, p * u)


def _logsumexp_hvp(p: Array, arrays: Arrays, v: Array, *, axis: Axes, xp: Namespace) -> Array:
    return covariance(p, arrays, v, axis=axis, xp=xp)


logsumexp = Rule(
    _primals.logsumexp, _logsumexp_jvp, _logsumexp_vjp, _logsumexp_hvp, softmax, reduces=True
)


# density ------------------------------------------------------------------------------------------
# d_i = e^z_i / Σ w_j e^z_j,    ∂d_i/∂z_j = d_i (δ_ij - p_j),    ∂d_i/∂w_j = -d_i d_j
#
# Where one p_k is dominant, row k is that of softmax divided by w_k, to be centred like it.


def _density_jvp(
    p: Array, d: Array, arrays: Arrays, tangents: Arrays, *, axis: Axes, xp: Namespace
) -> Array:
    dominant = is_dominant(p, arrays, axis=axis, xp=xp)
    d = xp.where(xp.isinf(d), 0.0, d)  # as it can be at an entry of weight 0

    def by_score(v: Array) -> Array:
        row = covariance(p, arrays, v, axis=axis, xp=xp) / xp.where(dominant, arrays.weights, 1.0)
        v = v - sum_where(dominant, v, axis=axis, xp=xp)
        v = v - sum_where(p != 0.0, p * v, axis=axis, xp=xp)
        return xp.where(dominant, row, xp.where(d == 0.0, 0.0, d * v))

    by_z = by_scores(by_score, arrays, tangents, axis=axis, xp=xp)
    if tangents.weights is None:
        return by_z
    return by_z - d * sum_where(d != 0.0, d * tangents.weights, axis=axis, xp=xp)


density = Rule(_primals.density, _density_jvp, probabilities=softmax)


# maximum and excess -------------------------------------------------------------------------------
# Of the state (M, T) of a slice, in which only y = M + log(1 + T) has a meaning. So M may take all
# of its derivative, ∂M/∂x_i = p_i and ∂T/∂x_i = 0: none is ever taken through a maximum.


def _constant(
    y: Array, d: Array, arrays: Arrays, tangents: Arrays, *, axis: Axes, xp: Namespace
) -> Array:
    return xp.zeros_like(y)


maximum = Rule(_primals.maximum, _logsumexp_jvp, probabilities=softmax, reduces=True)
excess = Rule(_primals.excess, _constant, reduces=True)
