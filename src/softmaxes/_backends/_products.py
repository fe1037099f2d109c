"""
Every library but JAX: a function of scores that are a matrix product, in tiles of rows.

The tiles are calls like any other, one after the other, and their scores are forgotten. With the
scores z = f Wᵀ + b, their cotangent g and the rows' features f,

    dz = df Wᵀ + f dWᵀ + db,    f̄ = g W,    W̄ = gᵀ f,    b̄ = 1ᵀ g,

and these once more, with dg = H dz: the gradient moves by dg W + g dW, dgᵀ f + gᵀ df and 1ᵀ dg. All
is computed anew from the factors, whatever is asked: nothing is kept of a value but these.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from softmaxes._arrays import Array, Arrays, Call, Factors, Namespace, Product, mapped, quiet
from softmaxes._backends import apply, evaluate, factor
from softmaxes._rules import Rule, ingredients

__all__ = ["hvp", "pullback", "pushforward", "values"]

Names: TypeAlias = Collection[str]

BUDGET = 48 << 20
STILL = Arrays(None)


def values(rule: Rule, product: Product) -> Array:
    """Return the values of all rows, as a column."""
    return _column((apply(rule, tile.call) for tile in _tiles(product)), product)


def pushforward(rule: Rule, product: Product, factors: Factors, arrays: Arrays = STILL) -> Array:
    """Return the tangents of the values for those of the factors and of the call's arrays."""

    def tangent(tile: _Tile) -> Array:
        tangents = _rows(arrays, tile.rows)._replace(x=tile.tangent(tile.factors_of(factors)))
        p, d = tile.ingredients(rule, tangents)
        return evaluate(rule.jvp, tile.wide, p, d, tile.call.arrays, tangents)

    return _column(map(tangent, _tiles(product)), product)


def pullback(rule: Rule, product: Product, u: Array, names: Names) -> Factors:
    """Return the cotangents of the factors of these names."""

    def cotangents(tile: _Tile) -> Factors:
        return tile.cotangents(tile.gradient(rule, _rows(u, tile.rows)), tile.factors, names)

    return _joined(map(cotangents, _tiles(product)), product)


def hvp(rule: Rule, product: Product, moving: Factors) -> Factors:
    """Return the derivative of the gradient of the sum of all values, by the factors that move."""
    names = [name for name, v in moving._asdict().items() if v is not None]
    both = {"features", "weights"}.issubset(names)

    def change(tile: _Tile) -> Factors:
        p, _ = tile.ingredients(rule, Arrays(None))
        tangents = tile.factors_of(moving)
        dg = evaluate(rule.hvp, tile.wide, p, tile.call.arrays, tile.tangent(tangents))
        found = tile.cotangents(dg, tile.factors, names)
        if not both:  # the gradient by either is that of the scores times the other
            return found
        g = tile.gradient(rule, tile.call.xp.ones_like(dg[..., :1]))
        return _plus(found, tile.cotangents(g, tangents, ("features", "weights")))

    return _joined(map(change, _tiles(product)), product)


class _Tile(NamedTuple):
    """Some of the rows: their factors in the working precision, and the call of their scores."""

    rows: slice
    factors: Factors
    call: Call

    @property
    def wide(self) -> Call:
        """The call, not rounded at the end."""
        return self.call._replace(dtype=self.call.working)

    def factors_of(self, tangents: Factors) -> Factors:
        """Return tangents of all factors as those of the factors of this tile."""
        return tangents._replace(features=_rows(tangents.features, self.rows))

    def ingredients(self, rule: Rule, tangents: Arrays) -> Any:
        return ingredients(rule, lambda of: apply(of, self.wide), tangents)

    def gradient(self, rule: Rule, u: Array) -> Array:
        """Return the cotangent of the scores."""
        p, _ = self.ingredients(rule, Arrays(None))
        return evaluate(rule.vjp, self.wide, p, self.call.arrays, u)

    def tangent(self, moving: Factors) -> Array:
        """Return the tangent of the scores."""
        dz = self.call.xp.zeros_like(self.call.arrays.x)
        with quiet(self.call.xp):
            if moving.features is not None:
                dz = dz + _scores(
                    moving._replace(weights=self.factors.weights, bias=None), self.call
                )
            if moving.weights is not None:
                dz = dz + _scores(
                    self.factors._replace(weights=moving.weights, bias=None), self.call
                )
            return dz if moving.bias is None else dz + moving.bias[..., None, :]

    def cotangents(self, g: Array, factors: Factors, names: Names) -> Factors:
        """Return what the cotangent of the scores adds to those of the factors of these names."""
        xp = self.call.xp
        moves = xp.any(
            g != 0.0, axis=-1, keepdims=True
        )  # in a row that does not, anything may stand
        with quiet(xp):
            by = {
                "features": lambda: g @ factors.weights,
                "weights": lambda: _transposed(g, xp=xp) @ xp.where(moves, factors.features, 0.0),
                "bias": lambda: xp.sum(g, axis=-2),
            }
            return Factors(*(by[name]() if name in names else None for name in Factors._fields))


def _tiles(product: Product) -> Iterator[_Tile]:
    call = product.call
    factors = mapped(partial(factor, xp=call.xp), product.factors)
    factors = mapped(call.in_working_precision, factors)
    step, _ = product.tiles(BUDGET)
    n = factors.features.shape[-2]
    for start in range(0, max(n, 1), step):
        rows = slice(start, min(start + step, n))
        some = factors._replace(features=_rows(factors.features, rows))
        arrays = _rows(call.arrays, rows)._replace(x=_scores(some, call))
        yield _Tile(rows, some, call._replace(arrays=arrays))


def _scores(factors: Factors, call: Call) -> Array:
    features, weights, bias = factors
    with quiet(call.xp):
        scores = features @ _transposed(weights, xp=call.xp)
        return scores if bias is None else scores + bias[..., None, :]


def _rows(tree: Any, rows: slice) -> Any:
    """Return some rows of matrices; one with a single row has it everywhere."""
    whole = 1, rows.stop - rows.start
    return mapped(lambda a: a if a.shape[-2] in whole else a[..., rows, :], tree)


def _transposed(a: Array, *, xp: Namespace) -> Array:
    # In the words of the standard that every library knows, and every transformation of PyTorch.
    return xp.permute_dims(a, (*range(a.ndim - 2), a.ndim - 1, a.ndim - 2))


def _column(parts: Iterable[Array], product: Product) -> Array:
    """Return what stands in the rows of all tiles."""
    first, *others = parts
    return product.call.xp.concat([first, *others], axis=-2) if others else first


def _joined(parts: Iterable[Factors], product: Product) -> Factors:
    """Return the cotangents of all factors, where every tile has features of its own."""
    features, total = [], Factors()
    for part in parts:
        features.append(part.features)
        total = _plus(total, part._replace(features=None))
    return total if features[0] is None else total._replace(features=_column(features, product))


def _plus(a: Factors, b: Factors) -> Factors:
    """Return the sum, where what is None does not count."""
    pairs = zip(a, b, strict=True)
    return Factors(
        *(one if two is None else two if one is None else one + two for one, two in pairs)
    )
