"""One long row, in parts that threads share: what `_rows` does of a row, of each part of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from softmaxes._arrays import Array
from softmaxes._backends._numba._numbers import compiled
from softmaxes._backends._numba._rows import (
    divide,
    extremes,
    far_sums,
    largest_of,
    near_sums,
    subtract,
)
from softmaxes._backends._numba._slices import (
    DIVISOR,
    EXCESS,
    LOG,
    finish,
    room_of_slices,
    scale_of,
    write,
)
from softmaxes._backends._numba._vectors import memory_of

__all__ = ["divide_part", "extremes_part", "far_part", "near_part", "reduced", "subtract_part"]


@compiled()
def near_part(x: Array, where: Array | None, terms: Array | None) -> Any:
    return near_sums(memory_of(x), memory_of(where), 0, (0.0, 0.0), memory_of(terms))


@compiled()
def far_part(
    x: Array, where: Array | None, terms: Array | None, maximum: float, lowest: float
) -> Any:
    scale = scale_of(x.dtype.type(maximum), x.dtype.type(lowest))
    _, _, below, top = far_sums(memory_of(x), memory_of(where), 0, scale, memory_of(terms))
    return below, top


@compiled()
def extremes_part(x: Array, where: Array | None) -> Any:
    return extremes(memory_of(x), memory_of(where), 0)


@compiled()
def reduced(x: Array, maximum: float, lowest: float, below: float, top: float) -> Any:
    """Return S - 1, its logarithm, the divisor of the terms, and the largest of them."""
    found, highest = room_of_slices(np.float64(0.0)), x.dtype.type(maximum)
    scale = scale_of(highest, x.dtype.type(lowest))
    write(found, 0, highest, scale, below, top)
    finish(found, 1)
    return found[EXCESS, 0], found[LOG, 0], found[DIVISOR, 0], largest_of(x, highest, scale)


@compiled()
def divide_part(terms: Array, largest: float, divisor: float) -> None:
    place = memory_of(terms)
    divide(place, None, 0, largest, divisor, place)


@compiled()
def subtract_part(x: Array, where: Array | None, largest: float, maximum: float, y: Array) -> None:
    subtract(memory_of(x), memory_of(where), 0, largest, maximum, memory_of(y))
