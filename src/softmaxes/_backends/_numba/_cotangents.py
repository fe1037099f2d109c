"""VJPs, from probabilities and cotangents, as in `softmaxes._backends._cotangents`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from softmaxes import _rules
from softmaxes._arrays import Array
from softmaxes._backends._numba._numbers import compiled, inlined, lanes_of
from softmaxes._backends._numba._slices import two_sum
from softmaxes._backends._numba._vectors import (
    Memory,
    filled,
    first_places,
    folded,
    fused,
    highest_of,
    load,
    load_first,
    memory_of,
    store,
    store_first,
)

__all__ = ["COTANGENTS"]


def _over_pairs(product: Callable[..., Any], result: Callable[..., Any]) -> Any:
    """Return a loop over rows: `result(p, u, u_dominant, sum of products)`, and 0 for the sum of a row."""
    sum_of_products, sum_of_second, write = _summing(product), _summing(_second), _mapping(result)

    def loop(p: Array, u: Array, g: Array, sums: Array) -> None:
        of_p, of_u, of_g = memory_of(p), memory_of(u), memory_of(g)
        for row in range(p.shape[0]):
            largest = _largest(of_p, row)
            place = _first(of_p, row, largest) if largest > 0.5 else -1
            u_dominant = u[row, place] if place >= 0 else p.dtype.type(0.0)
            total = sum_of_products(of_p, of_u, row, u_dominant)
            sums[row] = total if largest > 0.0 else np.nan
            write(of_p, of_u, row, u_dominant, total, of_g)
            if place >= 0:
                g[row, place] = 0.0
                g[row, place] = -sum_of_second(of_g, of_g, row, 0.0)

    return compiled()(loop)


@inlined()
def _largest(p: Memory, row: int) -> Any:
    """Return the largest probability."""
    n, lanes, largest = p.length, lanes_of(p), filled(p, 0.0)
    for start in range(0, n - lanes + 1, lanes):
        largest = max(load(p, row, start, largest), largest)
    if n % lanes:
        places = first_places(n % lanes, largest)
        largest = max(load_first(p, row, n - n % lanes, places), largest)
    return highest_of(largest)


@inlined()
def _first(p: Memory, row: int, number: Any) -> int:
    i = 0
    while p[row, i] != number:
        i += 1
    return i


def _summing(of: Callable[..., Any]) -> Any:
    """Return the sum over a row of `of` its entries, and those of another, and a number."""

    @inlined()
    def total(p: Memory, u: Memory, row: int, number: Any) -> float:
        n, lanes, repeated = p.length, lanes_of(p), filled(p, number)
        found = error = filled(p, 0.0)
        for start in range(0, n - lanes + 1, lanes):
            term = of(load(p, row, start, found), load(u, row, start, found), repeated)
            found, error = two_sum(found, error, term)
        if n % lanes:
            start, places = n - n % lanes, first_places(n % lanes, found)
            first, second = load_first(p, row, start, places), load_first(u, row, start, places)
            found, error = two_sum(found, error, of(first, second, repeated))
        return np.float64(folded(found)) + np.float64(folded(error))

    return total


def _mapping(of: Callable[..., Any]) -> Any:
    """Return a loop that writes `of` the entries of two rows and two numbers."""

    @inlined()
    def write(p: Memory, u: Memory, row: int, a: Any, b: Any, g: Memory) -> None:
        n, lanes, first, second = p.length, lanes_of(p), filled(p, a), filled(p, b)
        for start in range(0, n - lanes + 1, lanes):
            found = of(load(p, row, start, first), load(u, row, start, first), first, second)
            store(g, row, start, found)
        if n % lanes:
            start, places = n - n % lanes, first_places(n % lanes, first)
            pair = load_first(p, row, start, places), load_first(u, row, start, places)
            store_first(g, row, start, places, of(*pair, first, second))

    return write


@inlined()
def _product(p: Any, u: Any, u_dominant: Any) -> Any:
    return p * (u - u_dominant)


@inlined()
def _second(p: Any, u: Any, number: Any) -> Any:
    return u


@inlined()
def _of_softmax(p: Any, u: Any, u_dominant: Any, mean: Any) -> Any:
    return p * ((u - u_dominant) - mean)


@inlined()
def _of_log_softmax(p: Any, u: Any, u_dominant: Any, total: Any) -> Any:
    return fused(p, total * -1.0, u)


COTANGENTS = {
    _rules.softmax.vjp: _over_pairs(_product, _of_softmax),
    _rules.log_softmax.vjp: _over_pairs(_second, _of_log_softmax),
}
