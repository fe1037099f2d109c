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
    exp_for,
    far,
    inlined,
    lanes_of,
    log1p_for,
    lowering_of,
    raised_of,
)
from softmaxes._backends._numba._vectors import (
    Memory,
    any_of,
    filled,
    load,
    room_of,
    select,
    store,
)

__all__ = [
    "BELOW",
    "DIVISOR",
    "EXCESS",
    "LARGEST",
    "LOG",
    "MAXIMUM",
    "MOST",
    "SHIFT",
    "TOGETHER",
    "Sums",
    "added",
    "added_four",
    "are_far",
    "begun",
    "find_largest",
    "finish",
    "joined",
    "room_of_shifts",
    "room_of_slices",
    "scale_of",
    "summed",
    "two_sum",
    "write",
    "write_some",
]

# The rows of an array of what is found of slices, in double precision: the maximum; the shift, the term
# of the maximum, and the sum of all terms, with this shift; the same without the largest term, which is
# of the size that it should be; S - 1, NaN where nothing is right, and log S. Where there is no support, the
# maximum is 0, probabilities are 0 / 1, S - 1 is -1 and log S is -inf.
MAXIMUM, SHIFT, LARGEST, DIVISOR, BELOW, EXCESS, LOG = range(7)
TOGETHER = 64  # slices of which the logarithms are taken at once, or twice as many columns
MOST = 2 * TOGETHER


class Sums(NamedTuple):
    """Vectors: the largest term so far, and the sum of the others, with what is lost in it."""

    below: Any
    error: Any
    top: Any


@inlined()
def begun(x: Memory) -> Sums:
    zero = filled(x, 0.0)
    return Sums(zero, zero, zero)


@inlined()
def added(sums: Sums, term: Any) -> Sums:
    lower, top = in_order(sums.top, term)
    return Sums(*summed(sums.below, sums.error, lower), top)


@inlined()
def added_four(sums: Sums, a: Any, b: Any, c: Any, d: Any) -> Sums:
    """Return the sums with four more terms, which are added first: that loses no more than `folded` does."""
    (a, b), (c, d) = in_order(a, b), in_order(c, d)
    b, top = in_order(b, d)
    lower, top = in_order(sums.top, top)
    return Sums(*summed(sums.below, sums.error, (a + c) + (b + lower)), top)


@inlined()
def joined(sums: Sums, others: Sums) -> Sums:
    """Return the sums of the terms of both, as `folded` and `without_highest` join the halves of a vector."""
    lower, top = in_order(sums.top, others.top)
    error = (sums.error + others.error) + lower
    return Sums(sums.below + others.below, error, top)


@inlined()
def in_order(a: Any, b: Any) -> tuple[Any, Any]:
    """Return the smaller and the larger of each two numbers; a NaN is one of them."""
    return min(a, b), max(b, a)  # of which each is the second where one is a NaN


@inlined()
def summed(total: Any, error: Any, term: Any) -> tuple[Any, Any]:
    """Return a sum with one more term, and its error, but for terms that are larger than it."""
    after = total + term
    return after, error + (term - (after - total))


@inlined()
def are_far(highest: Any, lowest: Any) -> Any:
    """Tell whether a score so far needs a shift."""
    bound = bound_of(highest)
    return any_of((highest > bound) | (lowest < -bound))


room_of_slices = room_of(7, MOST)
room_of_shifts = room_of(3, MOST)


@inlined()
def find_largest(
    maximum: Memory, shift: Memory, raised: Memory, found: Memory, slices: int
) -> None:
    """Find the term of the maximum, for several slices at once, and leave it in the place of that."""
    zero = filled(maximum, 0.0)
    for i in range(0, slices, lanes_of(maximum)):
        scale = load(shift, 0, i, zero), load(raised, 0, i, zero)
        store(maximum, 0, i, far(load(maximum, 0, i, zero), *scale))
    wide = filled(found, 0.0)
    for i in range(0, slices, lanes_of(found)):
        store(found, LARGEST, i, load(maximum, 0, i, wide))


@inlined()
def finish(x: Memory, found: Memory, slices: int, has_log: bool) -> None:
    """Find S - 1, and its logarithm if that is needed, for several slices of x at once."""
    for i in range(0, slices, lanes_of(found)):
        zero = filled(found, 0.0)
        exponent = load(found, MAXIMUM, i, zero) - load(found, SHIFT, i, zero)
        # In its own precision, as the term of the maximum is not: it is rounded.
        excess = load(found, BELOW, i, zero) / exp_for(x, exponent)
        store(found, EXCESS, i, excess)
        if has_log:
            store(found, LOG, i, select(excess < 0.0, -np.inf, log1p_for(x, excess)))


@inlined()
def scale_of(maximum: Any, lowest: Any) -> Any:
    """Return the shift of a slice, by its scores above -inf, and by which power of 2 terms are raised."""
    bound = bound_of(maximum)
    zero = bound - bound
    is_near = -bound <= lowest and -bound <= maximum <= bound
    is_far = not is_near and maximum > -np.inf
    return (maximum, raised_of(maximum)) if is_far else (zero, zero)


@inlined()
def write(found: Memory, i: int, maximum: Any, scale: Any, below: float, top: Any) -> None:
    """Write what is found of a slice, in order that `finish` finds the rest."""
    shift, raised = scale
    if maximum == -np.inf and below == 0.0 and top == 0.0:  # of no support
        found[MAXIMUM, i] = found[SHIFT, i] = 0.0
        found[DIVISOR, i], found[BELOW, i] = 1.0, -1.0
        return
    found[MAXIMUM, i], found[SHIFT, i] = maximum, shift
    found[DIVISOR, i] = below + np.float64(top)
    is_right = np.isfinite(maximum) and top > 0.0
    lowering = lowering_of(maximum) if raised > 0.0 else 1.0
    found[BELOW, i] = below * lowering if is_right else np.nan


@inlined()
def write_some(
    found: Memory,
    i: int,
    maximum: Any,
    scale: Any,
    below: Any,
    top: Any,
    lowering: float,
    has_terms: bool,
) -> None:
    """Do what `write` does of a slice, of several from one on, by vectors: what is needed with terms, or without."""
    shift, raised = scale
    is_empty = (maximum == -np.inf) & (below == 0.0) & (top == 0.0)
    is_right = (maximum > -np.inf) & (maximum < np.inf) & (top > 0.0)
    lowered = select(raised > 0.0, below * lowering, below)
    store(found, BELOW, i, select(is_empty, -1.0, select(is_right, lowered, np.nan)))
    if has_terms:
        store(found, DIVISOR, i, select(is_empty, 1.0, below + top))
    else:
        store(found, MAXIMUM, i, select(is_empty, 0.0, maximum))
        store(found, SHIFT, i, select(is_empty, 0.0, shift))


@inlined()
def two_sum(total: Any, error: Any, term: Any) -> tuple[Any, Any]:
    """Return a sum with one more term, and its error, whichever of the two is larger."""
    after = total + term
    part = after - total
    return after, error + ((total - (after - part)) + (term - part))
