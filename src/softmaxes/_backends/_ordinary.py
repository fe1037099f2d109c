"""
Formulas of `_primals` for ordinary rows of NumPy: in place, without their special cases.

A row is ordinary if its maximum is finite; any other is left to `_primals`. With M the maximum and
z + error = x - M exactly, the terms are exp(z) (1 + error), the first maximum has the term 1, and the
sum of the others is S - 1 as it stands. Of a row in pieces the state of it tells M and S - 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from softmaxes import _primals, _states
from softmaxes._arrays import Array

__all__ = ["FORMULAS", "Formula", "excess", "free_of_nan", "kept", "terms", "top"]


LONG = 1024  # entries of a row, beside which what is done once for each row counts little


class Formula(NamedTuple):
    """The result by `of(x, terms, maximum, excess)`, which may overwrite the terms, if it has any."""

    of: Callable[..., Array]
    reduces: bool = False
    has_terms: bool = True


def kept(x: Array, where: Array) -> Array:
    """Return x, -inf where it is masked; a NaN that is not becomes inf, no more ordinary than NaN."""
    # np.where and copyto branch, and on a mask without pattern cost ten times this.
    bound = (where - x.dtype.type(0.5)) * x.dtype.type(np.inf)
    return np.fmin(x, bound)


def top(x: Array) -> Array:
    """Return where the first maximum of each row is, or its first NaN, in x with one axis."""
    return x.argmax(-1) + np.arange(0, x.size, x.shape[-1])


def terms(x: Array, maximum: Array, out: Array, memory: Array, *, masked: bool) -> None:
    """Write the terms to out. Unless `masked` says that some are, NaN stands for 0 at x = -inf."""
    error, part = memory[:, : x.shape[0], : x.shape[1]]
    z = np.subtract(x, maximum, out=out)
    _error(x, maximum, out, error, part)
    if masked:
        z += error  # at most half an ulp, so this makes NaN of -inf, of which exp takes seven times as long
    np.exp(z, out=z)
    error *= z  # a term, not a factor: the error may exceed 1 where exp(z) is 0
    z += error
    if masked:
        free_of_nan(z, memory)


def _error(x: Array, maximum: Array, z: Array, error: Array, part: Array) -> None:
    """Write the error of z = x - M to `error`, by Knuth's TwoSum, or in fewer passes by Dekker's."""
    if maximum.max() <= 0.0:  # |x| >= |M|
        np.subtract(x, z, out=error)
        error -= maximum
        return
    if _is_no_larger(x, maximum):
        np.add(z, maximum, out=error)
        np.subtract(x, error, out=error)
        return
    np.subtract(z, x, out=part)
    np.subtract(z, part, out=error)
    np.subtract(x, error, out=error)
    part += maximum
    error -= part


def _is_no_larger(x: Array, maximum: Array) -> bool:
    """Tell whether no x has a larger exponent than the M of its row, where that costs little to know."""
    if x.shape[-1] < LONG:
        return False
    _, exponent = np.frexp(maximum)
    lowest = np.minimum.reduce(x, -1, keepdims=True)
    return bool((-lowest < np.ldexp(x.dtype.type(1.0), exponent)).all())


def excess(terms: Array, top: Array) -> Array:
    """Return S - 1, where top is where the first maxima are; NaN where a term is."""
    flat = terms.reshape(-1)
    flat[top] = 0.0
    total = np.add.reduce(terms, -1, keepdims=True)
    flat[top] = 1.0
    return total


def free_of_nan(terms: Array, memory: Array) -> None:
    """Write 0 where NaN stands for it."""
    zeros = memory[0, : terms.shape[0], : terms.shape[1]]
    zeros[...] = 0.0  # with the number 0, fmax takes three times as long
    np.fmax(terms, zeros, out=terms)


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
    _states.Reading(_states.softmax): Formula(_softmax),
    _states.Reading(_states.log_softmax): Formula(_log_softmax, has_terms=False),
}
