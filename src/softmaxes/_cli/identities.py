"""What must hold between results: unit sum, adjoint pair, null vectors, order; and the confident row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import fsum

import numpy as np
from numpy.typing import NDArray

import softmaxes as sm
from softmaxes._cli.accuracy import Inputs, inputs, worst_row
from softmaxes._cli.backends import Backend
from softmaxes._cli.budgets import BUDGETS
from softmaxes._cli.exact import Truth, exact
from softmaxes._cli.findings import Measured, Trial
from softmaxes._cli.formats import FORMATS
from softmaxes._cli.regimes import sample

__all__ = ["identities"]

Array = NDArray[np.float64]
Identity = Callable[[Backend, Inputs, Truth], Array]  # the error of each row

# In the other regimes some probabilities are subnormal, and a library may count them as 0.
REGIMES = ("normal", "scale 10", "dominant entry", "near ties", "all equal")


def identities(backend: Backend, dtype: str) -> Iterator[Trial]:
    """Yield the trials of every identity, in epsilon of its scale, and of the confident row, in ulp."""
    for name, budget, measure in (
        ("sum of softmax (in u)", "sum of softmax", partial(_worst, _unit_sum)),
        ("<u, J v> = <J'u, v>", "softmax JVP", partial(_worst, _adjoint)),
        ("J 1 = 0", "softmax JVP", partial(_worst, _null_vector)),
        ("1'J = 0", "softmax JVP", partial(_worst, _null_covector)),
        ("order of neighbours (in ulp)", "order of softmax", _order),
        ("d/dz0 of -log p0 at [20, 0, 0]", "log_softmax gradient at the label", _confident_row),
    ):
        bound = BUDGETS[budget]
        yield Trial("identities", name, backend, dtype, bound, partial(measure, backend, dtype))


def _worst(identity: Identity, backend: Backend, dtype: str) -> Measured:
    regimes, _, _, truth = sample(dtype)
    kept = [row for row, regime in enumerate(regimes) if regime in REGIMES]
    epsilon = 2.0 ** (1 - FORMATS[dtype].bits)
    errors = identity(backend, inputs(backend, dtype), truth)[kept] / epsilon
    return worst_row([regimes[row] for row in kept], errors)


def _unit_sum(backend: Backend, i: Inputs, truth: Truth) -> Array:
    p = backend.numpy(backend.value(sm.softmax, i.x, axis=-1))
    return 2 * np.abs(_sum(p) - 1)  # epsilon is 2 u


def _adjoint(backend: Backend, i: Inputs, truth: Truth) -> Array:
    jv = backend.numpy(backend.jvp(sm.softmax, i.x, i.v, axis=-1))
    jtu = backend.numpy(backend.vjp(sm.softmax, i.x, i.u, axis=-1))
    u, v = backend.numpy(i.u), backend.numpy(i.v)
    p = truth.softmax.nearest
    scale = np.abs(u) * _scale(p, v) + np.abs(v) * _scale(p, u)
    return _ratio(_sum(u * jv) - _sum(v * jtu), _sum(scale))


def _null_vector(backend: Backend, i: Inputs, truth: Truth) -> Array:
    j1 = backend.numpy(backend.jvp(sm.softmax, i.x, i.ones, axis=-1))
    return _sum(np.abs(j1)) / 2  # the scale of J 1 is 2 p


def _null_covector(backend: Backend, i: Inputs, truth: Truth) -> Array:
    jv = backend.numpy(backend.jvp(sm.softmax, i.x, i.v, axis=-1))
    return _ratio(_sum(jv), _sum(truth.product.scale))


def _scale(p: Array, v: Array) -> Array:
    largest = p.max(axis=-1, keepdims=True)
    at_top = np.take_along_axis(v, np.argmax(p, axis=-1, keepdims=True), axis=-1)
    w = np.abs(v - np.where(largest > 0.5, at_top, 0))
    return np.asarray(p * (w + np.sum(p * w, axis=-1, keepdims=True)))


def _sum(rows: Array) -> Array:
    return np.array([fsum(row) for row in rows])  # correctly rounded: not on trial itself


def _ratio(error: Array, scale: Array) -> Array:
    return np.abs(error) / np.maximum(scale, np.finfo(np.float64).tiny)  # 0 / 0 = 0


def _order(backend: Backend, dtype: str) -> Measured:
    """Measure how far the probability of a score lies below that of the next smaller number."""
    x, top = np.random.default_rng(0).uniform([-1, 1], [1, 20], (100_000, 2)).astype(dtype).T
    rows = np.stack([x, np.nextafter(x, top), top], axis=1)
    p = backend.numpy(backend.value(sm.softmax, backend.array(rows, dtype), axis=-1)).astype(dtype)
    fall = (p[:, 0] - p[:, 1]) / np.spacing(p[:, 1])
    worst = int(np.argmax(fall))
    return Measured(float(fall[worst]), f"x = {x[worst]:.9g}, maximum {top[worst]:.9g}")


def _confident_row(backend: Backend, dtype: str) -> Measured:
    z = np.array([[20.0, 0.0, 0.0]])
    loss = backend.array([[-1.0, 0.0, 0.0]], dtype)
    gradient = backend.vjp(sm.log_softmax, backend.array(z, dtype), loss, axis=-1)
    found = backend.numpy(gradient)[:, 0]
    truth = exact(z, z, FORMATS[dtype]).label_gradient
    seen = f"{found[0]:.5g}, exactly {truth.nearest[0]:.5g}"
    return Measured(float(truth.errors(found)[0]), seen)
