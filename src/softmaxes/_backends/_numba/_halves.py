"""bfloat16, the upper half of float32, which NumPy rounds to one number at a time."""

from __future__ import annotations

import numpy as np

from softmaxes._arrays import Array
from softmaxes._backends._numba._numbers import compiled

__all__ = ["narrow"]


def narrow(a: Array, out: Array) -> None:
    """Write a matrix of float32 to one of bfloat16, rounded to the nearest, of two to the even."""
    _narrow(a.view(np.uint32), out.view(np.uint16))


@compiled()
def _narrow(a: Array, out: Array) -> None:
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            bits = a[i, j]
            upper = bits >> np.uint32(16)
            rounded = (bits + np.uint32(0x7FFF) + (upper & np.uint32(1))) >> np.uint32(16)
            is_nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
            out[i, j] = np.uint16(upper | np.uint32(0x40) if is_nan else rounded)
