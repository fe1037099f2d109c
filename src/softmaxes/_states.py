"""
The maths of a softmax seen in pieces: one short function per formula, array API operations only.

A state stands for the entries seen so far. With M their maximum, and r the multiple of 16 next to
it, it holds M and

    rest = sum of exp(x_i - r) over all entries but one at the maximum,

so that T = S - 1 = rest exp(r - M) is small where one entry dominates, and never a difference. Were
the rest in units of exp(M), every new maximum would rescale it and round it, thousands of times for
scores that rise slowly [1]_. In units of exp(r) it is rescaled only when r changes, and each time to
exp(-16) of what it was, so that few rescalings ever count.

The sums, of the rest and of the mean of the values, are unevaluated sums of two numbers [2]_: what a
rounding drops is carried along, and ten thousand single entries lose no more digits than one array.

Of two states one is selected, and where they tie either will do, so `merge` may be differentiated as
it stands, in every order. The formulas that read a state have a rule beside them.

References
----------
.. [1] M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax", 2018.
   doi:10.48550/arXiv.1805.02867
.. [2] T. J. Dekker, "A floating-point technique for extending the available precision", Numer.
   Math. 18, 224-242, 1971. doi:10.1007/BF01397083
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from softmaxes._arrays import Array, Arrays, Axes, Namespace
from softmaxes._primals import _gaps, _sum, _support, _two_sum

__all__ = [
    "Reading",
    "State",
    "excess",
    "log_softmax",
    "logsumexp",
    "logsumexp_jvp",
    "maximum",
    "mean",
    "merge",
    "piece",
    "softmax",
    "softmax_jvp",
]


class State(NamedTuple):
    """The fields of a state, of which `online.State` tells the meaning."""

    maximum: Array
    rest: Array
    rest_low: Array
    mean: Array = None
    mean_low: Array = None


@dataclass(frozen=True)
class Reading:
    """A formula of the scores and the state, as one of the arrays of a call and the state."""

    formula: Callable[..., Array]

    def __call__(self, arrays: Arrays, state: State, *, axis: Axes, xp: Namespace) -> Array:
        x, *_ = _support(arrays, axis=axis, xp=xp)
        return self.formula(x, state, xp=xp)


GRID = 16.0


def mean(p: Array, values: Array, *, axis: Axes, xp: Namespace) -> Array:
    """Return the mean of values with probabilities p; where p = 0 anything may stand."""
    return _sum(p * xp.where(p == 0.0, 0.0, values), axis=axis, xp=xp)


def piece(maximum: Array, excess: Array, mean: Array, *, xp: Namespace) -> tuple[Array, ...]:
    """Return the fields of a state for entries with the given M, T and mean."""
    maximum = xp.where(xp.isnan(excess), maximum + excess, maximum)  # XLA may find one past a NaN
    rest = excess * _power(maximum, _reference(maximum, xp=xp), xp=xp)
    low = None if mean is None else xp.zeros_like(mean)
    return maximum, rest, xp.zeros_like(rest), mean, low


def merge(a: State, b: State, *, xp: Namespace) -> State:
    # One of the two maxima stays the maximum; the other becomes an entry among the rest.
    first = (a.maximum >= b.maximum) | xp.isnan(a.maximum)
    upper, lower = _select(first, a, b, xp=xp), _select(first, b, a, xp=xp)
    reference = _reference(upper.maximum, xp=xp)
    entry = _power(lower.maximum, reference, xp=xp)
    scale = _power(_reference(lower.maximum, xp=xp), reference, xp=xp)
    scaled = lower._replace(rest=lower.rest * scale, rest_low=lower.rest_low * scale)

    rest, error = _two_sum(upper.rest, scaled.rest)
    rest, lost = _two_sum(rest, entry)
    rest, low = _two_sum(rest, upper.rest_low + scaled.rest_low + error + lost)
    merged = upper._replace(rest=rest, rest_low=low)
    if upper.mean is None:
        return merged
    weights = _power(upper.maximum, reference, xp=xp) + upper.rest, entry + scaled.rest
    return _with_mean(merged, upper, lower, *weights, xp=xp)


def maximum(state: State, *, xp: Namespace) -> Array:
    return state.maximum


def excess(state: State, *, xp: Namespace) -> Array:
    """Return T = S - 1."""
    return state.rest * _power(_reference(state.maximum, xp=xp), state.maximum, xp=xp)


# y = log(e^M + e^r R),    dy = (e^(M - r) dM + dR) / (e^(M - r) + R)
#
# Differentiated as it stands, M + log1p(T) would give the maximum 1 - T / (1 + T).


def logsumexp(state: State, *, xp: Namespace) -> Array:
    log_sum = state.maximum + xp.log1p(excess(state, xp=xp))
    return xp.where(xp.isfinite(state.maximum), log_sum, state.maximum)


def logsumexp_jvp(
    y: Array, arguments: tuple[State], tangents: tuple[State], *, xp: Namespace
) -> Array:
    (state,), (moving,) = arguments, tangents
    top = _power(state.maximum, _reference(state.maximum, xp=xp), xp=xp)
    total = top + state.rest
    by_rest = moving.rest + moving.rest_low
    return (top * moving.maximum + by_rest) / xp.where(total == 0.0, 1.0, total)


# p = e^(x - y),    dp = p (dx - dy)


def softmax(x: Array, state: State, *, xp: Namespace) -> Array:
    # Changes nothing, but no compiler contracts a product in x and the subtraction through it.
    x = xp.where(x < -xp.finfo(x.dtype).max, -xp.inf, x)
    total = 1.0 + excess(state, xp=xp)
    p = _power(x, state.maximum, xp=xp) / total
    p = xp.where((x == xp.inf) & (total > 1.0), xp.nan, p)  # several +inf: no limit exists
    p = xp.where(state.maximum == -xp.inf, xp.inf, p)  # an entry that the state has not seen
    return xp.where(x == -xp.inf, 0.0, p)


def log_softmax(x: Array, state: State, *, xp: Namespace) -> Array:
    total = excess(state, xp=xp)
    z, _ = _gaps(x, state.maximum, None, xp=xp)
    z = xp.where(x == xp.inf, xp.where(total > 0.0, xp.nan, 0.0), z)  # several +inf: no limit
    return xp.where(x == -xp.inf, -xp.inf, -(xp.log1p(total) - z))  # -0 where it rounds to 0


def softmax_jvp(
    p: Array, arguments: tuple[Array, State], tangents: tuple[Array, State], *, xp: Namespace
) -> Array:
    (_, state), (dx, moving) = arguments, tangents
    dy = logsumexp_jvp(p, (state,), (moving,), xp=xp)
    return xp.where(p == 0.0, 0.0, p * (dx - dy))


def _with_mean(
    merged: State, a: State, b: State, weight_a: Array, weight_b: Array, *, xp: Namespace
) -> State:
    """Return the merged state with the mean of both, the heavier one corrected by the other."""
    first = weight_a >= weight_b
    heavy, light = _select(first, a, b, xp=xp), _select(first, b, a, xp=xp)
    total = weight_a + weight_b
    weight = xp.where(total > 0.0, xp.where(first, weight_b, weight_a), 0.0)
    share = weight / xp.where(total > 0.0, total, 1.0)

    gap = (light.mean - heavy.mean) + (light.mean_low - heavy.mean_low)
    mean, lost = _two_sum(heavy.mean, share * gap)
    mean, low = _two_sum(mean, heavy.mean_low + lost)

    # Infinite values, or an overflow of their difference; a share of 0 of anything is 0.
    average = (1.0 - share) * heavy.mean + xp.where(share == 0.0, 0.0, share * light.mean)
    mean, low = xp.where(xp.isfinite(gap), mean, average), xp.where(xp.isfinite(gap), low, 0.0)
    several = (merged.maximum == xp.inf) & (merged.rest > 0.0)
    mean = xp.where(several | xp.isnan(merged.maximum), xp.nan, mean)
    return merged._replace(mean=mean, mean_low=low)


def _reference(maximum: Array, *, xp: Namespace) -> Array:
    return GRID * xp.round(maximum / GRID)


def _power(x: Array, reference: Array, *, xp: Namespace) -> Array:
    """Return exp(x - reference): beside +inf nothing counts, and -inf never does."""
    z, error = _gaps(x, reference, None, xp=xp)
    error = xp.where(xp.abs(error) < 1.0, error, 0.0)  # NaN where z is infinite
    both = (x == xp.inf) & (reference == xp.inf)
    return xp.where(both, 1.0, xp.exp(z) * (1.0 + error))


def _select(condition: Array, a: State, b: State, *, xp: Namespace) -> State:
    pairs = zip(a, b, strict=True)
    return type(a)(*(None if one is None else xp.where(condition, one, two) for one, two in pairs))
