"""
Moderate rows of NumPy, in place: every score so near 0 that its exponential stays in range.

The terms are exp(x). Nothing is shifted, so there is no rounding of a shift to make up for.
"""

from __future__ import annotations

import math

import numpy as np

from softmaxes._arrays import Array
from softmaxes._backends._sums import Sums, by_parts, free_of_nan, lowest, others, top

__all__ = ["BOUNDS", "FEW", "are_in_bounds", "of_rest", "sums", "sums_of_few"]

FEW = 2048  # entries, below which the calls of NumPy count, not the work they do

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
    are_right = are_in_bounds(maximum, low)
    if not low >= -BOUNDS[x.dtype]:
        are_right = are_in_bounds(maximum, lowest(z, axis=-1))
    if not np.count_nonzero(are_right):
        return Sums(x, out, maximum, maximum, maximum, maximum, are_right)
    by_parts(terms, x, z, out)
    return _of_terms(x, out, place, maximum, are_right)


def sums_of_few(x: Array) -> Sums | None:
    """Return the sums of a few rows all of which are so moderate that no error state is raised."""
    if not np.maximum.reduce(np.abs(x), None) <= BOUNDS[x.dtype] / 4.0:
        return None
    place = top(x)
    return _of_terms(x, np.exp(x), place, x.reshape(-1)[place][:, None], np.True_)


def are_in_bounds(maximum: Array, lowest: Array) -> Array:
    """Tell which rows are moderate."""
    bound = BOUNDS[maximum.dtype]
    return (np.abs(maximum) <= bound) & (lowest >= -bound)


def of_rest(
    x: Array, terms: Array, maximum: Array, largest: Array, rest: Array, are_right: Array
) -> Sums:
    """Return the sums of rows, of which what the others than the largest add up to is known."""
    excess = rest / np.exp(maximum, dtype=np.float64)  # in float32 exp errs by 2.5 ulp
    return Sums(x, terms, maximum, largest, rest, excess, are_right)


def _of_terms(x: Array, terms: Array, place: Array, maximum: Array, are_right: Array) -> Sums:
    largest = terms.reshape(-1)[place][:, None]
    return of_rest(x, terms, maximum, largest, others(terms, place), are_right)


def _without_infinities(x: Array, out: Array) -> None:
    """Write x, with NaN for -inf, of which exp takes five times as long."""
    np.subtract(x, x, out=out)
    out += x


def terms(x: Array, z: Array, out: Array) -> None:
    np.exp(z, out=out)
    if z is not x:
        free_of_nan(out)
