"""
JAX: a function of scores that are a matrix product, in tiles of rows.

A tile of scores is formed, used and forgotten; what a formula makes of it is worked out a few rows
at a time, which stay in cache. No loop keeps anything of a tile for a backward pass.

Forwards, values and tangents take one pass. Backwards, the values and their gradients by the features,
a vector for each row, are computed together. So is the gradient of the sum of all values by the
weights: up to a factor it is what a mean or a sum asks for. Only where the cotangents of the rows turn
out to differ, another pass is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from softmaxes._arrays import Array, Arrays, Factors, Product
from softmaxes._backends._jax import XP, differentiable, rematerialised
from softmaxes._backends._jax_modes import Modes, value_and_tangent
from softmaxes._rules import Rule

__all__ = ["hvp", "pullback", "pushforward", "values"]

# A processor is at its best near its cache; an accelerator is busy with a thousand rows or more.
PROCESSOR = 48 << 20
ACCELERATOR = 1 << 30

Moving: TypeAlias = dict[str, Array]  # tangents or cotangents of operands, by their names


class Operands(NamedTuple):
    """What the values depend on. The first three make the scores; all but `bias` are matrices."""

    features: Array
    weights: Array
    bias: Array
    labels: Array
    where: Array
    label_smoothing: Array

    def arrays(self, scores: Array = None) -> Arrays:
        """Return what the formula takes."""
        return Arrays(scores, self.where, labels=self.labels, label_smoothing=self.label_smoothing)

    def rows(self, start: Array, step: int) -> Operands:
        """Return the operands of some of the rows."""
        shared = self._replace(weights=None, bias=None)
        some: Operands = _rows(shared, start, step)
        return some._replace(weights=self.weights, bias=self.bias)


class Gradients(NamedTuple):
    """The values y, and the cotangents of operands."""

    y: Array
    features: Array
    weights: Array
    bias: Array
    labels: Array


class Tiles(NamedTuple):
    """A function of rows of scores, and how many of them there are at a time."""

    rule: Rule
    working: Any
    rows: int
    few: int  # rows to work on at a time
    classes: int  # rows of the gradient by the weights to add at a time

    def values(self, o: Operands) -> Array:
        """Return the values of all rows, as a column."""

        def tile(y: Array, start: Array, step: int, new: Array) -> Array:
            return _put(y, self._tile_values(o.rows(start, step)), start)

        return _over(tile, self._zeros(o.features.shape[0], 1), self.rows)

    def _tile_values(self, o: Operands) -> Array:
        arrays = o.arrays(self._scores(o))

        def few(y: Array, start: Array, step: int, new: Array) -> Array:
            return _put(y, self._f(_rows(arrays, start, step)), start)

        return _over(few, self._zeros(o.features.shape[0], 1), self._few(o))

    def gradients(self, o: Operands, u: Array, *, soft: bool = False) -> Gradients:
        """Return the values and the cotangents for the column u, that of soft labels if asked."""

        def tile(g: Gradients, start: Array, step: int, new: Array) -> Gradients:
            part = o.rows(start, step)
            y, by_scores, by_labels = self._tile_gradients(part, _rows(u, start, step), soft)
            # A row seen before counts once; in one that has no gradient, anything may stand.
            counts = new & (jnp.max(jnp.abs(by_scores), axis=1, keepdims=True, initial=0) != 0)
            by_features = self._product(by_scores, o.weights, (1, 0))
            return Gradients(
                _put(g.y, y, start),
                _put(g.features, by_features, start),
                self._added(g.weights, by_scores, jnp.where(counts, part.features, 0)),
                g.bias + jnp.sum(jnp.where(counts, by_scores, 0), axis=0, dtype=self.working),
                _put(g.labels, by_labels, start) if soft else None,
            )

        (n, h), c = o.features.shape, o.weights.shape[0]
        zeros = self._zeros(n, 1), self._zeros(n, h), self._zeros(c, h), self._zeros(c)
        start = Gradients(*zeros, self._zeros(n, c) if soft else None)
        # What one reading makes of the scores takes no more than they do, but for smoothing.
        lean = self._is_joint(o) and o.label_smoothing is None
        found: Gradients = _over(tile, start, self.rows * 3 // 2 if lean else self.rows)
        return found

    def _tile_gradients(self, o: Operands, u: Array, soft: bool) -> tuple[Array, Array, Array]:
        """Return the values, and the cotangents of scores and labels."""
        arrays = o.arrays(self._scores(o))

        def few(carry: Any, start: Array, step: int, new: Array) -> Any:
            some = _rows(arrays, start, step)
            names = ("x", "labels") if soft else ("x",)

            def f(*moving: Array) -> Array:
                return self._f(some._replace(**dict(zip(names, moving, strict=True))))

            y, pullback = jax.vjp(f, *(getattr(some, name) for name in names))
            return _put(carry, (y, *pullback(_rows(u, start, step))), start)

        n, c = arrays.x.shape
        by_labels = [self._zeros(n, c)] if soft else []
        carry = self._zeros(n, 1), jnp.zeros((n, c), o.weights.dtype), *by_labels
        return (*_over(few, carry, self._few(o)), None)[:3]

    def _added(self, total: Array, by_scores: Array, features: Array) -> Array:
        """Return total + by_scores.T @ features, without an array of its size beside it."""

        def some(total: Array, start: Array, step: int, new: Array) -> Array:
            columns = lax.dynamic_slice_in_dim(by_scores, start, step, axis=1)
            part = jnp.where(new, self._product(columns, features, (0, 0)), 0)
            return _put(total, _rows(total, start, step) + part, start)

        return _over(some, total, self.classes)

    def _scores(self, o: Operands) -> Array:
        scores = self._product(o.features, o.weights, (1, 1))
        return scores if o.bias is None else scores + o.bias

    def _product(self, a: Array, b: Array, axes: tuple[int, int]) -> Array:
        """Return the product, summed over these axes, accumulated in the dtype of the work."""
        summed = ((axes[0],), (axes[1],)), ((), ())
        return lax.dot_general(a, b, summed, preferred_element_type=self.working)

    def _f(self, arrays: Arrays) -> Array:
        f = _joint(self.rule) if self._is_joint(arrays) else differentiable(self.rule, (-1,))
        return f(arrays)

    def _few(self, o: Operands) -> int:
        return self.rows * 2 if self._is_joint(o) else self.few

    def _is_joint(self, o: Operands | Arrays) -> bool:
        return bool(self.rule.joint) and jnp.issubdtype(o.labels.dtype, jnp.integer)

    def _zeros(self, *shape: int) -> Array:
        return jnp.zeros(shape, self.working)


def values(rule: Rule, product: Product) -> Array:
    """Return the values of all rows, as a column."""
    f, o = _function(rule, product)
    return f(**o._asdict())


def pushforward(rule: Rule, product: Product, factors: Factors) -> Array:
    """Return the tangents of the values for those of the factors."""
    f, o = _function(rule, product)
    start, moving = _alike(o, factors)
    return jax.jvp(lambda moved: f(**o._asdict() | moved), (start,), (moving,))[1]


def pullback(rule: Rule, product: Product, u: Array, names: Iterable[str]) -> Factors:
    """Return the cotangents of the factors of these names."""
    f, o = _function(rule, product)
    start = {name: getattr(o, name) for name in names}
    y, by_factors = jax.vjp(lambda moved: f(**o._asdict() | moved), start)
    return Factors(**by_factors(u.astype(y.dtype))[0])


def hvp(rule: Rule, product: Product, moving: Factors) -> Factors:
    """Return the derivative of the gradient of the sum of all values, by the factors that move."""
    f, o = _function(rule, product)
    gradient = jax.grad(lambda moved: jnp.sum(f(**o._asdict() | moved)))
    start, tangents = _alike(o, moving)
    return Factors(**jax.jvp(gradient, (start,), (tangents,))[1])


def _function(rule: Rule, product: Product) -> tuple[Callable[..., Array], Operands]:
    """Return a function of the operands, by their names, and these."""
    call, (features, weights, bias) = product.call, product.factors
    if call.working != call.dtype and features.dtype != jnp.bfloat16:
        # The range of float16 is too small for gradients.
        features, weights = features.astype(call.working), weights.astype(call.working)
    arrays = call.arrays
    o = Operands(features, weights, bias, arrays.labels, arrays.where, arrays.label_smoothing)
    budget = PROCESSOR if jax.default_backend() == "cpu" else ACCELERATOR
    rows, classes = product.tiles(budget)
    f = _compiled(Tiles(rule, call.working, rows, max(1, rows // 16), classes))
    return lambda **o: f(Operands(**o)).astype(call.dtype), o


def _alike(o: Operands, factors: Factors) -> tuple[Moving, Moving]:
    """Return the factors that move, and their tangents in the same dtypes."""
    moving = {name: v for name, v in factors._asdict().items() if v is not None}
    start = {name: getattr(o, name) for name in moving}
    return start, {name: v.astype(start[name].dtype) for name, v in moving.items()}


@cache
def _joint(rule: Rule) -> Any:
    """Return the function whose derivatives share what they read of the scores with it."""
    f = jax.custom_jvp(partial(rule.joint, axis=(-1,), xp=jnp))

    def f_jvp(primals: tuple[Arrays], tangents: tuple[Arrays]) -> tuple[Any, Any]:
        joint = f(*primals)
        return joint, rule.joint_jvp(joint, *primals, *tangents, axis=(-1,), xp=XP)

    f.defjvp(f_jvp)
    return lambda arrays: f(arrays).y


@cache
def _compiled(tiles: Tiles) -> Any:
    """Return the values as a differentiable function of the operands."""
    f = jax.custom_jvp(tiles.values)

    def f_jvp(primals: tuple[Operands], tangents: tuple[Operands]) -> tuple[Array, Array]:
        (o,), (t,) = primals, tangents
        moving = {name: a for name, a in t._asdict().items() if _moves(a)}
        return value_and_tangent(
            Modes(
                together=partial(_pushforward, tiles),
                first=partial(_unit, tiles),
                tangent=partial(_tangent, tiles),
                transpose=partial(_pullback, tiles, tuple(moving)),
            ),
            o,
            moving,
        )

    f.defjvp(f_jvp, symbolic_zeros=True)
    return jax.jit(f)


def _pushforward(tiles: Tiles, o: Operands, moving: Moving) -> tuple[Array, Array]:
    """Return the values and their tangents."""
    start = {name: getattr(o, name) for name in moving}
    found: tuple[Array, Array] = jax.jvp(
        lambda moved: tiles.values(o._replace(**moved)), (start,), (moving,)
    )
    return found


def _unit(tiles: Tiles, o: Operands) -> tuple[Array, Gradients]:
    """Return the values, and the cotangents for a column of ones."""
    g = tiles.gradients(o, jnp.ones((o.features.shape[0], 1), tiles.working))
    return g.y, g._replace(y=None)


def _tangent(tiles: Tiles, known: tuple[Operands, Gradients], moving: Moving) -> Array:
    """Return the tangents of the values."""
    o, unit = known
    others = {name: v for name, v in moving.items() if name != "features"}
    dy = _pushforward(tiles, o, others)[1] if others else jnp.zeros_like(unit.features[:, :1])
    if "features" not in moving:
        return dy
    return dy + jnp.sum(unit.features * moving["features"], axis=1, keepdims=True)


def _pullback(
    tiles: Tiles, names: tuple[str, ...], known: tuple[Operands, Gradients], u: Array
) -> Moving:
    """Return the transpose: a multiple of what is known, where the rows have one cotangent."""
    o, unit = known
    soft = "labels" in names

    def scaled() -> tuple[Array, Array, None]:
        common = jnp.sum(u[:1])
        return common * unit.weights, common * unit.bias, None

    def again() -> tuple[Array, Array, Array]:
        return tiles.gradients(o, u, soft=soft)[2:]

    found: Any = (None, None, None)
    if soft:
        found = again()
    elif set(names) != {"features"}:
        found = lax.cond(jnp.all(u == u[:1]), scaled, again)
    g = Gradients(None, u * unit.features, *found)
    return {name: getattr(g, name).astype(getattr(o, name).dtype) for name in names}


def _over(body: Callable[[Any, Array, int, Array], Any], carry: Any, step: int) -> Any:
    """
    Return the carry after body(carry, start, step, new), for steps along the first of its axes.

    The steps are equal, and the last overlaps the one before it if they do not divide the whole;
    `new` is a column that tells what was not seen before.
    """
    n = jax.tree.leaves(carry)[0].shape[0]
    count = max(1, -(-n // step))
    step = -(-n // count)

    @rematerialised
    def one(carry: Any, i: Array) -> tuple[Any, None]:
        start = jnp.minimum(i * step, n - step)
        return body(carry, start, step, (start + jnp.arange(step) >= i * step)[:, None]), None

    return lax.scan(one, carry, jnp.arange(count))[0]


def _rows(tree: Any, start: Array, step: int) -> Any:
    """Return some rows of matrices; one with a single row has it everywhere."""
    return jax.tree.map(
        lambda a: a if a.shape[0] == 1 else lax.dynamic_slice_in_dim(a, start, step), tree
    )


def _put(tree: Any, rows: Any, start: Array) -> Any:
    """Return matrices with some of their rows replaced."""

    def put(a: Array, some: Array) -> Array:
        return lax.dynamic_update_slice_in_dim(a, some.astype(a.dtype), start, axis=0)

    return jax.tree.map(put, tree, rows)


def _moves(tangent: Any) -> bool:
    return tangent is not None and not isinstance(tangent, SymbolicZero)
