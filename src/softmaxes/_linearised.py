"""
A function at a point: its value, and its rule applied to tangents and cotangents.

What a rule is written in is computed once, with the value. A loss of scores that are a product keeps
its factors alone, and computes the rest anew for each derivative.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from itertools import starmap
from typing import Any, NamedTuple, TypeAlias

from softmaxes import _functions, _rules
from softmaxes._arrays import (
    Array,
    Arrays,
    Call,
    Factors,
    Product,
    broadcast,
    checked,
    checked_like,
    checked_product,
    device,
    known_lengths,
    mapped,
    shape_of,
    with_axes,
)
from softmaxes._backends import apply, evaluate, of_products
from softmaxes.losses import _linear, _scores

__all__ = ["linearised"]

Pullback: TypeAlias = Callable[[Array], Any]


def linearised(
    function: Any, x: Array, rest: tuple[Array, ...], argnames: Any, options: dict[str, Any]
) -> OfScores | OfProduct:
    """Return a public function at a point, or raise TypeError or ValueError."""
    rule = _rule_of(function)
    arguments = inspect.signature(function).bind(x, *rest, **options)
    arguments.apply_defaults()
    if function is _linear.linear_cross_entropy:
        return _of_factors(rule, checked_product(**arguments.arguments), argnames)
    first = next(iter(arguments.arguments))
    if argnames not in (None, first):
        was = f"{function.__name__} is differentiated by {first}"
        raise ValueError(f"argnames must be {first!r}, as {was} alone, got {argnames!r}")
    return _scored(rule, checked(**arguments.arguments))


def _rule_of(function: Any) -> _rules.Rule:
    known = {name: getattr(of, name) for of in (_functions, _scores) for name in of.__all__}
    for name, public in known.items():
        if function is public:
            rule: _rules.Rule = getattr(_rules, name)
            return rule
    if function is _linear.linear_cross_entropy:
        return _rules.cross_entropy
    names = ", ".join((*known, *_linear.__all__))
    raise TypeError(f"function must be one of {names}, got {function!r}")


# A function of scores -----------------------------------------------------------------------------


class OfScores(NamedTuple):
    """A function of scores at a point: its rule, its value y, and p, what the rule is written in."""

    rule: _rules.Rule
    call: Call
    y: Array
    p: Any
    ndim: int  # of y with the axes

    def jvp(self, v: Array) -> Array:
        v = self.in_slices(checked_like("v", v, self.call, self.call.given))
        dy = evaluate(self.rule.jvp, self.call, self.p, None, self.call.arrays, Arrays(v))
        return self.call.shaped(dy, shape_of(self.y))

    def pullback(self) -> Pullback:
        call = self.call
        needed = call.arrays._replace(x=None, labels=None, q_logits=None)
        p, arrays = _own((self.p, needed), call)

        def pullback(u: Array) -> Array:
            u = checked_like("u", u, call, shape_of(self.y))
            u = with_axes(u, call.axis, self.ndim)
            return self.as_x(evaluate(self.rule.vjp, call, p, arrays, u))

        return pullback

    def jacobian(self) -> Array:
        call, given, where = self.call, self.call.given, device(self.call.arrays.x)
        known_lengths(call.name, call.arrays.x, tuple(range(-len(given), 0)))
        if 0 in given:  # nothing to form columns of, which Dask would refuse to reshape
            return call.xp.zeros(self.y.shape + given, dtype=call.dtype, device=where)
        size = math.prod(given)
        basis = call.xp.eye(size, dtype=call.working, device=where)
        v = self.in_slices(call.xp.reshape(basis, (size, *given)))
        columns = evaluate(self.rule.jvp, call, self.p, None, call.arrays, Arrays(v))
        columns = call.xp.reshape(columns, (size, *self.y.shape))
        # No moveaxis, which PyTorch does not batch.
        columns = call.xp.permute_dims(columns, (*range(1, columns.ndim), 0))
        return call.shaped(columns, (*self.y.shape, *given))

    def hvp(self, v: Array) -> Array:
        v = self.in_slices(checked_like("v", v, self.call, self.call.given))
        return self.as_x(evaluate(self.rule.hvp, self.call, self.p, self.call.arrays, v))

    @property
    def padded(self) -> tuple[int, ...]:
        """The shape of the given x, with as many axes as the checked one."""
        return (1,) * (len(self.call.shape) - len(self.call.given)) + self.call.given

    def in_slices(self, v: Array) -> Array:
        """Return tangents of x, with any axes in front, in the form of the checked x."""
        given, shape = self.call.given, self.call.shape
        front = v.ndim - len(given)
        v = v[(slice(None),) * front + (None,) * (len(shape) - len(given)) + (...,)]
        v = broadcast(v, shape_of(v)[:front] + shape, self.call.xp)
        return v[..., None] if self.call.arrays.x.ndim > len(shape) else v

    def as_x(self, g: Array) -> Array:
        """Return a cotangent of the checked x in the form of the given one."""
        g = self.call.shaped(g, self.call.shape)
        pairs = enumerate(zip(self.padded, self.call.shape, strict=True))
        axes = tuple(a for a, (given, n) in pairs if given == 1 and n != 1)
        return self.call.shaped(self.call.xp.sum(g, axis=axes) if axes else g, self.call.given)


def _scored(rule: _rules.Rule, call: Call) -> OfScores:
    y = apply(rule, call)

    def value(of: _rules.Rule) -> Array:
        if of is rule and call.working == call.dtype:
            return y
        return apply(of, call._replace(dtype=call.working))

    p, _ = _rules.ingredients(rule, value, Arrays(None))
    shape = call.reduced if rule.reduces else call.shape
    return OfScores(rule, call, call.shaped(y, shape), p, y.ndim)


# A function of the factors of scores --------------------------------------------------------------


class OfProduct(NamedTuple):
    """
    A function of scores that are a product, at a point, and the factors to differentiate it by.

    Tangents and cotangents are arrays where `argnames` is a name, tuples of them where it is one.
    """

    rule: _rules.Rule
    product: Product
    y: Array
    argnames: str | tuple[str, ...]

    def jvp(self, v: Any) -> Array:
        call = self.product.call
        dy = self.products.pushforward(self.rule, self.product, self.checked_factors(v))
        return call.shaped(call.xp.astype(dy, call.dtype, copy=False), call.reduced)

    def pullback(self) -> Pullback:
        call = self.product.call
        factors, arrays = _own((self.product.factors, call.arrays), call)
        product = self.product._replace(factors=factors, call=call._replace(arrays=arrays))

        def pullback(u: Array) -> Any:
            u = checked_like("u", u, self.call_of_features, call.reduced)
            u = call.xp.reshape(u, (math.prod(call.reduced), 1))
            return self.as_given(self.products.pullback(self.rule, product, u, self.names))

        return pullback

    def jacobian(self) -> Array:
        # Each loss depends on its own features alone.
        call, size = self.product.call, math.prod(self.product.call.reduced)
        u = call.xp.ones(
            (size, 1), dtype=call.working, device=device(self.product.factors.features)
        )
        g = self.products.pullback(self.rule, self.product, u, self.names).features
        own = call.xp.eye(size, dtype=call.working, device=device(g))[:, :, None] != 0.0
        j = call.xp.astype(call.xp.where(own, g, 0.0), call.dtype, copy=False)
        return call.shaped(j, (*call.reduced, *call.given))

    def hvp(self, v: Any) -> Any:
        return self.as_given(self.products.hvp(self.rule, self.product, self.checked_factors(v)))

    @property
    def products(self) -> Any:
        return of_products(self.product.call.xp)

    @property
    def names(self) -> tuple[str, ...]:
        return self.argnames if isinstance(self.argnames, tuple) else (self.argnames,)

    @property
    def call_of_features(self) -> Call:
        arrays = Arrays(self.product.factors.features)
        return self.product.call._replace(name="features", arrays=arrays)

    def checked_factors(self, v: Any) -> Factors:
        """Return the tangents v as those of the factors."""
        v = v if isinstance(self.argnames, tuple) else (v,)
        if not isinstance(v, tuple) or len(v) != len(self.names):
            expected = f"a tuple of arrays, one for each of {', '.join(self.names)}"
            raise TypeError(f"v must be {expected}, got {type(v).__name__}")
        return Factors(**dict(starmap(self.checked_factor, zip(self.names, v, strict=True))))

    def checked_factor(self, name: str, v: Any) -> tuple[str, Array]:
        """Return the name and the tangent of one of the factors, in its form."""
        factor = getattr(self.product.factors, name)
        shape = self.product.call.given if name == "features" else tuple(factor.shape)
        v = checked_like(f"v of {name}", v, self.call_of_features, shape)
        return name, self.product.call.xp.reshape(v, factor.shape)

    def as_given(self, found: Factors) -> Any:
        """Return cotangents in the shapes and dtypes of the factors."""
        arrays = tuple(self.as_factor(name, getattr(found, name)) for name in self.names)
        return arrays if isinstance(self.argnames, tuple) else arrays[0]

    def as_factor(self, name: str, a: Array) -> Array:
        call, factor = self.product.call, getattr(self.product.factors, name)
        a = call.xp.astype(a, call.dtype if name == "bias" else factor.dtype, copy=False)
        return call.shaped(a, call.given if name == "features" else tuple(factor.shape))


def _of_factors(rule: _rules.Rule, product: Product, argnames: Any) -> OfProduct:
    argnames = "features" if argnames is None else argnames
    known = [name for name, a in product.factors._asdict().items() if a is not None]
    names = argnames if isinstance(argnames, tuple) else (argnames,)
    if not names or any(name not in known or names.count(name) > 1 for name in names):
        expected = f"one of {', '.join(known)} or a tuple of several"
        raise ValueError(f"argnames must be {expected}, got {argnames!r}")
    y = product.call.shaped(
        of_products(product.call.xp).values(rule, product), product.call.reduced
    )
    return OfProduct(rule, product, y, argnames)


def _own(tree: Any, call: Call) -> Any:
    """Return copies, since the caller may write into the arrays before pulling back."""
    return mapped(lambda a: call.xp.astype(a, a.dtype, copy=True), tree)
