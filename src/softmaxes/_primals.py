"""
The maths: one short function per formula, in array API operations only.

Every function takes the checked arrays of a call, of which all but `x` may be None, reduces over the
tuple `axis`, and where it reduces keeps the axes with length 1. Nothing is checked here and no
library is named; `xp` is the namespace of the arrays.

With M the maximum of the scores over the support (the entries that `where` keeps, that are not -inf
and whose weight is not 0), every formula is written in

    z_i = (x_i - M) / temperature,    e_i = exp(z_i),    S = sum of w_i e_i = near + rest,

where `near` is the sum of w_i over the entries with e_i > 1/2, without weights their number, and
`rest` the sum of w_i (e_i - 1) over these and of w_i e_i over all others. At a dominant entry near
is 1, and log1p(rest + (near - 1)) is right to its last digits where the logarithm of S, rounded to
1, is 0 [1]_. Among near ties e_i - 1 is exact and small, and its sum keeps the digits that a sum of
numbers close to 1 would drop.

References
----------
.. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax
   functions", IMA J. Numer. Anal. 41(4), 2311-2330, 2021. doi:10.1093/imanum/draa038
"""

from __future__ import annotations

import math
from typing import NamedTuple

from softmaxes._arrays import Array, Arrays, Axes, Namespace, device

__all__ = ["excess", "log_softmax", "logsumexp", "maximum", "softmax"]

LOG_2 = math.log(2.0)


def softmax(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    # With weights, e_i / S is the derivative of logsumexp by w_i; without, by x_i.
    arrays, scale = _unit_weights(arrays, axis=axis, xp=xp)
    s = _exponentials(arrays, axis=axis, xp=xp)
    y = s.e / (s.near + s.rest)
    if scale is not None:
        # An entry of weight 0 may lie above the maximum; not every exponential overflows to inf.
        y = xp.where(s.z > math.log(xp.finfo(y.dtype).max), xp.inf, y / scale)
    return xp.where(s.outside, 0.0, y)


def log_softmax(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    # Both terms are <= 0: nothing cancels, so every entry is relatively accurate.
    s = _exponentials(arrays, axis=axis, xp=xp)
    return xp.where(s.outside, -xp.inf, s.z - xp.log1p(s.excess))


def logsumexp(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    arrays, scale = _unit_weights(arrays, axis=axis, xp=xp)
    s = _exponentials(arrays, axis=axis, xp=xp)
    log_sum = xp.log1p(s.excess)
    limit = s.maximum  # where there is nothing finite to shift by: -inf, +inf or NaN
    if scale is not None:
        # A weighted sum may be far below 1, where S - 1 cancels, and may be negative: NaN.
        total = s.near + s.rest
        log_sum = xp.where(total < 0.5, xp.log(total), log_sum) + xp.log(scale)
        limit = xp.where((limit == xp.inf) & ~(s.near > 0), xp.nan, limit)
    return xp.where(xp.isfinite(s.maximum), s.maximum + log_sum, limit)


def maximum(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    x, _ = _support(arrays, axis=axis, xp=xp)
    return _maximum(x, axis=axis, xp=xp)


def excess(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    return _exponentials(arrays, axis=axis, xp=xp).excess


class _Exponentials(NamedTuple):
    """`z`, `e` and `outside` (the entries that do not count) like x; the others reduced."""

    maximum: Array
    z: Array
    e: Array
    near: Array
    rest: Array
    outside: Array

    @property
    def excess(self) -> Array:
        """S - 1, by which S exceeds the maximum alone."""
        return self.rest + (self.near - 1.0)


def _exponentials(arrays: Arrays, *, axis: Axes, xp: Namespace) -> _Exponentials:
    x, temperature = _support(arrays, axis=axis, xp=xp)
    w = arrays.weights
    scores = x if w is None else xp.where(w == 0.0, -xp.inf, x)
    maximum = _maximum(scores, axis=axis, xp=xp)
    top = (scores == maximum) & (scores > -xp.inf)

    z, error = _gaps(x, maximum, temperature, xp=xp)
    z = xp.where(top, -xp.zeros_like(maximum), z)
    # A factor, not a term: e * error would be flushed to 0 near the subnormal numbers.
    e = xp.exp(z) * (1.0 + xp.where(top, 0.0, error))

    is_near = (z > -LOG_2) & (scores > -xp.inf)
    terms = xp.where(is_near, e - 1.0, e)
    near = count = _sum(xp.astype(is_near, x.dtype), axis=axis, xp=xp)
    if w is not None:
        near = _sum(xp.where(is_near, w, 0.0), axis=axis, xp=xp)
        terms = xp.where(w == 0.0, 0.0, w * terms)
    rest = _sum(terms, axis=axis, xp=xp)

    # Beside one +inf nothing counts; for several no limit exists. A finite score of weight 0 has no
    # part in the sum, but the derivative by its weight is not 0.
    outside = ((scores == -xp.inf) & ~xp.isfinite(x)) | ((maximum == xp.inf) & ~top)
    undefined = top & (maximum == xp.inf) & (count > 1.0)
    z, e = xp.where(undefined, xp.nan, z), xp.where(undefined, xp.nan, e)
    return _Exponentials(maximum, z, e, near, rest, outside)


def _support(arrays: Arrays, *, axis: Axes, xp: Namespace) -> tuple[Array, Array]:
    """Return scores with -inf outside the support, and one temperature per slice."""
    x, where, temperature, _ = arrays
    if where is not None:
        x = xp.where(where, x, -xp.inf)
    if temperature is None:
        return x, None
    if any(temperature.shape[a] > 1 for a in axis):
        x, temperature = _common_temperature(x, temperature, axis=axis, xp=xp)
    # No softmax has a negative temperature.
    return xp.where((temperature >= 0.0) | (x == -xp.inf), x, xp.nan), temperature


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
    z, error = _two_sum(x, -shift)
    if temperature is not None:
        gap, z = z, xp.where(z == -xp.inf, z, z / half)
        error = (_remainder(gap, z, half, xp=xp) + error) / half
    z = xp.where(maximum == xp.inf, -xp.inf, z)
    return z, xp.where(xp.abs(error) < 1.0, error, 0.0)  # NaN where z is infinite


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Return a + b rounded, and the rounding error exactly (Knuth's TwoSum)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


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


def _sum(a: Array, *, axis: Axes, xp: Namespace) -> Array:
    return xp.sum(a, axis=axis, keepdims=True)


def _maximum(x: Array, *, axis: Axes, xp: Namespace) -> Array:
    """Return the maximum, -inf over nothing."""
    if any(x.shape[a] == 0 for a in axis):
        kept = {a % x.ndim for a in axis}
        shape = tuple(1 if a in kept else n for a, n in enumerate(x.shape))
        return xp.full(shape, -xp.inf, dtype=x.dtype, device=device(x))
    return xp.max(x, axis=axis, keepdims=True)


def _unit_weights(arrays: Arrays, *, axis: Axes, xp: Namespace) -> tuple[Arrays, Array]:
    """Return the weights divided by the largest, so that no sum overflows, and the largest."""
    weights = arrays.weights
    if weights is None:
        return arrays, None
    if arrays.where is not None:
        weights = xp.where(arrays.where, weights, 0.0)
    scale = _maximum(xp.abs(weights), axis=axis, xp=xp)
    scale = xp.where((scale > 0.0) & xp.isfinite(scale), scale, 1.0)
    return arrays._replace(weights=weights / scale), scale
