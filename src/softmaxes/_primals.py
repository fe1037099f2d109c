"""
The maths: one short function per formula, in array API operations only.

Every function takes the checked arrays of a call, of which all but `x` may be None, reduces over the
tuple `axis`, and where it reduces keeps the axes with length 1. Nothing is checked here and no
library is named; `xp` is the namespace of the arrays. They are in the precision to compute in, but
that scores of half precision may come as they are, alone or with a mask.

With M the maximum of the scores over the support (the entries that `where` keeps, that are not -inf
and whose weight is not 0), every formula is written in

    z_i = (x_i - M) / temperature,    t_i = w_i exp(z_i),    S = sum of t_i = whole + rest,

where `whole` is the sum of the t_i rounded to multiples of a power of 2, which is exact in every order of
summation, and `rest` that of what is left of them. Where a few t_i are large, a plain sum drops, one
after the other, many others below half an ulp of it. At a dominant entry whole is 1, and log1p(rest +
(whole - 1)) is right to its last digits where the logarithm of S, rounded to 1, is 0 [1]_. By weights,
which may be large, the t_i are rounded to whole numbers.

References
----------
.. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax
   functions", IMA J. Numer. Anal. 41(4), 2311-2330, 2021. doi:10.1093/imanum/draa038
"""

from __future__ import annotations

import math
from typing import NamedTuple

from softmaxes._arrays import Array, Arrays, Axes, Namespace, are_single, device

__all__ = [
    "cross_entropy",
    "density",
    "entropy",
    "excess",
    "kl_divergence",
    "log_ratio",
    "log_softmax",
    "logsumexp",
    "maximum",
    "reference",
    "shifted",
    "softmax",
    "targets",
]


def softmax(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    if (x := _only_score(arrays, axis=axis, xp=xp)) is not None:
        return xp.where(x > -xp.inf, 1.0, -1.0 / x)  # 0 for -inf, and NaN for NaN
    return _probabilities(_terms(arrays, axis=axis, xp=xp), xp=xp)


def log_softmax(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    if (x := _only_score(arrays, axis=axis, xp=xp)) is not None:
        return xp.where(x > -xp.inf, -0.0, x)  # what is not above -inf is -inf or NaN
    # Both terms are <= 0: nothing cancels, so every entry is relatively accurate.
    s = _terms(arrays, axis=axis, xp=xp)
    y = -(xp.log1p(s.excess) - s.z)
    return xp.where(s.outside, -xp.inf, y)


def logsumexp(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    if (x := _only_score(arrays, axis=axis, xp=xp)) is not None:
        return x + 0.0  # an array of its own
    s = _terms(arrays, axis=axis, xp=xp)
    log_sum = xp.log1p(s.excess)
    if arrays.weights is not None:
        # A weighted sum may be far below 1, where S - 1 cancels, and may be negative: NaN.
        log_sum = xp.where(s.total < 0.5, xp.log(s.total), log_sum)
        log_sum = xp.where((s.maximum == xp.inf) & (s.total < s.size), xp.nan, log_sum)
    return s.maximum + log_sum


def density(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    # exp(z_i) / S: softmax without its factor w_i, the derivative of logsumexp by w_i.
    s = _terms(arrays, axis=axis, xp=xp)
    half = xp.exp(0.5 * s.z)
    y = half * (half * (1.0 + s.error) / _divisor(s, xp=xp))
    # A finite score of weight 0 has no part in the sum, but a derivative by its weight.
    return xp.where(s.outside & ~(xp.isfinite(s.z) & xp.isfinite(s.maximum)), 0.0, y)


def maximum(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    x, _, _ = _support(arrays, axis=axis, xp=xp)
    return _maximum(x, axis=axis, xp=xp)


def excess(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    return _terms(arrays, axis=axis, xp=xp).excess


# Losses: sums over a slice of terms >= 0, so that nothing cancels. A factor of 0 makes a term 0.


def cross_entropy(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    s = _terms(arrays, axis=axis, xp=xp)
    q = targets(arrays, axis=axis, xp=xp)
    costs = _costs(q, s, xp=xp)
    if arrays.label_smoothing is not None or not xp.isdtype(arrays.labels.dtype, "integral"):
        # The difference of two scores may overflow where a part of it does not.
        apart = (s.z == -xp.inf) & ~s.outside & xp.isfinite(s.maximum)
        costs = xp.where(apart, q * s.maximum - q * arrays.x, costs)
    loss = _expected_cost(q, costs, s, axis=axis, xp=xp)
    return xp.where(s.maximum == -xp.inf, 0.0, loss)


def targets(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    # The weights q_i of -log p_i in the cross-entropy. A number that names no class makes them NaN.
    x, q = arrays.x, arrays.labels
    if xp.isdtype(q.dtype, "integral"):
        place, n = _places(x, axis=axis, xp=xp)
        q = xp.where((q >= 0) & (q < n), xp.astype(q == place, x.dtype), xp.nan)
    if arrays.label_smoothing is None:
        return q
    scores, _, _ = _support(arrays, axis=axis, xp=xp)
    support = scores != -xp.inf
    n = _sum(xp.astype(support, x.dtype), axis=axis, xp=xp)
    share = arrays.label_smoothing * _sum(q, axis=axis, xp=xp) / xp.where(n == 0.0, 1.0, n)
    return (1.0 - arrays.label_smoothing) * q + xp.where(support, share, 0.0)


def entropy(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    s = _terms(arrays, axis=axis, xp=xp)
    p = _probabilities(s, xp=xp)
    h = _expected_cost(p, _costs(p, s, xp=xp), s, axis=axis, xp=xp)
    return xp.where(s.maximum == -xp.inf, 0.0, h)


def shifted(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    # log p up to a constant for each slice; 0 where p is.
    s = _terms(arrays, axis=axis, xp=xp)
    return xp.where(s.outside, 0.0, s.z)


def kl_divergence(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    # Σ p r = Σ p (r + e^-r - 1) for the log-ratio r = log(p / q), since Σ p e^-r = Σ q = 1. An error
    # common to all r changes the second sum by its square alone, where p and q are close.
    p, q, r = _distributions(arrays, axis=axis, xp=xp)
    terms = xp.where(xp.abs(r) < 2.0, p * _excess_of_exp(-r), p * r + (q - p))
    divergence = _sum(xp.where(p == 0.0, q, terms), axis=axis, xp=xp)
    return xp.where(_sum(p, axis=axis, xp=xp) == 0.0, 0.0, divergence)


def reference(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    return softmax(Arrays(arrays.q_logits, arrays.where), axis=axis, xp=xp)


def log_ratio(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array:
    _, _, r = _distributions(arrays, axis=axis, xp=xp)
    return r


def _distributions(arrays: Arrays, *, axis: Axes, xp: Namespace) -> tuple[Array, Array, Array]:
    """
    Return p, q and r = log(p / q), 0 where p is.

    The ratio is that of the differences of the scores, each with its rounding error.
    """
    s = _terms(arrays, axis=axis, xp=xp)
    t = _terms(Arrays(arrays.q_logits, arrays.where), axis=axis, xp=xp)
    p, q = _probabilities(s, xp=xp), _probabilities(t, xp=xp)
    r = (s.z - t.z) + (s.error - t.error) + (xp.log1p(t.excess) - xp.log1p(s.excess))
    r = xp.where(p == 0.0, 0.0, xp.where(t.outside, xp.inf, r))
    # The logarithms err together, and Σ q - p = 0 tells by how much.
    change = xp.where((p != 0.0) & (xp.abs(r) < 1.0), p * xp.expm1(-r), q - p)
    off = _sum(change, axis=axis, xp=xp)
    r = xp.where(p == 0.0, 0.0, r + xp.where(xp.abs(off) < 0.5, xp.log1p(off), 0.0))
    return p, q, r


def _costs(q: Array, s: _Terms, *, xp: Namespace) -> Array:
    """Return -q z, which is 0 where q is."""
    z = xp.where(s.outside, -xp.inf, s.z)
    return xp.where(q == 0.0, 0.0, -q * z)


def _expected_cost(q: Array, costs: Array, s: _Terms, *, axis: Axes, xp: Namespace) -> Array:
    """Return -Σ q log p, of whose two parts none is negative."""
    below = _sum(costs, axis=axis, xp=xp)
    return _sum(q, axis=axis, xp=xp) * xp.log1p(s.excess) + below


def _excess_of_exp(a: Array) -> Array:
    """Return e^a - 1 - a for |a| < 2, by its Taylor series; the term left out is below 1e-17 of it."""
    series = 1.0
    for k in range(24, 2, -1):
        series = 1.0 + a / k * series
    return 0.5 * a * a * series


def _places(x: Array, *, axis: Axes, xp: Namespace) -> tuple[Array, int]:
    """Number the entries of a slice from 0, the last of the axes fastest; return how many there are."""
    place, total = 0, 1
    for a in axis:
        n = x.shape[a]
        shape = tuple(n if i == a % x.ndim else 1 for i in range(x.ndim))
        place = place * n + xp.reshape(xp.arange(n, device=device(x)), shape)
        total *= n
    return place, total


class _Terms(NamedTuple):
    """
    `maximum`, `total`, `excess` and `size` reduced, the others like x; `outside` is not in the support.

    `total` is S, and `excess` is S - 1, by which S exceeds the maximum alone. `size` is the sum of
    the absolute values of the terms.
    """

    maximum: Array
    z: Array
    error: Array
    terms: Array
    total: Array
    excess: Array
    size: Array
    outside: Array


def _probabilities(s: _Terms, *, xp: Namespace) -> Array:
    # Where several +inf have no limit the others are 0, but a NaN leaves nothing but what is outside.
    nothing = xp.where(xp.isnan(s.total), s.total, 0.0)
    y = xp.where(s.terms == 0.0, nothing, s.terms / _divisor(s, xp=xp))
    return xp.where(s.outside, 0.0, y)


def _divisor(s: _Terms, *, xp: Namespace) -> Array:
    """Return S, 1 for an empty slice, and NaN for several +inf, which have no limit."""
    total = xp.where(s.maximum == -xp.inf, 1.0, s.total)
    return xp.where((s.maximum == xp.inf) & (s.size > 1.0), xp.nan, total)


def _terms(arrays: Arrays, *, axis: Axes, xp: Namespace) -> _Terms:
    x, low, temperature = _support(arrays, axis=axis, xp=xp)
    x, w, scores = _finite_weights(x, arrays.weights, xp=xp)
    maximum = _shift(scores, w, axis=axis, xp=xp)
    outside = scores == -xp.inf
    narrow = xp.finfo(x.dtype).bits < 32
    if narrow:
        maximum = xp.astype(maximum, xp.float32)
        z, error = _gaps_of_narrow(xp.astype(x, xp.float32), maximum, xp=xp), 0.0
    else:
        top = (scores == maximum) & ~outside
        z, error = _gaps_to(top, x, low, maximum, temperature, axis=axis, xp=xp)

    # A factor, not a term: e * error would be flushed to 0 near the subnormal numbers.
    terms = (xp.exp(z) if w is None else _weighted_exp(z, w, xp=xp)) * (1.0 + error)
    # XLA on the CPU takes no selection into a sum: so it makes the terms once, and not for each sum.
    vanishes = outside | (z == -xp.inf)
    terms, error = xp.where(vanishes, 0.0, terms), xp.where(vanishes, 0.0, error)
    # The same multiples in two expressions, since XLA on the CPU writes to memory what has two uses.
    unit = 1.0 if w is not None else _unit(terms, axis=axis, xp=xp)
    whole = unit * _sum(xp.round(terms / unit), axis=axis, xp=xp)
    rest = _sum(terms + unit * xp.round(terms / -unit), axis=axis, xp=xp)
    total = _sum(terms, axis=axis, xp=xp) if narrow else whole + rest
    size = total if w is None else _sum(xp.abs(terms), axis=axis, xp=xp)

    maximum = xp.where(xp.isnan(total), total, maximum)  # XLA on the CPU may find one past a NaN
    undefined = (z == 0.0) & (maximum == xp.inf) & (size > 1.0)  # no limit for several +inf
    z = xp.where(undefined, xp.nan, z)
    return _Terms(maximum, z, error, terms, total, rest + (whole - 1.0), size, outside)


def _unit(x: Array, *, axis: Axes, xp: Namespace) -> float:
    """
    Return a power of 2, so small that what is left of terms of at most 1 loses little in its sum.

    The sum of its multiples next to them is exact, in whatever order: it has no more digits than a term.
    """
    lengths = [x.shape[a] for a in axis]
    if not all(isinstance(n, int) for n in lengths):
        return 1.0
    _, exponent = math.frexp(math.prod(lengths))
    return min(1.0, 2.0**exponent * float(xp.finfo(x.dtype).eps))


def _gaps_to(
    top: Array,
    x: Array,
    low: Array,
    maximum: Array,
    temperature: Array,
    *,
    axis: Axes,
    xp: Namespace,
) -> tuple[Array, Array]:
    """Return z and its error, both 0 at the entries that are the maximum."""
    # A compiler that made x, a product, once more and in one rounding with the difference would find
    # no entry equal to the maximum. It does not look through a selection.
    x = xp.where(top, _finite(maximum, xp=xp), x)
    z, error = _gaps(x, maximum, temperature, xp=xp)
    z = xp.where(top, 0.0, z)
    if low is not None:
        error = error + (low - _maximum(xp.where(top, low, -xp.inf), axis=axis, xp=xp))
        error = xp.where(xp.abs(error) < 1.0, error, 0.0)
    return z, error


def _gaps_of_narrow(x: Array, maximum: Array, *, xp: Namespace) -> Array:
    """
    Return z for numbers of half precision, in single precision.

    A result rounded to half precision does not show how the difference was rounded. Nothing is
    selected entry by entry: XLA on the CPU would write z for each use that is made of it. Instead
    +inf counts as the largest number of single precision, from which the others differ by so much
    that a multiple of the difference is -inf.
    """
    infinite = maximum == xp.inf
    shift = xp.where(infinite, xp.finfo(x.dtype).max, _finite(maximum, xp=xp))
    return (xp.minimum(x, shift) - shift) * xp.where(infinite, 1024.0, xp.ones_like(shift))


def _weighted_exp(z: Array, w: Array, *, xp: Namespace) -> Array:
    half = xp.exp(0.5 * z)  # so that a large weight and a small exponential meet halfway
    return (w * half) * half


def _support(arrays: Arrays, *, axis: Axes, xp: Namespace) -> tuple[Array, Array, Array]:
    """Return scores with -inf outside the support, their low parts, one temperature per slice."""
    x, temperature = arrays.x, arrays.temperature
    if arrays.where is not None:
        x = xp.where(arrays.where, x, -xp.inf)
    if temperature is None:
        return x, None, None
    # No softmax has a negative temperature.
    x = xp.where((temperature >= 0.0) | (x == -xp.inf), x, xp.nan)
    if any(temperature.shape[a] > 1 for a in axis):
        return _common_temperature(x, temperature, axis=axis, xp=xp)
    return x, None, temperature


def _only_score(arrays: Arrays, *, axis: Axes, xp: Namespace) -> Array | None:
    """
    Return the scores of slices that are known to have but one each, without weights, and else None.

    Such a score is the maximum, and S is 1: nothing is left to compute.
    """
    if arrays.weights is not None or not are_single(arrays.x, axis):
        return None
    x, _, _ = _support(arrays, axis=axis, xp=xp)
    return x


def _common_temperature(
    x: Array, temperature: Array, *, axis: Axes, xp: Namespace
) -> tuple[Array, Array, Array]:
    """
    Return scores with one temperature per slice, for entries that each have their own.

    Where these are equal they are that temperature, so that its limits hold; elsewhere the scores
    are divided, where 0 / 0 is 0, and the temperature is 1.
    """
    counted = x != -xp.inf
    lowest = -_maximum(xp.where(counted, -temperature, -xp.inf), axis=axis, xp=xp)
    highest = _maximum(xp.where(counted, temperature, -xp.inf), axis=axis, xp=xp)
    common = lowest == highest
    quotient, low = _quotient(x, temperature, xp=xp)
    divided = ~common & counted & (x != 0.0)
    low = xp.where(divided & (xp.abs(low) < 1.0), low, 0.0)
    return xp.where(divided, quotient, x), low, xp.where(common, lowest, 1.0)


def _finite_weights(x: Array, w: Array, *, xp: Namespace) -> tuple[Array, Array, Array]:
    """Return scores and finite weights, an infinite weight as an infinite score, and the support."""
    if w is None:
        return x, None, x
    infinite = (xp.abs(w) == xp.inf) & (x > -xp.inf)
    x = xp.where(infinite, xp.inf, x)
    w = xp.where(x == xp.inf, xp.sign(w), w)
    return x, w, xp.where(w == 0.0, -xp.inf, x)


def _shift(scores: Array, w: Array, *, axis: Axes, xp: Namespace) -> Array:
    """Return the maximum of the scores, or of score + log |w| where the two are far apart."""
    maximum = _maximum(scores, axis=axis, xp=xp)
    if w is None:
        return maximum
    keys = xp.where(scores == -xp.inf, -xp.inf, scores + xp.log(xp.abs(w)))
    largest = _maximum(keys, axis=axis, xp=xp)
    # exp(30) is within the range of every dtype, and the logarithm of a sum up to it exact enough.
    return xp.where(xp.abs(largest - maximum) > 30.0, largest, maximum)


def _gaps(x: Array, maximum: Array, temperature: Array, *, xp: Namespace) -> tuple[Array, Array]:
    """
    Return z and an error with z + error = (x - maximum) / temperature to twice the precision.

    The rounding of x - M, half an ulp of a number that may be large, is what costs small
    probabilities their last 6 to 9 bits; exp(z) (1 + error) returns them. It may be NaN where z
    is infinite.
    """
    shift = _finite(maximum, xp=xp)
    if temperature is not None:
        # Halves keep x - M from overflowing where the quotient does not; of small numbers, multiples
        # keep the error from being flushed to 0.
        large = _large(x, xp=xp)
        scale = xp.where(temperature < 1.0 / large, large**0.5, xp.ones_like(temperature))
        scale = xp.where(xp.abs(shift) > 1.0, 0.5, scale)
        x, shift, temperature = x * scale, shift * scale, temperature * scale
    z, error = _two_sum(x, -shift)
    if temperature is not None:
        quotient, low = _quotient(z, temperature, xp=xp)
        lost = (z == -xp.inf) | ((temperature == 0.0) & (z <= 0.0))
        z, error = xp.where(lost, -xp.inf, quotient), low + error / temperature
        error = xp.where(xp.abs(error) < 1.0, error, 0.0)  # NaN where the temperature is 0 or inf
    # Not a selection: XLA on the CPU may find +inf past a NaN, which has to stay one.
    return xp.minimum(z, xp.where(maximum == xp.inf, -maximum, xp.inf)), error


def _finite(maximum: Array, *, xp: Namespace) -> Array:
    return xp.where(xp.abs(maximum) == xp.inf, 0.0, maximum)


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Return a + b rounded, and the rounding error exactly (Knuth's TwoSum)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _quotient(a: Array, b: Array, *, xp: Namespace) -> tuple[Array, Array]:
    """Return q = a / b rounded and (a - q b) / b, by Dekker's splitting: every product is exact."""
    q = a / b
    # A power of 2 brings b to where its halves neither overflow nor underflow.
    large = _large(a, xp=xp)
    scale = xp.where(b > large**0.5, 1.0 / large, xp.where(b < large**-0.5, large, xp.ones_like(b)))
    a, b = a * scale, b * scale
    q_high, q_low = _split(q, xp=xp)
    b_high, b_low = _split(b, xp=xp)
    return q, (((a - q_high * b_high) - q_high * b_low - q_low * b_high) - q_low * b_low) / b


def _large(a: Array, *, xp: Namespace) -> float:
    """Return a power of 2 near the square root of the largest number of the dtype."""
    return float(2.0 ** (math.frexp(xp.finfo(a.dtype).max)[1] // 2))


def _split(a: Array, *, xp: Namespace) -> tuple[Array, Array]:
    """Split a into a high and a low half of its digits, a = high + low (Veltkamp)."""
    digits = 1 - round(math.log2(xp.finfo(a.dtype).eps))
    c = a * (2.0 ** math.ceil(digits / 2) + 1.0)
    high = c - (c - a)
    return high, a - high


def _maximum(x: Array, *, axis: Axes, xp: Namespace) -> Array:
    """Return the maximum, -inf over nothing."""
    if 0 in x.shape:
        kept = {a % x.ndim for a in axis}
        shape = tuple(1 if a in kept else n for a, n in enumerate(x.shape))
        return xp.full(shape, -xp.inf, dtype=x.dtype, device=device(x))
    return xp.max(x, axis=axis, keepdims=True)


def _sum(a: Array, *, axis: Axes, xp: Namespace) -> Array:
    return xp.sum(a, axis=axis, keepdims=True)
