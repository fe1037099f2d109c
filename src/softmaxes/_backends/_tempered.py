"""
Rows of NumPy with one temperature each, in place: that of ordinary rows, and a quotient.

With M the maximum of a row and z + error = (x - M) / temperature to twice the precision, the terms are
exp(z) (1 + error). Half of the digits of a quotient times half of those of the temperature is exact,
so what is left of the division is as well (Dekker).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from softmaxes._arrays import Array
from softmaxes._backends import _moderate, _ordinary
from softmaxes._backends._sums import Sums, free_of_nan, lowest, maxima, with_others

__all__ = ["sums"]

# Between these, no product of halves leaves the range where its term is not 0.
LEAST, MOST = 2.0**-60, 2.0**60
# The upper half of the digits of a number, as bits.
UPPER: dict[Any, Any] = {
    np.dtype(np.float32): np.int32(-1 << 12),
    np.dtype(np.float64): np.int64(-1 << 27),
}


def sums(temperature: Array, x: Array, out: Array | None, *, cut: int = 0) -> Sums:
    """Return the sums of rows, of which a mask has cut so many scores out, with the terms in out if there is one."""
    place, maximum = maxima(x)
    are_right = (temperature >= LEAST) & (temperature <= MOST)
    are_right = are_right & _moderate.are_within(np.finfo(x.dtype).max / 4, maximum, x, cut)
    masked = bool(lowest(x) == -np.inf)
    terms = partial(_terms, maximum, temperature, masked=masked)
    found, rest = with_others(terms, place, out, x)
    return Sums(x, found, maximum, x.dtype.type(1.0), rest, are_right, temperature=temperature)


def _terms(
    maximum: Array, temperature: Array, x: Array, out: Array | None, *, masked: bool
) -> Array:
    z, error, part = _ordinary.gaps(maximum, x, out)
    if masked:  # to NaN
        z += np.subtract(z, z, out=part)
    if _is_power_of_2(temperature):  # and nothing is left
        z /= temperature
    else:
        error += _divided(z, temperature, part)
    error /= temperature
    np.exp(z, out=z)
    error *= z
    z += error
    free_of_nan(z)  # of -inf, and where z left the range
    return z


def _divided(z: Array, temperature: Array, part: Array) -> Array:
    """Divide z, and return what is left: z as it was without the quotient times the temperature."""
    left = z.copy()
    z /= temperature
    t_high = _upper(temperature, None)
    t_low = temperature - t_high
    high = _upper(z, part)
    low = np.subtract(z, high)
    left -= high * t_high
    if t_low.any():
        left -= np.multiply(high, t_low, out=part)
        left -= np.multiply(low, t_high, out=part)
        left -= np.multiply(low, t_low, out=low)
    else:
        left -= np.multiply(low, t_high, out=low)
    return left


def _upper(a: Array, out: Array | None) -> Array:
    """Return numbers of the upper half of the digits of a, in out if there is one."""
    bits = UPPER[a.dtype]
    place = None if out is None else out.view(bits.dtype)
    return np.bitwise_and(a.view(bits.dtype), bits, out=place).view(a.dtype)


def _is_power_of_2(temperature: Array) -> bool:
    return bool((np.frexp(temperature)[0] == 0.5).all())
