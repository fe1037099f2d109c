"""VJPs, from probabilities and cotangents, as in `softmaxes._backends._cotangents`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from softmaxes import _rules
from softmaxes._arrays import Array
from softmaxes._backends._numba._numbers import compiled, inlined, key_of, number_of
from softmaxes._backends._numba._slices import BLOCK, folded, two_sum

__all__ = ["COTANGENTS"]


def _over_pairs(sum_of: Callable[..., Any], finish: Callable[..., None]) -> Any:
    """Return a loop over rows: `finish(p, u, u_dominant, sum, g)`, and 0 for the sum of a row of g."""

    def loop(p: Array, u: Array, g: Array, sums: Array) -> None:
        products = np.empty(BLOCK, p.dtype)
        for row in range(p.shape[0]):
            place, largest = _dominant(p[row])
            u_dominant = u[row, place] if place >= 0 else p.dtype.type(0.0)
            total = sum_of(p[row], u[row], u_dominant, products)
            sums[row] = total if largest > 0.0 else np.nan
            finish(p[row], u[row], u_dominant, p.dtype.type(total), g[row])
            if place >= 0:
                g[row, place] = 0.0
                g[row, place] = -_sum(g[row], products)

    return compiled()(loop)


@inlined()
def _dominant(p: Array) -> Any:
    """Return where a probability above 1/2 is, or -1, and the largest of all, NaN if there is one."""
    key = key_of(p.dtype.type(0.0))
    for i in range(p.size):
        key = max(key, key_of(p[i]))
    largest = number_of(key)
    if largest > 0.5:
        for i in range(p.size):
            if p[i] == largest:
                return i, largest
    return -1, largest


def _summed(of: Callable[..., Any]) -> Any:
    """Return the sum over a row of `of` its entries, and those of other rows, and a number."""

    @inlined()
    def total(p: Array, u: Array, number: Any, products: Array) -> float:
        found = error = 0.0
        for start in range(0, p.size, BLOCK):
            n = min(BLOCK, p.size - start)
            for i in range(n):
                products[i] = of(p[start + i], u[start + i], number)
            found, part = two_sum(found, folded(products, n))
            error += part
        return found + error

    return total


@inlined()
def _product(p: Any, u: Any, u_dominant: Any) -> Any:
    return p * (u - u_dominant)


@inlined()
def _second(p: Any, u: Any, u_dominant: Any) -> Any:
    return u


_sum_of_products, _sum_of_second = _summed(_product), _summed(_second)


@inlined()
def _sum(a: Array, products: Array) -> Any:
    return _sum_of_second(a, a, 0.0, products)


@inlined()
def _of_softmax(p: Array, u: Array, u_dominant: Any, mean: Any, g: Array) -> None:
    for i in range(p.size):
        g[i] = p[i] * ((u[i] - u_dominant) - mean)


@inlined()
def _of_log_softmax(p: Array, u: Array, u_dominant: Any, total: Any, g: Array) -> None:
    for i in range(p.size):
        g[i] = u[i] - p[i] * total


COTANGENTS = {
    _rules.softmax.vjp: _over_pairs(_sum_of_products, _of_softmax),
    _rules.log_softmax.vjp: _over_pairs(_sum_of_second, _of_log_softmax),
}
