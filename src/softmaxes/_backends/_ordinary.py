"""
Formulas of `_primals` for ordinary rows of NumPy: in place, without their special cases.

A row is ordinary if its maximum is finite; any other is left to `_primals`. With M the maximum and
z + error = x - M exactly, the terms are exp(z) (1 + error), the first maximum has the term 1, and the
sum of the others is S - 1 as it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from softmaxes import _primals
from softmaxes._arrays import Array

__all__ = ["FORMULAS", "Formula", "excess", "kept", "terms", "top"]


class Formula(NamedTuple):
    """The result by `of(x, terms, maximum, excess)`, which may overwrite the terms."""

    of: Callable[..., Array]
    reduces: bool = False


def kept(x: Array, where: Array) -> Array:
    """Return x, -inf where it is masked; a NaN that is not becomes inf, no more ordinary than NaN."""
    # np.where and copyto branch, and on a mask without pattern cost ten times this.
    bound = (where - x.dtype.type(0.5)) * x.dtype.type(np.inf)
    return np.fmin(x, bound)


def top(x: Array) -> Array:
    """Return where the first maximum of each row is, or its first NaN, in x with one axis."""
    return x.argmax(-1) + np.arange(0, x.size, x.shape[-1])


def terms(x: Array, maximum: Array, out: Array, error: Array, part: Array) -> None:
    """Write the terms to out. NaN stands for 0 where x - M is -inf."""
    z = np.subtract(x, maximum, out=out)
    _error(x, maximum, out, error, part)
    np.exp(z, out=z)
    error *= z  # a term, not a factor: the error may exceed 1 where exp(z) is 0
    z += error


def _error(x: Array, maximum: Array, z: Array, error: Array, part: Array) -> None:
    """Write the error of z = x - M to `error`, by Knuth's TwoSum, or Dekker's where |x| >= |M|."""
    if (maximum <= 0.0).all():
        np.subtract(x, z, out=error)
        error -= maximum
        return
    np.subtract(z, x, out=part)
    np.subtract(z, part, out=error)
    np.subtract(x, error, out=error)
    part += maximum
    error -= part


def excess(terms: Array, top: Array) -> Array:
    """Return S - 1, and have the terms free of NaN; top is where the first maxima are."""
    flat = terms.reshape(-1)
    flat[top] = 0.0
    total = np.add.reduce(terms, -1, keepdims=True)
    if np.isnan(total).any():
        total = np.add.reduce(np.fmax(terms, 0.0, out=terms), -1, keepdims=True)
    flat[top] = 1.0
    return total


def _softmax(x: Array, terms: Array, maximum: Array, excess: Array) -> Array:
    return np.divide(terms, 1.0 + excess, out=terms)


def _log_softmax(x: Array, terms: Array, maximum: Array, excess: Array) -> Array:
    below = np.subtract(maximum, x, out=terms)
    return np.subtract(-np.log1p(excess), below, out=terms)


def _logsumexp(x: Array, terms: Array, maximum: Array, excess: Array) -> Array:
    return maximum + np.log1p(excess)


def _excess(x: Array, terms: Array, maximum: Array, excess: Array) -> Array:
    return excess


FORMULAS: dict[Any, Formula] = {
    _primals.excess: Formula(_excess, reduces=True),
    _primals.softmax: Formula(_softmax),
    _primals.log_softmax: Formula(_log_softmax),
    _primals.logsumexp: Formula(_logsumexp, reduces=True),
}
