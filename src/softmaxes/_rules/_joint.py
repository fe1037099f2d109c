"""
The cross-entropy of numbered classes along with its gradient, from one reading of the scores.

With the share s = ε / m of label smoothing, over the m classes of the support, and l the label,

    y = log S - (1 - ε) z_l - s Σ z_i,    ∂y/∂x_i = p_i - q_i,    q_i = (1 - ε) [i = l] + s.

The labels sum to 1. So where one class is dominant, its entry, minus the sum of the others, needs no
sum: the others have (S - 1) / S of the probability, and of the labels what is not on the class itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from softmaxes import _primals
from softmaxes._arrays import Array, Arrays, Axes, Namespace

__all__ = ["Joint", "cross_entropy_of_numbers", "cross_entropy_of_numbers_jvp"]


class Joint(NamedTuple):
    """An output with one entry per slice, its gradient by the scores, and the probabilities."""

    y: Array
    gradient: Array
    p: Array


def cross_entropy_of_numbers(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Joint:
    """Return the loss, for class numbers along the last axis."""
    s = _primals._terms(arrays, axis=axis, xp=xp)
    x, _, _ = _primals._support(arrays, axis=axis, xp=xp)
    empty, n = s.maximum == -xp.inf, x.shape[-1]
    label, smoothing = arrays.labels, arrays.label_smoothing
    known = (label >= 0) & (label < n)
    own, share, others = 1.0, 0.0, 0.0
    y = xp.log1p(s.excess)
    if smoothing is not None:
        m, spread = _spread(s, x, axis=axis, xp=xp)
        own, share = 1.0 - smoothing, smoothing / xp.where(m == 0.0, 1.0, m)
        others = share * (m - 1.0)
        y = y + xp.where(spread == 0.0, 0.0, (2.0 * n * share) * spread)
    below = _below_the_maximum(s, x, xp.where(known, label, 0), xp=xp)
    y = y + xp.where(own == 0.0, 0.0, (2.0 * own) * below)
    y = xp.where(empty, 0.0, xp.where(known, y, xp.nan))

    p, divisor = _primals._probabilities(s, xp=xp), _primals._divisor(s, xp=xp)
    is_label = label == _primals._places(x, axis=axis, xp=xp)[0]
    q = xp.where(is_label, own, 0.0)
    if smoothing is not None:
        q = q + xp.where(s.outside, 0.0, share)
    of_others = xp.where(is_label, others, others + own) - s.excess / divisor
    gradient = xp.where(known, xp.where(p > 0.5, of_others, p - q), xp.nan)
    still = empty | ((p == 0.0) & xp.isnan(divisor))  # where no limit exists, the others are 0
    if arrays.where is not None:
        still = still | ~arrays.where
    return Joint(y, xp.where(still, 0.0, gradient), p)


def cross_entropy_of_numbers_jvp(
    joint: Joint, arrays: Arrays, tangents: Arrays, *, axis: Axes, xp: Namespace
) -> Joint:
    """Return the tangents for that of the scores."""
    _, gradient, p = joint
    # Selected once, before the sums: XLA on the CPU takes no selection into a sum.
    v = xp.where((p == 0.0) & (gradient == 0.0), 0.0, tangents.x)
    dy = xp.sum(gradient * v, axis=axis, keepdims=True)
    # J v, where centring v alone keeps all digits: a dominant entry is then p times the mean of v.
    v = v - xp.sum(xp.round(p) * v, axis=axis, keepdims=True)
    dp = p * (v - xp.sum(p * v, axis=axis, keepdims=True))
    return Joint(dy, xp.where(xp.isnan(gradient), gradient, dp), dp)


def _spread(s: Any, x: Array, *, axis: Axes, xp: Namespace) -> tuple[Array, Array]:
    """
    Return how many classes take part, and the sum of M - x over them, over 2 n for all n classes.

    Nothing is selected entry by entry, as XLA on the CPU takes no selection into a sum. Halves do
    not overflow where the difference does.
    """
    lowest, n = xp.finfo(x.dtype).min, x.shape[-1]
    negative = xp.minimum(x, 0.0)
    takes_part = 1.0 + xp.sign(negative - xp.maximum(negative, lowest))  # 0 where x is -inf
    m = xp.sum(takes_part, axis=axis, keepdims=True)
    half = 0.5 * _primals._finite(s.maximum, xp=xp) - 0.5 * xp.maximum(x, lowest)
    spread = xp.sum(half * takes_part * (1.0 / n), axis=axis, keepdims=True)
    infinite = xp.where(s.total > 1.0, xp.nan, xp.where(m > 1.0, xp.inf, 0.0))
    return m, xp.where(s.maximum == xp.inf, infinite, spread)


def _below_the_maximum(s: Any, x: Array, label: Array, *, xp: Namespace) -> Array:
    """Return by how much the score of the label is below the maximum, halved."""
    x = xp.take_along_axis(x, label, axis=-1)
    # Where the two are equal the difference is 0, also to a compiler that makes a product x once more.
    half = 0.5 * _primals._finite(s.maximum, xp=xp) - 0.5 * x
    half = xp.where(x == s.maximum, 0.0, half)
    infinite = xp.where(x == xp.inf, xp.where(s.total > 1.0, xp.nan, 0.0), xp.inf)
    return xp.where(s.maximum == xp.inf, infinite, half)
