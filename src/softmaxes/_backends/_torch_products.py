"""
PyTorch: a function of scores that are a matrix product, in tiles of rows.

One function of the factors for the engine, which keeps these and computes the scores once more for
its derivatives. They are what every library has, made of functions that have derivatives themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

from array_api_compat import torch as xp

from softmaxes import _rules
from softmaxes._arrays import Array, Arrays, Call, Factors, Product
from softmaxes._backends import _products
from softmaxes._backends._torch import (
    Flat,
    Function,
    in_its_dtypes,
    keep_from_the_compiler,
    transposed,
)
from softmaxes._rules import Rule

__all__ = ["applied_to_product", "hvp", "pullback", "pushforward", "values"]

FACTORS = len(Factors._fields)


def _of_product(f: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(f)
    def exact(rule: Rule, product: Product, *rest: Any) -> Any:
        with in_its_dtypes(product.factors):
            return f(rule, product, *rest)

    return exact


pushforward = _of_product(_products.pushforward)
pullback = _of_product(_products.pullback)
hvp = _of_product(_products.hvp)


def values(rule: Rule, product: Product) -> Array:
    """Return the values of all rows, as a column."""
    keep_from_the_compiler()
    call = product.call
    options = rule.primal.__name__, call.working, call.dtype, product.tile_bytes
    return applied_to_product(*options, product.factors, call.arrays)


def applied_to_product(
    name: str, working: Any, dtype: Any, tile_bytes: int | None, factors: Factors, arrays: Arrays
) -> Array:
    """Return the function that has the rule of this name, one node of a compiler's graph."""
    f = _OfProduct(getattr(_rules, name), working, dtype, tile_bytes)
    return Function.apply(f, *factors, *arrays[1:])


@dataclass(frozen=True)
class _OfProduct:
    """The function of a rule, of the factors and of all arrays of a call but x."""

    rule: Rule
    working: Any
    dtype: Any
    tile_bytes: int | None

    def value(self, *arrays: Array) -> Array:
        return _products.values(self.rule, self.product(arrays))

    def tangent(self, y: Array, arrays: Flat, tangents: Flat) -> Array:
        factors, others = Factors(*tangents[:FACTORS]), Arrays(None, *tangents[FACTORS:])
        dy = pushforward(self.rule, self.product(arrays), factors, others)
        return dy.to(self.dtype)

    def cotangents(self, y: Array, arrays: Flat, u: Array, needs: Sequence[bool]) -> Flat:
        product, u = self.product(arrays), u.to(self.working)
        names = [name for name, asked in zip(Factors._fields, needs, strict=False) if asked]
        found = pullback(self.rule, product, u, names) if names else Factors()
        others = (False,) * FACTORS + tuple(needs[FACTORS:])
        if not any(others):
            return *found, *(None for _ in arrays[FACTORS:])
        linear = partial(self.tangent, y, arrays)
        return *found, *transposed(linear, arrays, u.to(self.dtype), others)[FACTORS:]

    def kept(self, y: Array, arrays: Flat, needs: Sequence[bool]) -> Flat:
        return None, *arrays  # no scores, nor anything made of them

    def product(self, arrays: Flat) -> Product:
        others = Arrays(None, *arrays[FACTORS:])
        call = Call("", others, (-1,), self.working, self.dtype, (), (), (), xp)
        return Product(Factors(*arrays[:FACTORS]), call, self.tile_bytes)
