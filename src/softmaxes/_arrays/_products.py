"""The arguments of a function of scores that are a matrix product, which is not formed."""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple

from array_api_compat import numpy as np

from softmaxes._arrays._calls import Arrays, Call
from softmaxes._arrays._kinds import (
    Array,
    Scores,
    as_array,
    as_option,
    as_real,
    device,
    is_kind,
    library,
    result_dtype,
    working_dtype,
)
from softmaxes._arrays._labels import checked_smoothing, fitting_labels
from softmaxes._arrays._shapes import fitting, known_lengths

__all__ = ["Factors", "Product", "checked_product"]

SCORES = "features @ weights.T"


class Factors(NamedTuple):
    """What the scores are made of, features @ weights.T + bias: (rows, H), (n, H) and (n,)."""

    features: Array = None
    weights: Array = None
    bias: Array = None


class Product(NamedTuple):
    """
    A call whose scores are the product of factors.

    The arrays of the call are matrices, x missing: (rows, n), with length 1 where they do not vary.
    """

    factors: Factors
    call: Call
    tile_bytes: int | None

    def tiles(self, budget: int) -> tuple[int, int]:
        """
        Return how many rows of scores there may be at a time, and of a gradient by the weights.

        Two arrays of scores and two of what is made of them take the budget.
        """
        budget = (self.tile_bytes or budget) // (self.call.xp.finfo(self.call.working).bits // 8)
        *batch, n, h = self.factors.weights.shape
        budget //= math.prod(batch)
        return max(1, budget // max(1, 4 * n)), max(1, budget // max(1, 16 * h))


def checked_product(
    *, tile_bytes: Any, label_smoothing: Any, where: Any, labels: Any, **factors: Any
) -> Product:
    """Return the arguments in canonical form, or raise TypeError or ValueError."""
    features, xp = as_array("features", factors["features"])
    first = Scores("features", features, xp)
    weights, bias = (as_option(name, factors[name], first) for name in ("weights", "bias"))
    n = _classes(features, weights, bias)
    shape = (*features.shape[:-1], n)

    scores = Scores(SCORES, _without_memory(shape, first), xp)
    where, labels = as_option("where", where, first), as_option("labels", labels, first)
    labels = fitting_labels(labels, where, scores, (-1,))
    soft = labels if is_kind(labels.dtype, "real floating", xp) else None
    operand = result_dtype(xp, features=features, weights=weights)
    dtype = result_dtype(xp, features=features, weights=weights, bias=bias, labels=soft)
    working = working_dtype(dtype, xp)

    options = {
        "where": where,
        "labels": labels if soft is None else as_real(labels, working, first),
        "label_smoothing": as_real(checked_smoothing(label_smoothing), working, first),
    }
    fitted = {name: _matrix(fitting(name, a, scores), shape, xp) for name, a in options.items()}
    rows = xp.reshape(features, (math.prod(shape[:-1]), features.shape[-1]))
    rows, weights = (as_real(a, operand, first) for a in (rows, weights))
    made = Factors(rows, weights, as_real(bias, working, first))
    given = tuple(features.shape)
    call = Call(SCORES, Arrays(None, **fitted), (-1,), working, dtype, given, shape, shape[:-1], xp)
    return Product(made, call, _checked_bytes(tile_bytes))


def _classes(features: Array, weights: Array, bias: Array) -> int:
    """Return the number of classes, one for each row of the weights, if the shapes fit."""
    if features.ndim == 0:
        raise ValueError("features must have shape (..., H), got a number")
    if weights is None or not hasattr(weights, "ndim"):
        raise TypeError(
            f"weights must be an array of shape (n, {features.shape[-1]}), got {weights}"
        )
    if weights.ndim != 2 or weights.shape[1] != features.shape[-1]:
        expected = f"(n, {features.shape[-1]}) for features of shape {tuple(features.shape)}"
        raise ValueError(f"weights must have shape {expected}, got {tuple(weights.shape)}")
    for name, a in (("features", features), ("weights", weights)):
        known_lengths(name, a, tuple(range(a.ndim)))  # rows are counted, to be cut into tiles
    n = int(weights.shape[0])
    if bias is not None and tuple(getattr(bias, "shape", ())) != (n,):
        was = tuple(getattr(bias, "shape", ()))
        raise ValueError(f"bias must have shape ({n},), one for each row of weights, got {was}")
    return n


def _without_memory(shape: tuple[int, ...], like: Scores) -> Array:
    """Return zeros in the shape of the scores, as a view of one; JAX has no views."""
    if library(like.xp) == "jax.numpy":
        return np.broadcast_to(np.zeros(()), shape)
    return like.xp.broadcast_to(like.xp.zeros((), device=device(like.array)), shape)


def _matrix(a: Array, shape: tuple[int, ...], xp: Any) -> Array:
    """Return an array that broadcasts to (..., n) as (rows, n), with length 1 where it is constant."""
    if a is None:
        return None
    batch = a.shape[:-1] if math.prod(a.shape[:-1]) == 1 else shape[:-1]
    a = xp.broadcast_to(a, (*batch, a.shape[-1]))
    return xp.reshape(a, (math.prod(batch), a.shape[-1]))


def _checked_bytes(value: Any) -> int | None:
    if value is None:
        return None
    try:
        size = operator.index(value)
    except TypeError:
        raise TypeError(f"tile_bytes must be an int, got {value!r}") from None
    if size < 1:
        raise ValueError(f"tile_bytes must be at least 1, got {size}")
    return size
