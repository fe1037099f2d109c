"""
Of slices, be they rows or columns: from their scores to their sums.

In a place of a vector, scores come one after the other. Those are of one column and so many rows apart,
or of one row and so many columns apart, as a vector has places. `below` is the sum of the terms but for
the largest, `top`, whichever that is: S - 1 does not cancel where one term is nearly all of S, and nothing
is said about the maximum before all is read.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from softmaxes._backends._numba._numbers import (
    bound_of,
    inlined,
    log1p,
    lowering_of,
    near,
    raised_of,
)
from softmaxes._backends._numba._vectors import (
    Memory,
    any_of,
    filled,
    load,
    other_of,
    room_of,
    store,
)

__all__ = [
    "BELOW",
    "DIVISOR",
    "EXCESS",
    "LARGEST",
    "LOG",
    "MAXIMUM",
    "SHIFT",
    "TOGETHER",
    "Sums",
    "added",
    "are_far",
    "begun",
    "finish",
    "room_of_slices",
    "scale_of",
    "summed",
    "two_sum",
    "write",
]

# The rows of an array of what is found of slices, in double precision: the maximum; the shift, the term
# of the maximum, and the sum of all terms, with this shift; the same without the largest term, which is
# of the size that it should be; S - 1, NaN where nothing is right, and log S.
MAXIMUM, SHIFT, LARGEST, DIVISOR, BELOW, EXCESS, LOG = range(7)
TOGETHER = 64  # slices of which the logarithms are taken at once


class Sums(NamedTuple):
    """Vectors: of the terms so far, with what is lost in their sum, and of the scores so far."""

    below: Any
    error: Any
    top: Any
    highest: Any
    lowest: Any


@inlined()
def begun(x: Memory) -> Sums:
    zero = filled(x, 0.0)
    return Sums(zero, zero, zero, filled(x, -np.inf), filled(x, np.inf))


@inlined()
def added(sums: Sums, scores: Any, terms: Any) -> Sums:
    # A NaN stays in `below`, and comes into nothing else.
    lower = min(sums.top, terms)
    top = other_of(sums.top, terms, lower)  # where a maximum would wait for the processor
    below, error = summed(sums.below, sums.error, lower)
    return Sums(below, error, top, max(scores, sums.highest), min(scores, sums.lowest))


@inlined()
def summed(total: Any, error: Any, term: Any) -> tuple[Any, Any]:
    """Return a sum with one more term, and its error, but for terms that are larger than it."""
    after = total + term
    return after, error + (term - (after - total))


@inlined()
def are_far(sums: Sums) -> Any:
    """Tell whether a score so far needs a shift."""
    bound = bound_of(sums.highest)
    return any_of((sums.highest > bound) | (sums.lowest < -bound))


room_of_slices = room_of(7, TOGETHER)


@inlined()
def finish(found: Memory, slices: int) -> None:
    """Find S - 1 and its logarithm, for several slices at once."""
    for i in range(0, slices, 8):
        zero = filled(found, 0.0)
        exponent = load(found, MAXIMUM, i, zero) - load(found, SHIFT, i, zero)
        # In its own precision, as the term of the maximum is not: it is rounded.
        excess = load(found, BELOW, i, zero) / near(exponent, zero, zero)
        store(found, EXCESS, i, excess)
        store(found, LOG, i, log1p(excess))


@inlined()
def scale_of(maximum: Any, lowest: Any) -> Any:
    """Return the shift of a slice, by its scores above -inf, and by which power of 2 terms are raised."""
    bound, zero = bound_of(maximum), maximum - maximum
    is_near = -bound <= lowest and -bound <= maximum <= bound
    return (zero, zero) if is_near else (maximum, raised_of(maximum))


@inlined()
def write(found: Memory, i: int, maximum: Any, scale: Any, below: float, top: Any) -> None:
    """Write what is found of a slice, in order that `finish` finds the rest."""
    shift, raised = scale
    found[MAXIMUM, i], found[SHIFT, i] = maximum, shift
    found[DIVISOR, i] = below + np.float64(top)
    is_right = np.isfinite(maximum) and top > 0.0
    lowering = lowering_of(maximum) if raised > 0.0 else 1.0
    found[BELOW, i] = below * lowering if is_right else np.nan


@inlined()
def two_sum(total: Any, error: Any, term: Any) -> tuple[Any, Any]:
    """Return a sum with one more term, and its error, whichever of the two is larger."""
    after = total + term
    part = after - total
    return after, error + ((total - (after - part)) + (term - part))
