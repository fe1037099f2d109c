"""Binary floating-point formats: their ulp, and rounding to them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["FORMATS", "Format"]

Array = NDArray[np.float64]


class Format(NamedTuple):
    """Precision in bits; ``frexp`` exponents of the smallest and the largest normal number."""

    bits: int
    lowest: int
    highest: int

    @property
    def tiny(self) -> float:
        """The smallest normal number."""
        return float(np.ldexp(1.0, self.lowest - 1))

    def ulp(self, x: Array) -> Array:
        """The distance between neighbours of the format in the binade of x."""
        exponent = np.where(x == 0, self.lowest, np.frexp(x)[1])
        return np.asarray(np.ldexp(1.0, np.maximum(exponent, self.lowest) - self.bits))

    def round(self, x: Array) -> Array:
        """The nearest number of the format; inf beyond its range."""
        ulp = self.ulp(x)  # a power of two: dividing by it is exact
        nearest = np.rint(x / ulp) * ulp
        in_range = np.abs(nearest) / 2.0 ** (self.highest - 1) < 2  # 2.0**1024 would overflow
        return np.asarray(np.where(in_range, nearest, np.copysign(np.inf, x)))


FORMATS = {
    "float16": Format(bits=11, lowest=-13, highest=16),
    "bfloat16": Format(bits=8, lowest=-125, highest=128),
    "float32": Format(bits=24, lowest=-125, highest=128),
    "float64": Format(bits=53, lowest=-1021, highest=1024),
}
