"""
Moderate rows of NumPy, in place: every score so near 0 that its exponential stays in range.

The terms are exp(x). Nothing is shifted, so there is no rounding of a shift to make up for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from softmaxes._arrays import Array
from softmaxes._backends._sums import (
    AT_ONCE,
    Sums,
    bits_of,
    by_parts,
    free_of_nan,
    kept,
    lowest,
    maxima,
    others,
    with_others,
)

__all__ = [
    "BOUNDS",
    "FEW",
    "STALLS",
    "are_in_bounds",
    "are_within",
    "of_few",
    "sums",
    "sums_of_kept",
]

FEW = 1 << 17  # entries, up to which the calls of NumPy count as much as the work they do

# So far below the largest number that in float32 a sum of e^26 exponentials does not reach it.
BOUNDS = {np.dtype(t): 0.7 * math.log(np.finfo(t).max) for t in (np.float32, np.float64)}

# Where NumPy takes the exponential of one number after the other, which -inf or many a 0 would stall.
STALLS = (np.dtype(np.float64),)


def sums(x: Array, out: Array | None, *, cut: int = 0) -> Sums:
    """Return the sums of rows, of which a mask has cut so many scores out, with the terms in out if there is one."""
    place, maximum = maxima(x)
    are_right = are_within(BOUNDS[x.dtype], maximum, x, cut)
    masked = x.dtype in STALLS and bool(lowest(x) == -np.inf)
    return _sums(partial(terms, masked=masked), place, maximum, are_right, out, x)


def sums_of_kept(where: Array, x: Array, out: Array | None) -> Sums:
    """Return the sums of rows that are moderate where a mask keeps them, and above 0 somewhere."""
    z, bits = np.empty_like(x), np.empty(x.shape, f"i{x.itemsize}")
    by_parts(_keep_bits, where, x, bits, z)
    place, maximum = maxima(z)  # of what is kept, if it exceeds the 0 of what is not
    are_right = are_within(BOUNDS[x.dtype], maximum, z, cut=0) & (maximum > 0.0)
    stalls_less = x.dtype in STALLS and lowest(x) >= -BOUNDS[x.dtype]
    scores = x if stalls_less else z
    return _sums(_terms_of_kept, place, maximum, are_right, out, scores, bits)


def of_few(f: Callable[..., Array], x: Array, where: Array | None = None) -> Array | None:
    """Return the result of a few rows, if all are so moderate that no error state is raised."""
    x, bound = x.reshape(-1, x.shape[-1]), BOUNDS[x.dtype] / 4.0
    if where is not None:
        x = kept(x, where)
    place, maximum = maxima(x)
    if not (maximum.item(maximum.argmax()) <= bound and maximum.item(maximum.argmin()) >= -bound):
        return None
    if where is None:
        are_within = x.item(x.argmin()) >= -bound
    else:
        are_within = np.count_nonzero(x >= -bound) == np.count_nonzero(where)
    if not are_within:
        return None
    try:
        found = np.exp(x)
    except FloatingPointError:  # of a subnormal score, on some processors
        return None
    largest = found.reshape(-1)[place][:, None]
    s = Sums(x, found, maximum, largest, others(found, place), np.True_, is_shifted=False)
    return s.result(f).astype(x.dtype, copy=False)


def are_in_bounds(maximum: Array, lowest: Array) -> Array:
    """Tell which rows are moderate."""
    bound = BOUNDS[maximum.dtype]
    return (np.abs(maximum) <= bound) & (lowest >= -bound)


def are_within(bound: float, maximum: Array, x: Array, cut: int) -> Array:
    """Tell which rows are within bounds but for the entries -inf, of which at least so many are, or NaN."""
    low, are_high = lowest(x), np.abs(maximum) <= bound
    if low >= -bound:
        return are_high
    if cut and sum(by_parts(lambda x: np.count_nonzero(x < -bound), x)) == cut:  # these alone
        return are_high
    far = by_parts(lambda x: ((x < -bound) & (x > -np.inf)).any(-1, keepdims=True), x)
    return are_high & ~np.logical_or.reduce(far)


def _sums(
    terms: Callable[..., Array],
    place: Array,
    maximum: Array,
    are_right: Array,
    out: Array | None,
    x: Array,
    *more: Array,
) -> Sums:
    if not np.count_nonzero(are_right):
        return Sums(x, out, maximum, maximum, maximum, are_right)
    if out is None:
        found, rest = None, _rest(terms, place, x, *more)
    else:
        found, rest = with_others(terms, place, out, x, *more)
    return Sums(x, found, maximum, np.exp(maximum), rest, are_right, is_shifted=False)


def _rest(terms: Callable[..., Array], place: Array, *rows: Array) -> Array:
    """Return the sums of the others, of so few rows at a time that their terms take little memory."""
    many, n = rows[0].shape
    found, step = [], max(1, AT_ONCE // n)
    for i in range(0, many, step):
        some = slice(i, i + step)
        found.append(with_others(terms, place[some] - i * n, None, *(a[some] for a in rows))[1])
    return np.concatenate(found)


def terms(x: Array, out: Array | None, *, masked: bool = False) -> Array:
    """Return the terms, in out if there is one."""
    if not masked:
        return np.exp(x, out=out)
    z = np.subtract(x, x, out=out)
    z += x  # NaN for -inf
    np.exp(z, out=z)
    free_of_nan(z)
    return z


def _keep_bits(where: Array, x: Array, bits: Array, z: Array) -> None:
    """Write x, with 0 where a mask is False, and the bits of the mask."""
    np.bitwise_and(x.view(bits.dtype), bits_of(where, bits), out=z.view(bits.dtype))


def _terms_of_kept(z: Array, bits: Array, out: Array | None) -> Array:
    terms = np.exp(z, out=out)
    kept = terms.view(bits.dtype)
    kept &= bits
    return terms
