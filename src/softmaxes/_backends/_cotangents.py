"""
Two VJPs of `_rules` for rows of NumPy where all is finite, in place: without their special cases.

An entry of probability 0 then has the product 0 with any number, and needs no selection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from softmaxes import _rules
from softmaxes._arrays import Array, Arrays, are_single
from softmaxes._backends._compiled import loops
from softmaxes._backends._moderate import BOUNDS
from softmaxes._backends._sums import added, others, top

__all__ = ["FORMULAS", "are_pairs", "of_rows"]


class Formula(NamedTuple):
    """The cotangent by `of(p, u)`, but for the dominant entry of a row."""

    of: Callable[..., Array]
    takes_a_mask: bool  # for p is 0 where it masks, and so is the cotangent


def are_pairs(f: Any, p: Array, arrays: Arrays, u: Array) -> bool:
    """Tell whether there are probabilities and cotangents to go by, and nothing else."""
    options = arrays[2:] if FORMULAS[f].takes_a_mask else arrays[1:]
    return p.size > 0 and u.shape == p.shape and all(a is None for a in options)


def of_rows(f: Any, p: Array, arrays: Arrays, u: Array) -> tuple[Array, Array | None] | None:
    """Return the cotangents and for which rows they are right, None for all; None if for no row."""
    if not are_pairs(f, p, arrays, u):
        return None
    if loops() is not None and p.dtype in BOUNDS:
        return (g := np.empty_like(p)), loops().cotangents(f, p, arrays, u, g)
    if are_single(p, (-1,)):
        return None  # the rules see that there is next to nothing to compute
    place = top(p)
    largest = p.reshape(-1)[place]
    is_dominant = largest > 0.5
    g = FORMULAS[f].of(p, u, np.where(is_dominant, u.reshape(-1)[place], 0.0)[:, None])
    rest = others(g, place)[:, 0]
    flat = g.reshape(-1)
    flat[place] = np.where(is_dominant, -rest, flat[place])  # the sum of all is 0
    return g, np.isfinite(rest) & (largest > 0.0)


def _of_softmax(p: Array, u: Array, u_dominant: Array) -> Array:
    w = u - u_dominant
    w -= added(p * w).astype(w.dtype, copy=False)
    w *= p
    return w


def _of_log_softmax(p: Array, u: Array, u_dominant: Array) -> Array:
    g = p * added(u).astype(u.dtype, copy=False)
    return np.subtract(u, g, out=g)


FORMULAS: dict[Any, Formula] = {
    _rules.softmax.vjp: Formula(_of_softmax, takes_a_mask=True),
    _rules.log_softmax.vjp: Formula(_of_log_softmax, takes_a_mask=False),
}
