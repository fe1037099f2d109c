"""
The true values, in decimal arithmetic of 60 digits from the standard library.

Nothing here shares code with the functions it judges. Every float is an exact decimal; what
is left to round is the exponentials, the logarithm and the sums, each to 60 digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmaxes._cli.formats import Format

__all__ = ["Exact", "Truth", "exact"]

Array = NDArray[np.float64]
Row = list[Decimal]
Pair = tuple[Any, Any]  # values and their scale, rows or numbers


class Exact(NamedTuple):
    """Exact values: the nearest float64, what is left of it in ulp, and the ulp of the scale."""

    nearest: Array
    rest: Array
    ulp: Array
    scale: Array

    def errors(self, y: Array) -> Array:
        """Return the distance of y from the exact values, in ulp of the scale."""
        return np.asarray(np.abs((y - self.nearest) / self.ulp - self.rest))


class Truth(NamedTuple):
    """The exact values for rows of scores x and tangents v; each its own scale unless one is named."""

    softmax: Exact
    log_softmax: Exact
    logsumexp: Exact  # scale max(|max x|, |logsumexp x|)
    product: Exact  # J v, J the Jacobian of softmax; scale p (|w| + sum p |w|), w as in _centred
    hessian_row: Exact  # of logsumexp, at the top entry
    label_gradient: Exact  # of -log p at the top entry: p - 1
    loss: Exact  # -log p at the top entry
    loss_gradient: Exact  # p less the indicator of the top entry
    entropy: Exact
    entropy_gradient: Exact  # scale p (|w| + sum p |w|), w = log p less that of a dominant entry
    divergence: Exact  # of softmax(v) from softmax(x)
    divergence_gradient: Exact  # by x; scale p (|r| + sum p |r|), r the logarithm of their ratio


def exact(x: Array, v: Array, form: Format) -> Truth:
    """Compute the truth for rows of scores and tangents, in ulp of a format."""
    with localcontext(Context(prec=60, Emin=MIN_EMIN, Emax=MAX_EMAX)):
        rows = [
            _row(_decimals(scores), _decimals(tangent))
            for scores, tangent in zip(x, v, strict=True)
        ]
        return Truth(*(_enclose(pairs, form) for pairs in zip(*rows, strict=True)))


def _decimals(row: Array) -> Row:
    return [Decimal(float(entry)) for entry in row]


def _row(x: Row, v: Row) -> tuple[Pair, ...]:
    m, top, others, p, log_p = _softmax(x)
    lse = m + _log1p(others)
    rest = others / (1 + others)  # 1 - p at the top entry
    hessian = [p[top] * (rest if i == top else -entry) for i, entry in enumerate(p)]
    gradient = [-rest if i == top else entry for i, entry in enumerate(p)]
    entropy = -_mean(p, log_p)
    ratio = [a - b for a, b in zip(log_p, _softmax(v).log_p, strict=True)]
    divergence = _mean(p, ratio)
    return (
        (p, p),
        (log_p, log_p),
        (lse, max(abs(m), abs(lse))),
        _product(p, _centred(v, top, others)),
        (hessian, hessian),
        (-rest, rest),
        (-log_p[top], log_p[top]),
        (gradient, gradient),
        (entropy, entropy),
        _product(p, _centred([-entry for entry in log_p], top, others)),
        (divergence, divergence),
        _by_others(_product(p, ratio), top, others),
    )


class _Softmax(NamedTuple):
    maximum: Decimal
    top: int
    others: Decimal  # the sum of the exponentials less 1
    p: Row
    log_p: Row


def _softmax(x: Row) -> _Softmax:
    m = max(x)
    top = x.index(m)
    e = [(entry - m).exp() for entry in x]
    others = sum(e[:top] + e[top + 1 :], Decimal(0))  # sum e - 1, without the cancellation
    log_sum = _log1p(others)
    p = [entry / (1 + others) for entry in e]
    return _Softmax(m, top, others, p, [entry - m - log_sum for entry in x])


def _mean(p: Row, values: Row) -> Decimal:
    return sum((a * b for a, b in zip(p, values, strict=True)), Decimal(0))


def _by_others(pair: Pair, top: int, others: Decimal) -> Pair:
    # The entries sum to 0, so a dominant one is as accurate as the others.
    value, scale = (list(row) for row in pair)
    if others < 1:
        value[top] = -sum(value[:top] + value[top + 1 :], Decimal(0))
        scale[top] = sum(scale[:top] + scale[top + 1 :], Decimal(0))
    return value, scale


def _log1p(t: Decimal) -> Decimal:
    # The series errs by t^3/3; where it does not serve, 1 + t keeps at least 30 digits of t.
    return t - t * t / 2 if t.adjusted() < -30 else (1 + t).ln()


def _centred(v: Row, top: int, others: Decimal) -> Row:
    # J 1 = 0, so any constant may go; that of a dominant entry makes the scale small.
    return [entry - v[top] for entry in v] if others < 1 else v


def _product(p: Row, w: Row) -> Pair:
    terms = list(zip(p, w, strict=True))
    mean, size = _mean(p, w), _mean(p, [abs(entry) for entry in w])
    return [a * (b - mean) for a, b in terms], [a * (abs(b) + size) for a, b in terms]


def _enclose(pairs: Sequence[Pair], form: Format) -> Exact:
    truth, scale = (np.array(column, dtype=object) for column in zip(*pairs, strict=True))
    nearest, scale = truth.astype(np.float64), np.abs(scale.astype(np.float64))
    ulp = form.ulp(scale)
    entries = zip(truth.flat, nearest.flat, ulp.flat, strict=True)
    rest = [float((t - Decimal(n)) / Decimal(u)) for t, n, u in entries]
    return Exact(nearest, np.reshape(rest, truth.shape), ulp, scale)
