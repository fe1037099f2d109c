"""
One short moderate row of NumPy, in few calls of NumPy, which take longer than the work there.

What is a column in `_moderate` and `_sums` is a number here. The formulas are theirs, and so are the
bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from softmaxes import _primals
from softmaxes._arrays import Array, Call
from softmaxes._backends import _moderate

__all__ = ["shortcut"]

# So moderate that no error state is raised.
BOUNDS = {dtype.type: bound / 4.0 for dtype, bound in _moderate.BOUNDS.items()}


def shortcut(f: Callable[..., Array], call: Call) -> Callable[[Array], Array | None] | None:
    """Return what takes the row of a call to the result, or to None; None where there is no such row."""
    is_row = len(call.shape) == 1 and not call.reduced and 0 < call.shape[0] <= _moderate.FEW
    if not is_row or f not in FORMULAS or call.dtype.type not in BOUNDS:
        return None
    result, bound = FORMULAS[f], BOUNDS[call.dtype.type]

    def of_row(x: Array) -> Array | None:
        place = x.argmax()
        maximum = x.item(place)
        if not (maximum <= bound and x.item(x.argmin()) >= -bound and x.flags.c_contiguous):
            return None
        terms = np.exp(x)
        largest = terms[place]
        terms[place] = 0.0
        y: Array = result(x, terms, place, maximum, largest, np.add.reduce(terms))
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
