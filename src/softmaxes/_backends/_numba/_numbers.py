"""Of numbers side by side: what is compiled for each dtype."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial, wraps
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import overload
from numba.np.numpy_support import as_dtype

from softmaxes._backends._moderate import BOUNDS
from softmaxes._backends._numba._cache import kept_on_disk
from softmaxes._backends._numba._vectors import BYTES, filled, fused, select, view

__all__ = [
    "bound_of",
    "compiled",
    "exp_for",
    "far",
    "inlined",
    "lanes_of",
    "log1p_for",
    "lowering_of",
    "near",
    "raised_of",
    "real_of",
    "zeros",
]

# Nothing is reordered, and no product is fused with a sum but where it says so.
OPTIONS: Any = {"nogil": True, "error_model": "numpy"}
# Else every slice of an array that a function is handed would be counted as one more reference.
inlined = partial(njit, forceinline=True, **OPTIONS)


def compiled() -> Callable[[Callable[..., Any]], Any]:
    """Return what compiles a function that Python calls."""
    return partial(kept_on_disk, **OPTIONS)


class _Format(NamedTuple):
    """
    What is known of a dtype.

    The exponent begins at the bit `exponent`, and that of 1 is `bias`; `high` + `low` is log 2, and
    k `high` is exact; a polynomial in r of degree `order` is e^r; e^`least` rounds to 0. Terms that
    are 2^`raised` times larger than they should are not subnormal. No score needs a shift up to
    `bound`, in absolute value.
    """

    integer: type
    exponent: int
    bias: int
    high: float
    low: float
    order: int
    least: float
    raised: int
    bound: float


FORMATS = {
    np.float32: _Format(
        np.int32,
        23,
        127,
        0.693359375,
        -2.12194440054690583e-4,
        6,
        -104.5,
        26,
        BOUNDS[np.dtype("f4")],
    ),
    np.float64: _Format(
        np.int64,
        52,
        1023,
        float.fromhex("0x1.62e42feep-1"),
        1.90821492927058770e-10,
        11,
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
        return made(as_dtype(getattr(arguments[0], "dtype", arguments[0])).type)

    overload(of_any, jit_options=OPTIONS, strict=False)(of_types)
    return wraps(made)(of_any)


def _known(number: Callable[[Any], Any]) -> Any:
    """Return a function for compiled code of an array or a vector: a number known of its dtype."""

    def made(real: Any) -> Any:
        known = number(real)
        return lambda a: known

    return _of_dtypes(wraps(number)(made))


@_known
def lanes_of(real: Any) -> Any:
    """Return how many numbers a vector has."""
    return BYTES // np.dtype(real).itemsize


@_known
def real_of(real: Any) -> Any:
    """Return the type of the numbers."""
    return real


@_known
def bound_of(real: Any) -> Any:
    """Return the absolute value up to which scores need no shift."""
    return real(FORMATS[real].bound)


@_known
def raised_of(real: Any) -> Any:
    """Return `raised`, for terms with a shift."""
    return real(FORMATS[real].raised)


@_known
def lowering_of(real: Any) -> Any:
    """Return 2^-`raised`."""
    return 2.0 ** -FORMATS[real].raised


def zeros(a: Any, rows: Any, entries: Any) -> Any:
    """Return an array of zeros of the dtype of another; None of None."""
    raise NotImplementedError


@overload(zeros, jit_options=OPTIONS, strict=False)
def _zeros(a: Any, rows: Any, entries: Any) -> Any:
    if a == types.none:
        return lambda a, rows, entries: None
    return lambda a, rows, entries: np.zeros((rows, entries), a.dtype)


def _exponential(real: Any, order: int | None = None) -> Any:
    """
    Return a function: exp(z + error), where error is None if it is 0; and a number, its `origin`.

    Whole numbers that are added to the origin are powers of 2 by which the exponentials are larger. The order
    is that of the polynomial, if not the one that the precision of the numbers asks for.
    """
    known = FORMATS[real]
    integer, exponent = known.integer, known.integer(known.exponent)
    per_log2 = real(1.0 / math.log(2.0))
    origin = real(1.5 * 2.0**known.exponent + known.bias)  # of no digits after the point
    high, low = real(known.high), real(known.low)
    series = _economised((order or known.order) - 2, math.log(2.0) / 2.0)
    even, odd = _polynomial(real, series[::2]), _polynomial(real, series[1::2])

    @inlined()
    def exponential(z: Any, error: Any, origin: Any) -> Any:
        shifted = fused(z, per_log2, origin)  # whose last bits are the exponent of 2^k
        k = shifted - origin
        r = fused(k, -low, fused(k, -high, z))
        r = r if error is None else r + error
        square = r * r
        rest = fused(fused(odd(square), r, even(square)), square, r)  # e^r - 1
        power = view(view(shifted, integer) << exponent, real)
        return fused(rest, power, power)

    return exponential, origin


def _economised(order: int, most: float) -> list[float]:
    """
    Return the coefficients of a polynomial in r for (e^r - 1 - r) / r^2, where |r| <= most.

    They are those of the Taylor series, with the powers behind `order` replaced by lower ones, each by
    the Chebyshev polynomial that it is the highest of.
    """
    scale = Fraction(most)
    series = [scale**i / math.factorial(i + 2) for i in range(order + 5)]  # in r / most
    for n in range(order + 4, order, -1):
        before, chebyshev = [Fraction(1)], [Fraction(0), Fraction(1)]
        for _ in range(n - 1):
            doubled = [Fraction(0), *(2 * a for a in chebyshev)]
            padded = [*before, Fraction(0), Fraction(0)]
            before, chebyshev = chebyshev, [a - b for a, b in zip(doubled, padded, strict=True)]
        last = series[n] / chebyshev[n]
        series = [a - last * b for a, b in zip(series[:n], chebyshev[:n], strict=True)]
    return [float(a / scale**i) for i, a in enumerate(series)]


def _polynomial(real: Any, coefficients: Sequence[float]) -> Any:
    """Return a function of x, the polynomial with these coefficients, that of 1 first."""
    highest, *others = (real(coefficient) for coefficient in reversed(coefficients))
    lower = tuple(others)

    @inlined()
    def polynomial(x: Any) -> Any:
        y = filled(x, highest)
        for coefficient in lower:
            y = fused(y, x, coefficient)
        return y

    return polynomial


@_of_dtypes
def near(real: Any) -> Any:
    """Return exp(x) for scores in bounds, NaN for a NaN; the shift is 0."""
    exponential, origin = _exponential(real)

    def of(x: Any, shift: Any, raised: Any) -> Any:
        return exponential(x, None, origin)

    return of


@_of_dtypes
def far(real: Any) -> Any:
    """Return exp(x - shift) 2^raised for scores up to the maximum, 0 where it is as good as that."""
    exponential, origin = _exponential(real)
    least, zero = real(FORMATS[real].least), real(0.0)

    def of(x: Any, shift: Any, raised: Any) -> Any:
        z = x - shift
        part = z - x
        error = (x - (z - part)) - (shift + part)
        return select(z < least, zero, exponential(z, error, raised + origin))

    return of


@_of_dtypes
def exp_for(real: Any) -> Any:
    """Return exp(x) in double precision, as exact as results of another precision need, that of the first argument."""
    exponential, origin = _exponential(np.float64, {np.float32: 8}.get(real))
    return lambda a, x: exponential(x, None, origin)


@_of_dtypes
def log1p_for(real: Any) -> Any:
    """Return log(1 + x) for numbers in double precision from 0 on, as exact as results of another need."""
    known, integer = FORMATS[np.float64], np.int64
    exponent, high, low = integer(known.exponent), known.high, known.low
    whole = 2.0**known.exponent  # among whose last bits are those of whole numbers
    root, first, one = (integer(np.float64(x).view(integer)) for x in (math.sqrt(0.5), whole, 1.0))
    terms = {np.float32: 6, np.float64: 10}[real]
    series = _polynomial(np.float64, [2.0 / (2 * i + 1) for i in range(1, terms + 1)])

    def of(a: Any, x: Any) -> Any:
        # 1 + x = 2^k (1 + f), sqrt(1/2) <= 1 + f < sqrt 2; with s = f / (2 + f), log(1 + f) = f - s (f - r)
        # where r = 2 s^2 / 3 + 2 s^4 / 5 + ...
        rounded = x + 1.0
        bits = view(rounded, integer)
        k = (bits - root) >> exponent
        down = view((k - k - k << exponent) + one, np.float64)
        f = (rounded * down - 1.0) + (x - (rounded - 1.0)) * down  # of exact products
        s = f / (f + 2.0)
        square = s * s
        k = view(k + first, np.float64) - whole
        return fused(k, high, fused(k, low, f - s * (f - series(square) * square)))

    return of
