"""
Moderate rows of NumPy, in place: every score so near 0 that its exponential stays in range.

The terms are exp(x). Nothing is shifted, so there is no rounding of a shift to make up for.
"""

from __future__ import annotations

import math

import numpy as np

from softmaxes._arrays import Array
from softmaxes._backends._sums import Sums, bits_of, by_parts, free_of_nan, lowest, others, top

__all__ = [
    "BOUNDS",
    "FEW",
    "STALLS",
    "are_in_bounds",
    "of_rest",
    "sums",
    "sums_of_few",
    "sums_of_kept",
]

FEW = 2048  # entries, below which the calls of NumPy count, not the work they do

# So far below the largest number that in float32 a sum of e^26 exponentials does not reach it.
BOUNDS = {np.dtype(t): 0.7 * math.log(np.finfo(t).max) for t in (np.float32, np.float64)}


# Where NumPy takes the exponential of one number after the other, which -inf or many a 0 would stall.
STALLS = (np.dtype(np.float64),)


def sums(x: Array, out: Array) -> Sums:
    """Return the sums of rows, with the terms in out."""
    place = top(x)
    maximum = x.reshape(-1)[place][:, None]
    z = x
    if x.dtype in STALLS and lowest(x) == -np.inf:
        z = out
        by_parts(_without_infinities, x, z)
    are_right = _are_in_bounds(maximum, z)
    if np.count_nonzero(are_right):
        by_parts(terms, x, z, out)
    return _of_terms(x, out, place, maximum, are_right)


def sums_of_kept(where: Array, x: Array, out: Array) -> Sums:
    """Return the sums of rows that are moderate where a mask keeps them, and above 0 somewhere."""
    z, bits = np.empty_like(x), np.empty(x.shape, f"i{x.itemsize}")
    by_parts(_keep_bits, where, x, bits, z)
    place = top(z)
    maximum = z.reshape(-1)[place][:, None]  # of what is kept, if it exceeds the 0 of what is not
    are_right = _are_in_bounds(maximum, z) & (maximum > 0.0)
    if np.count_nonzero(are_right):
        stalls_less = x.dtype in STALLS and lowest(x) >= -BOUNDS[x.dtype]
        by_parts(_terms_of_kept, x if stalls_less else z, bits, out)
    return _of_terms(z, out, place, maximum, are_right)


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


def _are_in_bounds(maximum: Array, x: Array) -> Array:
    """Tell which rows are moderate but for the entries -inf or NaN."""
    low, bound = lowest(x), BOUNDS[x.dtype]
    if low >= -bound:
        return are_in_bounds(maximum, low)
    are_below = x < -bound
    if np.count_nonzero(are_below) == np.count_nonzero(x == -np.inf):
        return are_in_bounds(maximum, maximum)
    are_below &= x > -np.inf
    return are_in_bounds(maximum, maximum) & ~are_below.any(-1, keepdims=True)


def _of_terms(x: Array, terms: Array, place: Array, maximum: Array, are_right: Array) -> Sums:
    largest = terms.reshape(-1)[place][:, None]
    return of_rest(x, terms, maximum, largest, others(terms, place), are_right)


def _without_infinities(x: Array, out: Array) -> None:
    """Write x, with NaN for -inf."""
    np.subtract(x, x, out=out)
    out += x


def terms(x: Array, z: Array, out: Array) -> None:
    np.exp(z, out=out)
    if z is not x:
        free_of_nan(out)


def _keep_bits(where: Array, x: Array, bits: Array, z: Array) -> None:
    """Write x, with 0 where a mask is False, and the bits of the mask."""
    bits[...] = bits_of(where, x.dtype)
    np.bitwise_and(x.view(bits.dtype), bits, out=z.view(bits.dtype))


def _terms_of_kept(z: Array, bits: Array, out: Array) -> None:
    np.exp(z, out=out)
    terms = out.view(bits.dtype)
    terms &= bits
