"""
Every other library: a function of scores that are a matrix product, in tiles of rows.

The tiles are calls like any other, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from softmaxes._arrays import Array, Call, Product, mapped, quiet
from softmaxes._backends import apply
from softmaxes._rules import Rule

__all__ = ["values"]

BUDGET = 48 << 20


def values(rule: Rule, product: Product) -> Array:
    """Return the values of all rows, as a column."""
    xp = product.call.xp
    return xp.concat([apply(rule, tile) for tile in tiles(product)])


def tiles(product: Product) -> Iterator[Call]:
    """Return the calls that a product is made of, with their scores."""
    call = product.call
    features, weights, bias = mapped(call.in_working_precision, product.factors)
    step, _ = product.tiles(BUDGET)
    n = features.shape[0]
    for start in range(0, max(n, 1), step):
        rows = partial(_rows, start=start, stop=min(start + step, n))
        with quiet(call.xp):
            scores = rows(features) @ weights.T
            scores = scores if bias is None else scores + bias
        yield call._replace(arrays=mapped(rows, call.arrays)._replace(x=scores))


def _rows(a: Array, start: int, stop: int) -> Array:
    return a if a.shape[0] == 1 else a[start:stop, :]
