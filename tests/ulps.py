"""Errors in ulp: the spacing of a dtype at the correctly rounded result."""

from typing import NamedTuple

import numpy as np

__all__ = ["FORMATS", "Format", "correctly_rounded", "ulp_error"]


class Format(NamedTuple):
    """A binary floating point format; normal numbers have min_exponent <= floor(log2 |x|) <= max_exponent."""

    bits: int
    min_exponent: int
    max_exponent: int

    @property
    def tiny(self):
        """The smallest normal number."""
        return 2.0**self.min_exponent

    @property
    def smallest(self):
        """The smallest subnormal number, and the smallest ulp."""
        return 2.0 ** (self.min_exponent - self.bits + 1)

    @property
    def largest(self):
        return (2 - 2.0 ** (1 - self.bits)) * 2.0**self.max_exponent


# Written out, so that the tests owe nothing to any library's finfo.
FORMATS = {
    "float16": Format(11, -14, 15),
    "bfloat16": Format(8, -126, 127),
    "float32": Format(24, -126, 127),
    "float64": Format(53, -1022, 1023),
}


def ulp_error(actual, exact, dtype, *, scale=None, flush=None):
    """|actual - exact| in ulp of the exact value (or of `scale`), ulp being that of `dtype` and never below its least.

    `exact` is a `truth.Exact` of the shape of `actual`, and `scale` one that broadcasts with it. NaN, inf or a
    finite number where another of these is due is an error of inf; inf is due where the exact value rounds to inf.

    `flush=n` is for engines that flush subnormals: where the exact value (or `scale`) is below 16·n·tiny the
    error is 0 if |actual - exact| <= n·tiny, else inf.
    """
    form = FORMATS[np.dtype(dtype).name]
    actual = np.asarray(actual).astype(np.float64)
    # No broadcasting: it would forgive a result of the wrong shape.
    if actual.shape != exact.shape:
        raise ValueError(f"actual has shape {actual.shape}, the exact value {exact.shape}")
    reference = exact if scale is None else scale
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.abs(_difference(actual, exact, _ulp_exponent(reference, form)))
        if flush is not None:
            is_small = _in_units(np.abs(reference.hi), reference, form.min_exponent) < 16 * flush
            is_kept = np.abs(_difference(actual, exact, form.min_exponent)) <= flush
            error = np.where(is_small, np.where(is_kept, 0.0, np.inf), error)
    due = _non_finite_due(exact, form)
    matches = np.where(np.isnan(due), np.isnan(actual), actual == due)
    is_finite = np.isfinite(actual) & np.isfinite(due)
    return np.where(is_finite, error, np.where(matches, 0.0, np.inf))


def correctly_rounded(exact, dtype):
    """The number of `dtype` nearest to the exact value, the even one at a tie; inf where it overflows.

    Rounding `exact.double` instead would round twice, and bfloat16 even three times.
    """
    unit = _ulp_exponent(exact, FORMATS[np.dtype(dtype).name])
    hi, lo = _in_units(exact.hi, exact, unit), _in_units(exact.lo, exact, unit)
    whole = np.rint(hi)
    # Only where hi lies half-way has lo a say.
    with np.errstate(over="ignore", invalid="ignore"):
        whole += ((hi - whole == 0.5) & (lo > 0)) * 1.0 - ((hi - whole == -0.5) & (lo < 0)) * 1.0
        return np.ldexp(whole, unit).astype(dtype)


def _difference(actual, exact, unit):
    """(actual - exact) / 2^unit, exact up to the last of its operations when the two are close (Sterbenz)."""
    hi, lo = _in_units(exact.hi, exact, unit), _in_units(exact.lo, exact, unit)
    return (np.ldexp(actual, -unit) - hi) - lo


def _in_units(part, exact, unit):
    return np.ldexp(part, exact.exponent - unit)


def _ulp_exponent(exact, form):
    """log2 of the ulp of the correctly rounded result, in the subnormal range that of the smallest subnormal."""
    leading = np.where(exact.hi == 0, form.min_exponent, _leading_exponent(exact, form))
    return np.maximum(leading, form.min_exponent) - form.bits + 1


def _leading_exponent(exact, form):
    """floor(log2 |r|) of the exact value rounded to form.bits with no bound on the exponent."""
    # Up to the next power of two from its last half ulp on; both sides of the comparison are exact.
    # hi = 1/2 needs no care: it is the nearest double, so r is at least as large.
    beyond = (np.abs(exact.hi) - 1) + 2.0 ** -(form.bits + 1)
    rounds_up = beyond >= -exact.lo * np.sign(exact.hi)
    return exact.exponent - 1 + rounds_up


def _non_finite_due(exact, form):
    """inf or NaN where the result must be that, 0 where it must be finite."""
    overflows = _leading_exponent(exact, form) > form.max_exponent
    due = np.where(overflows, np.copysign(np.inf, exact.hi), 0.0)
    return np.where(np.isfinite(exact.hi), due, exact.hi)
