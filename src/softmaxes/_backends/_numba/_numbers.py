"""Of one number: what is compiled for each dtype."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numba.extending import overload
from numba.np.numpy_support import as_dtype

from softmaxes._backends._moderate import BOUNDS

__all__ = [
    "are_in_bounds",
    "compiled",
    "far",
    "inlined",
    "key_of",
    "lowering_of",
    "near",
    "number_of",
]

# Fused products round once where two operations would twice, for the better: no rounding error is
# computed from a product. Nothing is reordered.
OPTIONS: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
compiled = partial(njit, cache=True, **OPTIONS)
# Else every slice of an array that a function is handed would be counted as one more reference.
inlined = partial(njit, forceinline=True, **OPTIONS)
of_dtypes = partial(overload, jit_options=OPTIONS)


class _Format(NamedTuple):
    """
    What is known of a dtype.

    The exponent begins at the bit `exponent`; `high` + `low` is log 2, and k `high` is exact; behind
    r^`order` the series of e^r adds nothing; e^`least` rounds to 0. Terms that are 2^`raised` times
    larger than they should are not subnormal, nor is the sum of a block of them too large for scores
    in bounds.
    """

    integer: type
    exponent: int
    high: float
    low: float
    order: int
    least: float
    raised: int
    bound: float


FORMATS = {
    np.float32: _Format(
        np.int32, 23, 0.693359375, -2.12194440054690583e-4, 7, -104.5, 26, BOUNDS[np.dtype("f4")]
    ),
    np.float64: _Format(
        np.int64,
        52,
        float.fromhex("0x1.62e42feep-1"),
        1.90821492927058770e-10,
        13,
        -746.0,
        64,
        BOUNDS[np.dtype("f8")],
    ),
}


def _parts_of_exp(real: Any) -> Any:
    """Return a function of z and an error: the bits of e^r, and those of k where an exponent has its."""
    known = FORMATS[real]
    integer, exponent = known.integer, known.integer(known.exponent)
    per_log2, rounding = real(1.0 / math.log(2.0)), real(1.5 * 2.0**known.exponent)
    high, low = real(known.high), real(known.low)
    first, *others = (real(1.0 / math.factorial(i)) for i in range(known.order, -1, -1))
    coefficients = tuple(others)

    @inlined()
    def parts(z: Any, error: Any) -> Any:
        shifted = z * per_log2 + rounding  # whose last bits are k
        k = shifted - rounding
        r = ((z - k * high) - k * low) + error
        series = first
        for coefficient in coefficients:
            series = series * r + coefficient
        return real(series).view(integer), integer(real(shifted).view(integer) << exponent)

    return parts


def near(x: Any, shift: Any) -> Any:
    """Return exp(x) for a score in bounds, whose shift is 0."""
    raise NotImplementedError


@of_dtypes(near)
def _near_of_dtype(x: Any, shift: Any) -> Any:
    real = as_dtype(x).type
    integer, parts = FORMATS[real].integer, _parts_of_exp(real)
    zero = real(0.0)

    def near(x: Any, shift: Any) -> Any:
        bits, power = parts(x, zero)
        return integer(bits + power).view(real)

    return near


def far(x: Any, shift: Any) -> Any:
    """Return exp(x - shift) 2^`raised` for a score up to the maximum, 0 where it is as good as that."""
    raise NotImplementedError


@of_dtypes(far)
def _far_of_dtype(x: Any, shift: Any) -> Any:
    real = as_dtype(x).type
    known = FORMATS[real]
    integer, parts = known.integer, _parts_of_exp(real)
    least, zero = real(known.least), real(0.0)
    raising = integer(known.raised << known.exponent)

    def far(x: Any, shift: Any) -> Any:
        z = x - shift
        part = z - x
        error = (x - (z - part)) - (shift + part)
        bits, power = parts(z, error)
        y = integer(bits + integer(power + raising)).view(real)
        return zero if z < least else y

    return far


def key_of(x: Any) -> Any:
    """Return an integer, larger for a larger number, and for a NaN beyond those of all numbers."""
    raise NotImplementedError


@of_dtypes(key_of)
def _key_of_dtype(x: Any) -> Any:
    real = as_dtype(x).type
    integer = FORMATS[real].integer
    sign, others = integer(np.iinfo(integer).bits - 1), integer(np.iinfo(integer).max)

    def key(x: Any) -> Any:
        bits = real(x).view(integer)
        return integer(bits ^ ((bits >> sign) & others))

    return key


def number_of(key: Any) -> Any:
    """Return the number whose key this is."""
    raise NotImplementedError


@of_dtypes(number_of)
def _number_of_dtype(key: Any) -> Any:
    integer = as_dtype(key).type
    real = next(real for real, known in FORMATS.items() if known.integer is integer)
    sign, others = integer(np.iinfo(integer).bits - 1), integer(np.iinfo(integer).max)

    def number(key: Any) -> Any:
        return integer(key ^ ((key >> sign) & others)).view(real)

    return number


def lowering_of(x: Any) -> Any:
    """Return 2^-`raised`."""
    raise NotImplementedError


@of_dtypes(lowering_of)
def _lowering_of_dtype(x: Any) -> Any:
    lowering = 2.0 ** -FORMATS[as_dtype(x).type].raised

    def number(x: Any) -> Any:
        return lowering

    return number


def are_in_bounds(highest: Any, lowest: Any) -> Any:
    """Tell whether scores between these need no shift."""
    raise NotImplementedError


@of_dtypes(are_in_bounds)
def _are_in_bounds_of_dtype(highest: Any, lowest: Any) -> Any:
    bound = FORMATS[as_dtype(highest).type].bound

    def are_in_bounds(highest: Any, lowest: Any) -> Any:
        return -bound <= lowest and -bound <= highest <= bound

    return are_in_bounds
