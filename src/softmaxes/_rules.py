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
from functools import partial
from typing import Any, NamedTuple

from softmaxes import _primals
from softmaxes._arrays import Array, Arrays, Axes, Namespace

__all__ = [
    "Rule",
    "density",
    "excess",
    "ingredients",
    "log_softmax",
    "logsumexp",
    "maximum",
    "softmax",
]


class Rule(NamedTuple):
    """
    A formula with its derivatives, written in the probabilities p and the density d.

    `jvp(p, d, arrays, tangents)` is the tangent of the output, where a tangent may be None, and d
    with that of the weights. `vjp(p, arrays, u)` and `hvp(p, arrays, v)`, which the public
    functions have, are derivatives by x: the cotangent of x, and the derivative in the direction v
    of the gradient of the sum of all outputs. The probabilities are the output itself, or that of
    the rule `probabilities` on the same arrays. `reduces` tells whether the output has one entry
    per slice instead of one per score.
    """

    primal: Callable[..., Array]
    jvp: Callable[..., Array]
    vjp: Any = None
    hvp: Any = None
    probabilities: Rule | None = None
    reduces: bool = False


def ingredients(
    rule: Rule, value: Callable[[Rule], Array], tangents: Arrays
) -> tuple[Array, Array]:
    """Return p and d for the JVP of a rule, where value(rule) is its output for the same arrays."""
    needs_density = rule is density or tangents.weights is not None
    return value(rule.probabilities or rule), value(density) if needs_density else None


# softmax ------------------------------------------------------------------------------------------
# y = p,    ∂p_i/∂z_j = p_i (δ_ij - p_j),    z = x / temperature
#
# With weights, p_i = w_i d_i for the density d_i = e^z_i / Σ w_j e^z_j; the p_i still sum to 1.
#     ∂p_i/∂w_j = δ_ij d_i - p_i d_j


def _softmax_jvp(
    p: Array, d: Array, arrays: Arrays, tangents: Arrays, *, axis: Axes, xp: Namespace
) -> Array:
    covariance = partial(_covariance, p, arrays, axis=axis, xp=xp)
    by_z = _by_scores(covariance, arrays, tangents, axis=axis, xp=xp)
    if tangents.weights is None:
        return by_z
    share = xp.where(d == 0.0, 0.0, d * tangents.weights)
    by_w = share - p * xp.sum(share, axis=axis, keepdims=True)
    dominant = _dominant(p, arrays, axis=axis, xp=xp)
    return by_z + _sum_to_zero(dominant, by_w, axis=axis, xp=xp)


def _softmax_vjp(p: Array, arrays: Arrays, u: Array, *, axis: Axes, xp: Namespace) -> Array:
    return _per_temperature(_covariance(p, arrays, u, axis=axis, xp=xp), arrays, xp=xp)


def _softmax_hvp(p: Array, arrays: Arrays, v: Array, *, axis: Axes, xp: Namespace) -> Array:
    return xp.where(xp.isnan(p), p, 0.0 * p)  # Σ p = 1 has no curvature


softmax = Rule(_primals.softmax, _softmax_jvp, _softmax_vjp, _softmax_hvp)


# log_softmax --------------------------------------------------------------------------------------
# y_i = z_i - logsumexp(z),    J = I - 1 pᵀ,    Jᵀ = I - p 1ᵀ,    Hessian of Σ y: -n (diag(p) - p pᵀ)


def _log_softmax_jvp(
    p: Array, d: Array, arrays: Arrays, tangents: Arrays, *, axis: Axes, xp: Namespace
) -> Array:
    def centred(v: Array) -> Array:
        v = v - _sum_where(p > 0.5, v, axis=axis, xp=xp)
        v = v - _sum_where(p != 0.0, p * v, axis=axis, xp=xp)
        return xp.where(_counted(p, arrays, axis=axis, xp=xp), v, 0.0)

    return _by_scores(centred, arrays, tangents, axis=axis, xp=xp)


def _log_softmax_vjp(p: Array, arrays: Arrays, u: Array, *, axis: Axes, xp: Namespace) -> Array:
    u = xp.where(_counted(p, arrays, axis=axis, xp=xp), u, 0.0)
    total = xp.sum(u, axis=axis, keepdims=True)
    g = _sum_to_zero(p > 0.5, u - xp.where(p == 0.0, 0.0, p * total), axis=axis, xp=xp)
    return _per_temperature(g, arrays, xp=xp)


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
# y = log Σ w_i e^x_i,    ∂y/∂x_i = p_i,    ∂y/∂w_i = d_i,    Hessian diag(p) - p pᵀ


def _logsumexp_jvp(
    p: Array, d: Array, arrays: Arrays, tangents: Arrays, *, axis: Axes, xp: Namespace
) -> Array:
    def mean(v: Array) -> Array:
        return _sum_where(p != 0.0, p * v, axis=axis, xp=xp)

    by_z = _by_scores(mean, arrays, tangents, axis=axis, xp=xp)
    if tangents.weights is None:
        return by_z
    return by_z + _sum_where(d != 0.0, d * tangents.weights, axis=axis, xp=xp)


def _logsumexp_vjp(p: Array, arrays: Arrays, u: Array, *, axis: Axes, xp: Namespace) -> Array:
    return xp.where(p == 0.0, 0.0, p * u)


def _logsumexp_hvp(p: Array, arrays: Arrays, v: Array, *, axis: Axes, xp: Namespace) -> Array:
    return _covariance(p, arrays, v, axis=axis, xp=xp)


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
    dominant = _dominant(p, arrays, axis=axis, xp=xp)
    d = xp.where(xp.isinf(d), 0.0, d)  # as it can be at an entry of weight 0

    def by_score(v: Array) -> Array:
        row = _covariance(p, arrays, v, axis=axis, xp=xp) / xp.where(dominant, arrays.weights, 1.0)
        v = v - _sum_where(dominant, v, axis=axis, xp=xp)
        v = v - _sum_where(p != 0.0, p * v, axis=axis, xp=xp)
        return xp.where(dominant, row, xp.where(d == 0.0, 0.0, d * v))

    by_z = _by_scores(by_score, arrays, tangents, axis=axis, xp=xp)
    if tangents.weights is None:
        return by_z
    return by_z - d * _sum_where(d != 0.0, d * tangents.weights, axis=axis, xp=xp)


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


# What the rules share -----------------------------------------------------------------------------


def _covariance(p: Array, arrays: Arrays, v: Array, *, axis: Axes, xp: Namespace) -> Array:
    # J = diag(p) - p pᵀ, centred on both sides and so symmetric: its own transpose.
    dominant = _dominant(p, arrays, axis=axis, xp=xp)
    v = xp.where(p == 0.0, 0.0, v - _sum_where(dominant, v, axis=axis, xp=xp))
    g = p * (v - xp.sum(p * v, axis=axis, keepdims=True))
    return xp.where(p == 0.0, 0.0, _sum_to_zero(dominant, g, axis=axis, xp=xp))


def _dominant(p: Array, arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    """Tell the probability of more than half of the sum of absolute values; there is but one."""
    if arrays.weights is None:
        return p > 0.5
    return p > 0.5 * xp.sum(xp.abs(p), axis=axis, keepdims=True)  # some may be negative


def _sum_to_zero(dominant: Array, g: Array, *, axis: Axes, xp: Namespace) -> Array:
    """Set the dominant entry to minus the sum of the others."""
    return xp.where(dominant, -_sum_where(~dominant, g, axis=axis, xp=xp), g)


def _sum_where(mask: Array, a: Array, *, axis: Axes, xp: Namespace) -> Array:
    return xp.sum(xp.where(mask, a, 0.0), axis=axis, keepdims=True)


def _by_scores(
    linear: Callable[[Array], Array], arrays: Arrays, tangents: Arrays, *, axis: Axes, xp: Namespace
) -> Array:
    """Return linear(dz) for z = (x - M) / T, that is dz = (dx - z dT) / T; 0 where nothing moves."""
    dx, dt, t = tangents.x, tangents.temperature, arrays.temperature
    if dx is None and dt is None:
        return 0.0
    if dt is not None:
        z_dt = _scaled_scores(arrays, axis=axis, xp=xp) * dt
        dx = -z_dt if dx is None else dx - z_dt
    if t is not None and any(t.shape[a] > 1 for a in axis):
        return linear(_per_temperature(dx, arrays, xp=xp))
    return _per_temperature(linear(dx), arrays, xp=xp)  # the division last, as it may overflow


def _per_temperature(a: Array, arrays: Arrays, *, xp: Namespace) -> Array:
    """Return a / temperature, 0 at the limits 0 and inf, where the probabilities are constant."""
    t = arrays.temperature
    if t is None:
        return a
    inside = (t > 0.0) & xp.isfinite(t)
    # Below 0, p and with it a is NaN, but where it is masked.
    return xp.where(inside, a / xp.where(inside, t, 1.0), xp.where(t >= 0.0, 0.0, a))


def _scaled_scores(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    """Return z, up to a constant for each slice, 0 at the entries that do not count."""
    x, where, t, _ = arrays
    kept = xp.isfinite(x) if where is None else xp.isfinite(x) & where
    x = xp.where(kept, x, 0.0)
    if any(t.shape[a] > 1 for a in axis):
        return _per_temperature(x, arrays, xp=xp)
    # With one temperature any constant may be subtracted; the maximum keeps the products small.
    # Halves of all three do not overflow where the quotient does not.
    candidates = xp.where(kept, x, -xp.finfo(x.dtype).max)
    half = 0.5 * x - 0.5 * xp.max(candidates, axis=axis, keepdims=True)
    return _per_temperature(xp.where(kept, half, 0.0), arrays._replace(temperature=0.5 * t), xp=xp)
