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
    return FORMULAS.get(f) if is_row and call.dtype.type in BOUNDS else None


def _softmax(x: Array) -> Array | None:
    if (found := _sums(x)) is None:
        return None
    terms, place, _, largest, rest = found
    if terms.argmax() != place:  # exp need not keep the order of neighbours
        np.minimum(terms, largest, out=terms)
    return np.divide(terms, largest + rest, terms)


def _log_softmax(x: Array) -> Array | None:
    if (found := _sums(x)) is None:
        return None
    terms, _, maximum, _, rest = found
    below = np.subtract(maximum, x, terms)
    return np.subtract(-x.dtype.type(_log_sum(maximum, rest)), below, terms)


def _logsumexp(x: Array) -> Array | None:
    if (found := _sums(x)) is None:
        return None
    _, _, maximum, _, rest = found
    return x.dtype.type(float(maximum) + _log_sum(maximum, rest))


def _sums(x: Array) -> tuple[Array, Any, Any, Any, Any] | None:
    """Return the terms of a row, where its maximum is, this, its term, and the sum of the others."""
    place, bound = x.argmax(), BOUNDS[x.dtype.type]
    maximum = x[place]
    if not (maximum <= bound and x[x.argmin()] >= -bound and x.flags.c_contiguous):
        return None
    terms = np.exp(x)
    largest = terms[place]
    terms[place] = 0.0
    rest = np.add.reduce(terms)
    terms[place] = largest
    return terms, place, maximum, largest, rest


def _log_sum(maximum: Any, rest: Any) -> float:
    # Of numbers of Python, which are doubles, NumPy takes functions in half of the time.
    excess = float(rest) / float(np.exp(float(maximum)))
    return float(np.log1p(excess))


FORMULAS: dict[Any, Callable[[Array], Array | None]] = {
    _primals.softmax: _softmax,
    _primals.log_softmax: _log_softmax,
    _primals.logsumexp: _logsumexp,
}
