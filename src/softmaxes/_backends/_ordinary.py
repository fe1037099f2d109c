"""
Ordinary rows of NumPy, those with a finite maximum, in place.

With M the maximum and z + error = x - M exactly, the terms are exp(z) (1 + error), and that of the
first maximum is 1. Of a row in pieces its state tells M and S - 1.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from softmaxes import _states
from softmaxes._arrays import Array
from softmaxes._backends._sums import Sums, by_parts, free_of_nan, lowest, maxima, with_others
from softmaxes._states import State

__all__ = ["gaps", "sums", "sums_given", "terms"]

LONG = 1024  # entries of a row, beside which what is done once for each row counts little


def sums(x: Array, out: Array | None) -> Sums:
    """Return the sums of rows, with the terms in out if there is one."""
    place, maximum = maxima(x)
    masked = bool(lowest(x) == -np.inf)
    found, rest = with_others(partial(terms, maximum, masked=masked), place, out, x)
    if np.isnan(rest).any() and not masked:  # x - M left the range
        found, rest = with_others(partial(terms, maximum, masked=True), place, out, x)
    return Sums(x, found, maximum, x.dtype.type(1.0), rest, np.isfinite(maximum))


def sums_given(state: State, x: Array, out: Array, *, has_terms: bool) -> Sums:
    """Return the sums of rows of which x is a piece, with its terms in out."""
    if has_terms:  # as if masked, for no sum tells of an -inf
        by_parts(partial(terms, state.maximum, masked=True), x, out)
    rest = _states.excess(state, xp=np)
    are_right = np.isfinite(rest - state.maximum)
    return Sums(x, out, state.maximum, x.dtype.type(1.0), rest, are_right)


def terms(maximum: Array, x: Array, out: Array | None, *, masked: bool) -> Array:
    """Return the terms, in out where there is one."""
    z, error, _ = gaps(maximum, x, out)
    if masked:
        z += error  # at most half an ulp, so this makes NaN of -inf, of which exp takes seven times as long
    np.exp(z, out=z)
    error *= z  # a term, not a factor: the error may exceed 1 where exp(z) is 0
    z += error
    if masked:
        free_of_nan(z)
    return z


def gaps(maximum: Array, x: Array, out: Array | None) -> tuple[Array, Array, Array]:
    """Return z = x - M, in out where there is one, its error, and room for as many numbers."""
    error, part = np.empty_like(x), np.empty_like(x)
    z = np.subtract(x, maximum, out=out)
    _error(x, maximum, z, error, part)
    return z, error, part


def _error(x: Array, maximum: Array, z: Array, error: Array, part: Array) -> None:
    """Write the error of z = x - M to `error`, by Knuth's TwoSum, or in fewer passes by Dekker's."""
    if maximum.max() <= 0.0:  # |x| >= |M|
        np.subtract(x, z, out=error)
        error -= maximum
        return
    if _is_no_larger(x, maximum):
        np.add(z, maximum, out=error)
        np.subtract(x, error, out=error)
        return
    np.subtract(z, x, out=part)
    np.subtract(z, part, out=error)
    np.subtract(x, error, out=error)
    part += maximum
    error -= part


def _is_no_larger(x: Array, maximum: Array) -> bool:
    """Tell whether no x has a larger exponent than the M of its row, where that costs little to know."""
    if x.shape[-1] < LONG:
        return False
    _, exponent = np.frexp(maximum)
    lowest = np.minimum.reduce(x, -1, keepdims=True)
    return bool((-lowest < np.ldexp(x.dtype.type(1.0), exponent)).all())
