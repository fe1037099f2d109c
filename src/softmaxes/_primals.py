"""
The maths: one short function per formula, in array API operations only.

Every function takes the same arrays, `x`, `where`, `temperature` and `weights` (the last three may
be None), reduces over the tuple `axis` and keeps the reduced axes with length 1. Nothing is checked
here and no library is named; `xp` is the namespace of the arrays.

With M the maximum of the scores over the support (the entries that `where` keeps and that are not
-inf), every formula is written in

    z_i = (x_i - M) / temperature,    e_i = exp(z_i),    S = sum of w_i e_i = rest + tops,

where `tops` is the part of the sum at the maximum, where e_i is exactly 1, and `rest` is all other
terms. Keeping the two apart is what saves a dominant entry: log1p(rest + (tops - 1)) is right to
its last digits where the logarithm of S, rounded to 1, is 0 [1]_.

References
----------
.. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax
   functions", IMA J. Numer. Anal. 41(4), 2311-2330, 2021. doi:10.1093/imanum/draa038
"""

from __future__ import annotations

import math
from typing import NamedTuple

from softmaxes._arrays import Array, Axes, Namespace, device

__all__ = ["log_softmax", "logsumexp", "softmax"]


def softmax(
    x: Array, where: Array, temperature: Array, weights: Array, *, axis: Axes, xp: Namespace
) -> Array:
    # With weights, e_i / S is the derivative of logsumexp by w_i; without, by x_i.
    weights, scale = _unit_weights(weights, where, axis=axis, xp=xp)
    s = _exponentials(x, where, temperature, weights, axis=axis, xp=xp)
    y = s.e / (s.rest + s.tops)
    if scale is not None:
        # An entry of weight 0 may lie above the maximum; not every exponential overflows to inf.
        y = xp.where(s.z > math.log(xp.finfo(x.dtype).max), xp.inf, y / scale)
    return xp.where(s.outside, 0.0, y)


def log_softmax(
    x: Array, where: Array, temperature: Array, weights: Array, *, axis: Axes, xp: Namespace
) -> Array:
    # Both terms are <= 0: nothing cancels, so every entry is relatively accurate.
    s = _exponentials(x, where, temperature, weights, axis=axis, xp=xp)
    return xp.where(s.outside, -xp.inf, s.z - xp.log1p(s.rest + (s.tops - 1.0)))


def logsumexp(
    x: Array, where: Array, temperature: Array, weights: Array, *, axis: Axes, xp: Namespace
) -> Array:
    weights, scale = _unit_weights(weights, where, axis=axis, xp=xp)
    s = _exponentials(x, where, temperature, weights, axis=axis, xp=xp)
    log_sum = xp.log1p(s.rest + (s.tops - 1.0))
    limit = s.maximum  # where there is nothing finite to shift by: -inf, +inf or NaN
    if scale is not None:
        # A weighted sum may be far below 1, where S - 1 cancels, and may be negative: NaN.
        total = s.rest + s.tops
        log_sum = xp.where(total < 0.5, xp.log(total), log_sum) + xp.log(scale)
        limit = xp.where((limit == xp.inf) & ~(s.tops > 0), xp.nan, limit)
    return xp.where(xp.isfinite(s.maximum), s.maximum + log_sum, limit)


class _Exponentials(NamedTuple):
    """`z`, `e` and `outside` (the entries that do not count) like x; the others reduced."""

    maximum: Array
    z: Array
    e: Array
    rest: Array
    tops: Array
    outside: Array


def _exponentials(
    x: Array, where: Array, temperature: Array, weights: Array, *, axis: Axes, xp: Namespace
) -> _Exponentials:
    if where is not None:
        x = xp.where(where, x, -xp.inf)
    if temperature is not None and any(temperature.shape[a] > 1 for a in axis):
        x, temperature = _common_temperature(x, temperature, axis=axis, xp=xp)
    if temperature is not None:  # no softmax has a negative one
        x = xp.where((temperature >= 0.0) | (x == -xp.inf), x, xp.nan)
    counted = x if weights is None else xp.where(weights == 0.0, -xp.inf, x)
    maximum = _maximum(counted, axis=axis, xp=xp)
    top = (counted == maximum) & (counted > -xp.inf)
    count = xp.sum(xp.astype(top, x.dtype), axis=axis, keepdims=True)

    z, error = _gaps(x, maximum, temperature, xp=xp)
    undefined = (maximum == xp.inf) & (count > 1.0)  # the limit exists for one +inf only
    z = xp.where(top, xp.where(undefined, xp.nan, -xp.zeros_like(maximum)), z)
    error = xp.where(top, 0.0, error)
    # A factor, not a term: e * error would be flushed to 0 near the subnormal numbers.
    e = xp.exp(z) * (1.0 + error)
    if weights is None:
        outside, terms, tops = counted == -xp.inf, e, count
    else:
        outside = (counted == -xp.inf) & ~xp.isfinite(x)
        terms = xp.where(weights == 0.0, 0.0, weights * e)
        tops = xp.sum(xp.where(top, weights, 0.0), axis=axis, keepdims=True)
    rest = xp.sum(xp.where(top, 0.0, terms), axis=axis, keepdims=True)
    return _Exponentials(maximum, z, e, rest, tops, outside)


def _gaps(x: Array, maximum: Array, temperature: Array, *, xp: Namespace) -> tuple[Array, Array]:
    """
    Return z and an error with z + error = (x - maximum) / temperature to twice the precision.

    The rounding of x - M, half an ulp of a number that may be large, is what costs small
    probabilities their last 6 to 9 bits; exp(z) (1 + error) returns them.
    """
    shift = xp.where(xp.isfinite(maximum), maximum, 0.0)
    if temperature is not None:
        # Halves of both keep x - M from overflowing where the quotient does not.
        x, shift, half = x * 0.5, shift * 0.5, temperature * 0.5
    z = x - shift
    b = z - x
    error = (x - (z - b)) - (shift + b)  # Knuth's TwoSum: z + error = x - shift exactly
    if temperature is not None:
        gap, z = z, xp.where(z == -xp.inf, z, z / half)
        error = (_remainder(gap, z, half, xp=xp) + error) / half
    z = xp.where(maximum == xp.inf, -xp.inf, z)
    return z, xp.where(xp.abs(error) < 1.0, error, 0.0)  # NaN where z is infinite


def _remainder(a: Array, q: Array, b: Array, *, xp: Namespace) -> Array:
    """Return a - q b for q = a / b rounded, by Dekker's splitting: every product is exact."""
    q_high, q_low = _split(q, xp=xp)
    b_high, b_low = _split(b, xp=xp)
    return ((a - q_high * b_high) - q_high * b_low - q_low * b_high) - q_low * b_low


def _split(a: Array, *, xp: Namespace) -> tuple[Array, Array]:
    """Split a into a high and a low half of its digits, a = high + low (Veltkamp)."""
    digits = 1 - round(math.log2(xp.finfo(a.dtype).eps))
    c = a * (2.0 ** math.ceil(digits / 2) + 1.0)
    high = c - (c - a)
    return high, a - high


def _common_temperature(
    x: Array, temperature: Array, *, axis: Axes, xp: Namespace
) -> tuple[Array, Array]:
    """
    Return scores with one temperature per slice, for entries that each have their own.

    Where these are equal they are that temperature, so that its limits hold; elsewhere the scores
    are divided, where 0 / 0 is 0, and the temperature is 1.
    """
    counted = x > -xp.inf
    lowest = -_maximum(xp.where(counted, -temperature, -xp.inf), axis=axis, xp=xp)
    highest = _maximum(xp.where(counted, temperature, -xp.inf), axis=axis, xp=xp)
    quotient = xp.where((x == 0.0) | ~counted, x, x / temperature)
    quotient = xp.where((temperature >= 0.0) | ~counted, quotient, xp.nan)
    common = lowest == highest
    return xp.where(common, x, quotient), xp.where(common, lowest, 1.0)


def _maximum(x: Array, *, axis: Axes, xp: Namespace) -> Array:
    """Return the maximum, -inf over nothing."""
    if any(x.shape[a] == 0 for a in axis):
        kept = {a % x.ndim for a in axis}
        shape = tuple(1 if a in kept else n for a, n in enumerate(x.shape))
        return xp.full(shape, -xp.inf, dtype=x.dtype, device=device(x))
    return xp.max(x, axis=axis, keepdims=True)


def _unit_weights(
    weights: Array, where: Array, *, axis: Axes, xp: Namespace
) -> tuple[Array, Array]:
    """Return the weights divided by the largest, so that no sum overflows, and the largest."""
    if weights is None:
        return None, None
    if where is not None:
        weights = xp.where(where, weights, 0.0)
    scale = _maximum(xp.abs(weights), axis=axis, xp=xp)
    scale = xp.where((scale > 0.0) & xp.isfinite(scale), scale, 1.0)
    return weights / scale, scale
