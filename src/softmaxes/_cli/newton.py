"""Newton's method with conjugate gradients, for any array type."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

__all__ = ["Minimum", "minimise"]

Array = Any


class Minimum(NamedTuple):
    """Where the search ended, after how many Newton steps, and how large the gradient is there."""

    weights: Array
    steps: int
    gradient_norm: float


def minimise(
    gradient: Callable[[Array], Array], curvature: Callable[[Array, Array], Array], start: Array
) -> Minimum:
    """Find the minimiser of a strictly convex function from its gradient and Hessian products."""
    w, g, steps = start, gradient(start), 0
    goal = 1e-13 * _norm(g)
    while _norm(g) > goal and steps < 50:
        # Solving to a relative residual of |g| keeps the convergence quadratic.
        direction = _conjugate_gradients(partial(curvature, w), -g, min(0.1, _norm(g)))
        w, g = _descend(gradient, w, g, direction)
        steps += 1
    return Minimum(w, steps, _norm(g))


def _descend(
    gradient: Callable[[Array], Array], w: Array, g: Array, direction: Array
) -> tuple[Array, Array]:
    # |gradient| falls along a Newton direction, and it has no other minimum: halve until it fell.
    length = 1.0
    while length > 1e-6 and _norm(gradient(w + length * direction)) >= _norm(g):
        length /= 2
    new = w + length * direction
    return new, gradient(new)


def _conjugate_gradients(product: Callable[[Array], Array], b: Array, tolerance: float) -> Array:
    x, r, p = 0.0 * b, b, b
    while _norm(r) > tolerance * _norm(b):
        q = product(p)
        step = (r * r).sum() / (p * q).sum()
        x, previous, r = x + step * p, r, r - step * q
        p = r + (r * r).sum() / (previous * previous).sum() * p
    return x


def _norm(x: Array) -> float:
    return math.sqrt((x * x).sum())
