"""
The derivatives: one rule per formula, under the same name, in array API operations only.

Every rule is a function of the probabilities p = softmax(x), so p (or x, where p is not at hand) is
all that a backward pass keeps besides the options. The probabilities sum to one, so a constant
added to all scores changes nothing: J 1 = 0 and 1ᵀ J = 0 for the covariance J = diag(p) - p pᵀ. The
rules use both exactly. Where one probability exceeds 1/2 they subtract its tangent from all others,
and set its row to minus the sum of the others. That *centring* is what keeps derivatives relatively
accurate at a confident row, where 1 - p rounds to 0.

An entry with p = 0 is multiplied by nothing: whatever the tangent holds there, even NaN, is left
out by `where`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from softmaxes import _primals
from softmaxes._arrays import Array, Arrays, Axes, Namespace

__all__ = ["Rule", "excess", "log_softmax", "logsumexp", "maximum", "softmax"]


class Rule(NamedTuple):
    """
    A formula with its derivatives, written in the probabilities p.

    `jvp(p, arrays, tangents)` is the tangent of the output, where a tangent may be None;
    `vjp(p, arrays, u)` and `hvp(p, arrays, v)` are derivatives by x: the cotangent of x, and the
    derivative in the direction v of the gradient of the sum of all outputs. The probabilities are
    the output itself, or that of the rule `probabilities` on the same arrays. `reduces` tells
    whether the output has one entry per slice instead of one per score.
    """

    primal: Callable[..., Array]
    jvp: Callable[..., Array]
    vjp: Callable[..., Array]
    hvp: Callable[..., Array]
    probabilities: Rule | None = None
    reduces: bool = False


# softmax ------------------------------------------------------------------------------------------
# y = p,    ∂p_i/∂z_j = p_i (δ_ij - p_j),    z = x / temperature
#
# With weights, y_i = e_i / Σ w_j e_j, the derivative of logsumexp by w_i. With q_i = w_i y_i,
#     dy_i = y_i (dz_i - Σ q_j dz_j) - y_i Σ y_j dw_j.


def _softmax_jvp(p: Array, arrays: Arrays, tangents: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    dz, dw = _score_tangent(arrays, tangents, axis=axis, xp=xp), tangents.weights
    p = p if arrays.weights is None else _finite(p, xp=xp)
    by_z = 0.0 if dz is None else _covariance(p, arrays, dz, axis=axis, xp=xp)
    by_w = 0.0 if dw is None else p * _sum_where(p != 0.0, p * dw, axis=axis, xp=xp)
    return by_z - by_w


def _softmax_vjp(p: Array, arrays: Arrays, u: Array, *, axis: Axes, xp: Namespace) -> Array:
    return _per_temperature(_covariance(p, arrays, u, axis=axis, xp=xp), arrays, xp=xp)


def _softmax_hvp(p: Array, arrays: Arrays, v: Array, *, axis: Axes, xp: Namespace) -> Array:
    return xp.where(xp.isnan(p), p, 0.0 * p)  # Σ p = 1 has no curvature


softmax = Rule(_primals.softmax, _softmax_jvp, _softmax_vjp, _softmax_hvp)


# log_softmax --------------------------------------------------------------------------------------
# y_i = z_i - logsumexp(z),    J = I - 1 pᵀ,    Jᵀ = I - p 1ᵀ,    Hessian of Σ y: -n (diag(p) - p pᵀ)


def _log_softmax_jvp(
    p: Array, arrays: Arrays, tangents: Arrays, *, axis: Axes, xp: Namespace
) -> Array:
    dz = _score_tangent(arrays, tangents, axis=axis, xp=xp)
    dz = dz - _sum_where(p > 0.5, dz, axis=axis, xp=xp)
    dy = dz - _sum_where(p != 0.0, p * dz, axis=axis, xp=xp)
    return xp.where(_counted(p, arrays, axis=axis, xp=xp), dy, 0.0)


def _log_softmax_vjp(p: Array, arrays: Arrays, u: Array, *, axis: Axes, xp: Namespace) -> Array:
    u = xp.where(_counted(p, arrays, axis=axis, xp=xp), u, 0.0)
    total = xp.sum(u, axis=axis, keepdims=True)
    g = u - xp.where(p == 0.0, 0.0, p * total)
    return _per_temperature(_sum_to_zero(p > 0.5, None, g, axis=axis, xp=xp), arrays, xp=xp)


def _log_softmax_hvp(p: Array, arrays: Arrays, v: Array, *, axis: Axes, xp: Namespace) -> Array:
    counted = xp.astype(_counted(p, arrays, axis=axis, xp=xp), p.dtype)
    n = xp.sum(xp.broadcast_to(counted, p.shape), axis=axis, keepdims=True)
    h = _covariance(p, arrays, _per_temperature(v, arrays, xp=xp), axis=axis, xp=xp)
    return -n * _per_temperature(h, arrays, xp=xp)


def _counted(p: Array, arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    """Tell the entries whose log-probability can change: none in an empty row, no masked one."""
    total = xp.sum(p, axis=axis, keepdims=True)  # 0 for an empty row, NaN where no limit exists
    counted = (total != 0.0) & ((p != 0.0) | ~xp.isnan(total))
    return counted if arrays.where is None else counted & arrays.where


log_softmax = Rule(
    _primals.log_softmax, _log_softmax_jvp, _log_softmax_vjp, _log_softmax_hvp, softmax
)


# logsumexp ----------------------------------------------------------------------------------------
# y = log Σ w_i e^x_i,    ∂y/∂x_i = q_i = w_i p_i,    ∂y/∂w_i = p_i,    Hessian diag(q) - q qᵀ


def _logsumexp_jvp(
    p: Array, arrays: Arrays, tangents: Arrays, *, axis: Axes, xp: Namespace
) -> Array:
    dz, dw = _score_tangent(arrays, tangents, axis=axis, xp=xp), tangents.weights
    q = _weighted(p, arrays, xp=xp)
    by_z = 0.0 if dz is None else _sum_where(p != 0.0, q * dz, axis=axis, xp=xp)
    by_w = 0.0 if dw is None else _sum_where(p != 0.0, p * dw, axis=axis, xp=xp)
    return by_z + by_w


def _logsumexp_vjp(p: Array, arrays: Arrays, u: Array, *, axis: Axes, xp: Namespace) -> Array:
    q = _weighted(p, arrays, xp=xp)
    return xp.where(p == 0.0, 0.0, q * u)


def _logsumexp_hvp(p: Array, arrays: Arrays, v: Array, *, axis: Axes, xp: Namespace) -> Array:
    w = _weights(p, arrays, xp=xp)
    h = _covariance(p, arrays, v, axis=axis, xp=xp)
    return h if w is None else w * h


logsumexp = Rule(
    _primals.logsumexp, _logsumexp_jvp, _logsumexp_vjp, _logsumexp_hvp, softmax, reduces=True
)


# maximum and excess -------------------------------------------------------------------------------
# Of the state (M, T) of a slice, in which only y = M + log(1 + T) has a meaning. So M may take all
# of its derivative, ∂M/∂x_i = p_i and ∂T/∂x_i = 0: none is ever taken through a maximum.


def _constant(p: Array, arrays: Arrays, v: Array, *, axis: Axes, xp: Namespace) -> Array:
    return xp.zeros_like(p)


maximum = logsumexp._replace(primal=_primals.maximum)
excess = Rule(_primals.excess, _constant, _constant, _constant, reduces=True)


# What the rules share -----------------------------------------------------------------------------


def _covariance(p: Array, arrays: Arrays, v: Array, *, axis: Axes, xp: Namespace) -> Array:
    # J = diag(p) - p qᵀ, centred on both sides; without weights q = p, and J is its own transpose.
    w, q = _weights(p, arrays, xp=xp), _weighted(p, arrays, xp=xp)
    p = p if w is None else _finite(p, xp=xp)
    dominant = q > (0.5 if w is None else 0.5 * xp.sum(xp.abs(q), axis=axis, keepdims=True))
    v = xp.where(p == 0.0, 0.0, v - _sum_where(dominant, v, axis=axis, xp=xp))
    g = p * (v - xp.sum(q * v, axis=axis, keepdims=True))
    return xp.where(p == 0.0, 0.0, _sum_to_zero(dominant, w, g, axis=axis, xp=xp))


def _sum_to_zero(dominant: Array, w: Array, g: Array, *, axis: Axes, xp: Namespace) -> Array:
    """Set the dominant entry to minus the sum of the others, with weights w or None."""
    others = _sum_where(~dominant, g if w is None else w * g, axis=axis, xp=xp)
    return xp.where(dominant, -others if w is None else -others / xp.where(dominant, w, 1.0), g)


def _weighted(p: Array, arrays: Arrays, *, xp: Namespace) -> Array:
    """Return the probabilities q = w p, which sum to 1."""
    w = _weights(p, arrays, xp=xp)
    return p if w is None else w * _finite(p, xp=xp)


def _weights(p: Array, arrays: Arrays, *, xp: Namespace) -> Array:
    """Return the weights, 0 where anything may stand, or None."""
    # Not where w == 0, which would cut the derivative by w there.
    w = arrays.weights
    return w if w is None else xp.where((p == 0.0) | xp.isinf(p), 0.0, w)


def _finite(p: Array, *, xp: Namespace) -> Array:
    """Return p, and 0 where it overflows, as it can at an entry of weight 0."""
    return xp.where(xp.isinf(p), 0.0, p)


def _sum_where(mask: Array, a: Array, *, axis: Axes, xp: Namespace) -> Array:
    return xp.sum(xp.where(mask, a, 0.0), axis=axis, keepdims=True)


def _score_tangent(arrays: Arrays, tangents: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    # z = (x - M) / T:    dz = (dx - z dT) / T
    dx, dt = tangents.x, tangents.temperature
    if dt is None:
        return None if dx is None else _per_temperature(dx, arrays, xp=xp)
    z_dt = _scaled_scores(arrays, axis=axis, xp=xp) * dt
    return _per_temperature(-z_dt if dx is None else dx - z_dt, arrays, xp=xp)


def _per_temperature(a: Array, arrays: Arrays, *, xp: Namespace) -> Array:
    """Return a / temperature, 0 at the limits 0 and inf, where the probabilities are constant."""
    t = arrays.temperature
    if t is None:
        return a
    inside = (t > 0.0) & xp.isfinite(t)
    return xp.where(inside, a / xp.where(inside, t, 1.0), 0.0)


def _scaled_scores(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    """Return z, up to a constant for each slice, 0 at the entries that do not count."""
    x = arrays.x
    kept = xp.isfinite(x) if arrays.where is None else xp.isfinite(x) & arrays.where
    x = xp.where(kept, x, 0.0)
    if not any(arrays.temperature.shape[a] > 1 for a in axis):
        # With one temperature any constant may be subtracted; the maximum keeps the products small.
        candidates = xp.where(kept, x, -xp.finfo(x.dtype).max)
        x = xp.where(kept, x - xp.max(candidates, axis=axis, keepdims=True), 0.0)
    return _per_temperature(x, arrays, xp=xp)
