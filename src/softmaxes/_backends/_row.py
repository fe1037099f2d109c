"""
A few moderate numbers of NumPy, in few calls of NumPy, which take longer than the work there.

Of one row, what is a column in `_moderate` and `_sums` is a number. The formulas are theirs, and so are
the bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from softmaxes import _primals
from softmaxes._arrays import Array, Call
from softmaxes._backends import _moderate, _sums

__all__ = ["shortcut"]

# So moderate that no error state is raised.
BOUNDS = {dtype.type: bound / 4.0 for dtype, bound in _moderate.BOUNDS.items()}


def shortcut(f: Callable[..., Array], call: Call) -> Callable[[Array], Array | None] | None:
    """Return what takes the rows of a call to the result, or to None; None where there are no such rows."""
    are_few = call.axis == (-1,) and 0 < math.prod(call.shape) <= _moderate.FEW
    if not are_few or f not in FORMULAS or call.dtype.type not in BOUNDS:
        return None
    is_row = len(call.shape) == 1 and not call.reduced
    return _of_row(f, call) if is_row else _of_rows(f, call)


def _of_rows(f: Callable[..., Array], call: Call) -> Callable[[Array], Array | None]:
    shape = call.reduced if _sums.FORMULAS[f].reduces else call.shape

    def of_rows(x: Array) -> Array | None:
        if x.dtype != call.dtype or not x.flags.c_contiguous:
            return None
        y = _moderate.of_few(f, x)
        return y if y is None else y.reshape(shape)

    return of_rows


def _of_row(f: Callable[..., Array], call: Call) -> Callable[[Array], Array | None]:
    result, bound = FORMULAS[f], BOUNDS[call.dtype.type]
    # A number of Python, which is a double, where it would be in float64.
    add = (
        np.add.reduce
        if call.shape[0] <= _sums.EIGHT
        else lambda terms: _sums.added(terms[None]).item()
    )

    def of_row(x: Array) -> Array | None:
        place = x.argmax()
        maximum = x.item(place)
        if not (maximum <= bound and x.item(x.argmin()) >= -bound and x.flags.c_contiguous):
            return None
        try:
            terms = np.exp(x)
        except FloatingPointError:  # of a subnormal score, on some processors
            return None
        largest = terms[place]
        terms[place] = 0.0
        y: Array = result(x, terms, place, maximum, largest, add(terms))
        return y

    return of_row


def _softmax(x: Array, terms: Array, place: Any, maximum: float, largest: Any, rest: Any) -> Array:
    terms[place] = largest
    if terms.argmax() != place:  # exp need not keep the order of neighbours
        np.minimum(terms, largest, out=terms)
    return np.divide(terms, largest + rest, terms)


def _log_softmax(
    x: Array, terms: Array, place: Any, maximum: float, largest: Any, rest: Any
) -> Array:
    # NumPy takes an array of no axes in half the time of a number.
    below = np.subtract(x[place, ...], x, terms)
    return np.subtract(-_log_sum(maximum, rest), below, terms)


def _logsumexp(
    x: Array, terms: Array, place: Any, maximum: float, largest: Any, rest: Any
) -> Array:
    terms[place] = maximum + _log_sum(maximum, rest)
    return terms[place]


def _log_sum(maximum: float, rest: Any) -> float:
    # Of numbers of Python, which are doubles, NumPy takes functions in half of the time.
    return float(np.log1p(float(rest) / float(np.exp(maximum))))


FORMULAS: dict[Any, Callable[..., Array]] = {
    _primals.softmax: _softmax,
    _primals.log_softmax: _log_softmax,
    _primals.logsumexp: _logsumexp,
}
