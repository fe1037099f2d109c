"""Of one number: what is compiled for each dtype."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numba.extending import overload
from numba.np.numpy_support import as_dtype

from softmaxes._backends._moderate import BOUNDS

__all__ = [
    "bound_of",
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


def _of_dtypes(made: Callable[[Any], Any]) -> Any:
    """Return a function for compiled code, which is `made(dtype)` for the dtype of its first argument."""

    def of_any(*arguments: Any) -> Any:
        raise NotImplementedError

    def of_types(*arguments: Any) -> Any:
        return made(as_dtype(arguments[0]).type)

    overload(of_any, jit_options=OPTIONS, strict=False)(of_types)
    return wraps(made)(of_any)


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


@_of_dtypes
def near(real: Any) -> Any:
    """Return exp(x) for a score in bounds, whose shift is 0."""
    integer, parts, zero = FORMATS[real].integer, _parts_of_exp(real), real(0.0)

    def of(x: Any, shift: Any) -> Any:
        bits, power = parts(x, zero)
        return integer(bits + power).view(real)

    return of


@_of_dtypes
def far(real: Any) -> Any:
    """Return exp(x - shift) 2^`raised` for a score up to the maximum, 0 where it is as good as that."""
    known, parts = FORMATS[real], _parts_of_exp(real)
    integer, least, zero = known.integer, real(known.least), real(0.0)
    raising = integer(known.raised << known.exponent)

    def of(x: Any, shift: Any) -> Any:
        z = x - shift
        part = z - x
        error = (x - (z - part)) - (shift + part)
        bits, power = parts(z, error)
        y = integer(bits + integer(power + raising)).view(real)
        return zero if z < least else y

    return of


def _turned(integer: Any) -> Any:
    """Return the function that turns the bits of a number, seen as integers, into their order, and back."""
    sign, others = integer(np.iinfo(integer).bits - 1), integer(np.iinfo(integer).max)

    @inlined()
    def turned(bits: Any) -> Any:
        return integer(bits ^ ((bits >> sign) & others))

    return turned


@_of_dtypes
def key_of(real: Any) -> Any:
    """Return an integer, larger for a larger number, and for a NaN beyond those of all numbers."""
    integer = FORMATS[real].integer
    turned = _turned(integer)

    def of(x: Any) -> Any:
        return turned(real(x).view(integer))

    return of


@_of_dtypes
def number_of(integer: Any) -> Any:
    """Return the number whose key this is."""
    real = next(real for real, known in FORMATS.items() if known.integer is integer)
    turned = _turned(integer)

    def of(key: Any) -> Any:
        return integer(turned(key)).view(real)

    return of


@_of_dtypes
def lowering_of(real: Any) -> Any:
    """Return 2^-`raised`."""
    lowering = 2.0 ** -FORMATS[real].raised

    def of(x: Any) -> Any:
        return lowering

    return of


@_of_dtypes
def bound_of(real: Any) -> Any:
    """Return the absolute value up to which scores need no shift."""
    bound = FORMATS[real].bound

    def of(x: Any) -> Any:
        return bound

    return of
