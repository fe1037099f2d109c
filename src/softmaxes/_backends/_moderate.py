"""
Moderate rows of NumPy, in place: every score so near 0 that its exponential stays in range.

The terms are exp(x). Nothing is shifted, so there is no rounding of a shift to make up for.
"""

from __future__ import annotations

import math

import numpy as np

from softmaxes._arrays import Array
from softmaxes._backends._sums import Sums, by_parts, free_of_nan, lowest, others, top

__all__ = ["sums"]

# So far below the largest number that in float32 a sum of e^26 exponentials does not reach it.
BOUNDS = {np.dtype(t): 0.7 * math.log(np.finfo(t).max) for t in (np.float32, np.float64)}


def sums(x: Array, out: Array) -> Sums:
    """Return the sums of rows, with the terms in out."""
    place = top(x)
    maximum = x.reshape(-1)[place][:, None]
    z, low = x, lowest(x)
    if low == -np.inf:
        z = out
        by_parts(_without_infinities, x, z)
        low = lowest(z)
    bound = BOUNDS[x.dtype]
    are_right = np.abs(maximum) <= bound
    if not low >= -bound:
        are_right &= lowest(z, axis=-1) >= -bound
    if not np.count_nonzero(are_right):
        return Sums(x, out, maximum, maximum, maximum, maximum, are_right)
    by_parts(_terms, x, z, out)
    largest, rest = out.reshape(-1)[place][:, None], others(out, place)
    excess = rest / np.exp(maximum, dtype=np.float64)  # in float32 exp errs by 2.5 ulp
    return Sums(x, out, maximum, largest, rest, excess, are_right)


def _without_infinities(x: Array, out: Array) -> None:
    """Write x, with NaN for -inf, of which exp takes five times as long."""
    np.subtract(x, x, out=out)
    out += x


def _terms(x: Array, z: Array, out: Array) -> None:
    np.exp(z, out=out)
    if z is not x:
        free_of_nan(out)
