"""
Slices of NumPy that are columns of a matrix, as along axis 0, where they lie: none is made a row.

The terms are those of a row, and are added in the order in which NumPy adds a row, so the bits are
the same. A column with several maxima is left to the rows, where the first of them counts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np

from softmaxes._arrays import Array
from softmaxes._backends import _moderate, _ordinary
from softmaxes._backends._sums import TILE, Sums

__all__ = ["sums"]

BLOCK = 128  # entries of a row that NumPy adds in EIGHT running sums; of more it adds two halves
EIGHT = 8

Terms: TypeAlias = Callable[[Array, Array | None], Array]


def sums(x: Array, out: Array | None) -> Sums:
    """Return the sums of columns, with the terms in out if there is one."""
    maximum, lowest = _reduced(np.maximum, x), _reduced(np.minimum, x)
    are_moderate = _moderate.are_in_bounds(maximum, lowest)
    if np.count_nonzero(are_moderate):
        rest, have_one = _others(_exp, maximum, x, out)
        return _moderate.of_rest(x, out, maximum, np.exp(maximum), rest, are_moderate & have_one)
    terms = partial(_ordinary.terms, maximum, masked=False)
    rest, have_one = _others(terms, maximum, x, out)
    return Sums(x, out, maximum, x.dtype.type(1.0), rest, rest, np.isfinite(rest) & have_one)


def _exp(x: Array, out: Array | None) -> Array:
    return np.exp(x, out=out)


def _others(terms: Terms, maximum: Array, x: Array, out: Array | None) -> tuple[Array, Array]:
    """Return the sums of the terms without those of the maxima, and which columns have but one."""
    n, columns = x.shape
    maxima = np.zeros(columns, np.intp)

    def part(rows: slice) -> Array:
        some = terms(x[rows], None if out is None else out[rows])
        places = divmod(np.flatnonzero(x[rows] == maximum), columns)
        np.add.at(maxima, places[1], 1)
        largest = some[places]
        some[places] = 0.0
        total = _total(some)
        some[places] = largest
        return total

    most = max(BLOCK, TILE // columns)
    parts = [_halved(part, i, min(i + TILE, n), most) for i in range(0, n, TILE)]
    return _total(np.stack(parts))[None], maxima[None] == 1


def _total(a: Array) -> Array:
    """Return the sum of the rows."""
    return _halved(lambda rows: _total_of_block(a[rows]), 0, len(a), BLOCK)


def _halved(total: Callable[[slice], Array], start: int, stop: int, most: int) -> Array:
    """Return what the totals of parts of at most so many rows add up to."""
    n = stop - start
    if n <= most:
        return total(slice(start, stop))
    middle = start + n // 2 - n // 2 % EIGHT
    return _halved(total, start, middle, most) + _halved(total, middle, stop, most)


def _total_of_block(a: Array) -> Array:
    if len(a) < EIGHT:
        return np.add.reduce(a, 0)
    s, others = _by_eight(np.add, a)
    total = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]))
    for row in others:
        total += row
    return total


def _reduced(f: np.ufunc, a: Array) -> Array:
    if len(a) >= EIGHT:
        a = np.concatenate(_by_eight(f, a))
    return f.reduce(a, 0, keepdims=True)


def _by_eight(f: np.ufunc, a: Array) -> tuple[Array, Array]:
    """Return every eighth row reduced together, and the rows that are left."""
    whole = len(a) - len(a) % EIGHT
    return f.reduce(a[:whole].reshape(-1, EIGHT, a.shape[-1]), 0), a[whole:]
