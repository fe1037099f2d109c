"""What a rule is, and what the rules share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from softmaxes._arrays import Array, Arrays, Axes, Namespace, are_single

__all__ = [
    "Rule",
    "by_scores",
    "can_change",
    "centred",
    "covariance",
    "is_dominant",
    "per_temperature",
    "sum_to_zero",
    "sum_where",
]


class Rule(NamedTuple):
    """
    A formula with its derivatives, written in the probabilities p and an array d.

    `jvp(p, d, arrays, tangents)` is the tangent of the output, where a tangent may be None, and d
    unless an array beside x moves. `vjp(p, arrays, u)` and `hvp(p, arrays, v)`, which the public
    functions have, are derivatives by x: the cotangent of x, and the derivative in the direction v
    of the gradient of the sum of all outputs. The probabilities are the output itself, or that of
    the rule `probabilities` on the same arrays; with a rule `beside`, p is the pair of its output
    and theirs. `reduces` tells whether the output has one entry per slice instead of one per score.

    `joint(arrays)`, where there is one, is for class numbers along the last axis the output along
    with its gradient by x and the probabilities, and `joint_jvp(joint, arrays, tangents)` what a
    tangent of x makes of all three.
    """

    primal: Callable[..., Array]
    jvp: Callable[..., Array]
    vjp: Any = None
    hvp: Any = None
    probabilities: Rule | None = None
    beside: Rule | None = None
    reduces: bool = False
    joint: Any = None
    joint_jvp: Any = None

    def pull(self, arrays: Arrays, u: Array, *, axis: Axes, xp: Namespace) -> Array:
        """Return the cotangent of x by `vjp`, from nothing but the arrays of the call."""
        p = (self.probabilities or self).primal(arrays, axis=axis, xp=xp)
        return self.vjp(p, arrays, u, axis=axis, xp=xp)


def covariance(p: Array, arrays: Arrays, v: Array, *, axis: Axes, xp: Namespace) -> Array:
    if are_single(p, axis):  # J = p (1 - p), for p of 0, 1 or NaN
        return xp.where(p == 0.0, 0.0, (1.0 - p) * v)
    # J = diag(p) - p pᵀ, centred on both sides and so symmetric: its own transpose.
    dominant = is_dominant(p, arrays, axis=axis, xp=xp)
    v = xp.where(p == 0.0, 0.0, v - sum_where(dominant, v, axis=axis, xp=xp))
    g = p * (v - xp.sum(p * v, axis=axis, keepdims=True))
    return xp.where(p == 0.0, 0.0, sum_to_zero(dominant, g, axis=axis, xp=xp))


def centred(p: Array, v: Array, *, axis: Axes, xp: Namespace) -> Array:
    """Return v - Σ p v, from v less its value at a dominant entry."""
    v = v - sum_where(p > 0.5, v, axis=axis, xp=xp)
    return v - sum_where(p != 0.0, p * v, axis=axis, xp=xp)


def can_change(p: Array, arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    """Tell the entries whose log-probability can change: none in an empty row, no masked one."""
    total = xp.sum(p, axis=axis, keepdims=True)  # 0 for an empty row, NaN where no limit exists
    counted = (total != 0.0) & ((p != 0.0) | ~xp.isnan(total))
    return counted if arrays.where is None else counted & arrays.where


def is_dominant(p: Array, arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    """Tell the probability of more than half of the sum of absolute values; there is but one."""
    if arrays.weights is None:
        return p > 0.5
    return p > 0.5 * xp.sum(xp.abs(p), axis=axis, keepdims=True)  # some may be negative


def sum_to_zero(dominant: Array, g: Array, *, axis: Axes, xp: Namespace) -> Array:
    """Set the dominant entry to minus the sum of the others."""
    return xp.where(dominant, -sum_where(~dominant, g, axis=axis, xp=xp), g)


def sum_where(mask: Array, a: Array, *, axis: Axes, xp: Namespace) -> Array:
    return xp.sum(xp.where(mask, a, 0.0), axis=axis, keepdims=True)


def by_scores(
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
        return linear(per_temperature(dx, arrays, xp=xp))
    return per_temperature(linear(dx), arrays, xp=xp)  # the division last, as it may overflow


def per_temperature(a: Array, arrays: Arrays, *, xp: Namespace) -> Array:
    """Return a / temperature, 0 at the limits 0 and inf, where the probabilities are constant."""
    t = arrays.temperature
    if t is None:
        return a
    inside = (t > 0.0) & xp.isfinite(t)
    # Below 0, p and with it a is NaN, but where it is masked.
    return xp.where(inside, a / xp.where(inside, t, 1.0), xp.where(t >= 0.0, 0.0, a))


def _scaled_scores(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    """Return z, up to a constant for each slice, 0 at the entries that do not count."""
    x, t = arrays.x, arrays.temperature
    kept = xp.isfinite(x) if arrays.where is None else xp.isfinite(x) & arrays.where
    x = xp.where(kept, x, 0.0)
    if any(t.shape[a] > 1 for a in axis):
        return per_temperature(x, arrays, xp=xp)
    # With one temperature any constant may be subtracted; the maximum keeps the products small.
    # Halves of all three do not overflow where the quotient does not.
    candidates = xp.where(kept, x, -xp.finfo(x.dtype).max)
    half = 0.5 * x - 0.5 * xp.max(candidates, axis=axis, keepdims=True)
    return per_temperature(xp.where(kept, half, 0.0), arrays._replace(temperature=0.5 * t), xp=xp)
