"""Errors of the functions and of their derivatives, in ulp, against the exact values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import softmaxes as sm
from softmaxes._cli.backends import Backend
from softmaxes._cli.budgets import HALVES, budget
from softmaxes._cli.exact import Exact, Truth
from softmaxes._cli.findings import Measured, Trial
from softmaxes._cli.formats import FORMATS
from softmaxes._cli.regimes import N, sample

__all__ = ["accuracy", "inputs", "worst_row"]

Array = NDArray[np.float64]


class Inputs(NamedTuple):
    """The sample as arrays of a backend."""

    x: Any  # scores
    v: Any  # tangents
    u: Any  # cotangents
    top: Any  # the indicator of each row's top entry
    loss: Any  # its negative: the cotangent of -log p at the top entry
    ones: Any
    one: Any  # one for each row


class Quantity(NamedTuple):
    """How a backend computes a quantity, and the truth about it."""

    compute: Callable[[Backend, Inputs], Any]
    truth: Callable[[Truth], Exact]
    logarithms: bool = False  # multiply the probabilities, and with them what is flushed


QUANTITIES = {
    "softmax": Quantity(
        lambda on, i: on.value(sm.softmax, i.x, axis=-1), lambda truth: truth.softmax
    ),
    "log_softmax": Quantity(
        lambda on, i: on.value(sm.log_softmax, i.x, axis=-1), lambda truth: truth.log_softmax
    ),
    "logsumexp": Quantity(
        lambda on, i: on.value(sm.logsumexp, i.x, axis=-1), lambda truth: truth.logsumexp
    ),
    "logsumexp gradient": Quantity(
        lambda on, i: on.vjp(sm.logsumexp, i.x, i.one, axis=-1), lambda truth: truth.softmax
    ),
    "logsumexp Hessian row": Quantity(
        lambda on, i: on.hvp(sm.logsumexp, i.x, i.top, axis=-1), lambda truth: truth.hessian_row
    ),
    "log_softmax gradient at the label": Quantity(
        lambda on, i: on.xp.sum(i.top * on.vjp(sm.log_softmax, i.x, i.loss, axis=-1), axis=-1),
        lambda truth: truth.label_gradient,
    ),
    "softmax JVP": Quantity(
        lambda on, i: on.jvp(sm.softmax, i.x, i.v, axis=-1), lambda truth: truth.product
    ),
    "softmax VJP": Quantity(
        lambda on, i: on.vjp(sm.softmax, i.x, i.v, axis=-1), lambda truth: truth.product
    ),
    "cross_entropy": Quantity(
        lambda on, i: on.value(sm.cross_entropy, i.x, i.top, axis=-1), lambda truth: truth.loss
    ),
    "cross_entropy gradient": Quantity(
        lambda on, i: on.vjp(sm.cross_entropy, i.x, i.one, i.top, axis=-1),
        lambda truth: truth.loss_gradient,
    ),
    "kl_divergence": Quantity(
        lambda on, i: on.value(sm.kl_divergence, i.x, i.v, axis=-1),
        lambda truth: truth.divergence,
        logarithms=True,
    ),
    "kl_divergence gradient": Quantity(
        lambda on, i: on.vjp(sm.kl_divergence, i.x, i.one, i.v, axis=-1),
        lambda truth: truth.divergence_gradient,
        logarithms=True,
    ),
    "entropy": Quantity(
        lambda on, i: on.value(sm.entropy, i.x, axis=-1),
        lambda truth: truth.entropy,
        logarithms=True,
    ),
    "entropy gradient": Quantity(
        lambda on, i: on.vjp(sm.entropy, i.x, i.one, axis=-1),
        lambda truth: truth.entropy_gradient,
        logarithms=True,
    ),
}


def accuracy(backend: Backend, dtype: str) -> Iterator[Trial]:
    """Yield the trials of every quantity against the truth."""
    for name, quantity in QUANTITIES.items():
        bound = budget(name, dtype)
        measure = partial(_worst, backend, dtype, quantity, bound)
        yield Trial("accuracy", name, backend, dtype, bound, measure)


def _worst(backend: Backend, dtype: str, quantity: Quantity, bound: float) -> Measured:
    y = backend.numpy(quantity.compute(backend, inputs(backend, dtype)))
    errors = _errors(y, quantity, backend, dtype, bound)
    return worst_row(sample(dtype).regimes, errors)


def _errors(y: Array, quantity: Quantity, backend: Backend, dtype: str, bound: float) -> Array:
    truth = quantity.truth(sample(dtype).truth)
    errors = truth.errors(y)
    if not (backend.flushes_subnormals or quantity.logarithms):
        return errors
    # A probability misses half the smallest number, or tiny where subnormals count as 0, as may all
    # of a row; a logarithm multiplies that.
    form = FORMATS["float32" if dtype in HALVES else dtype]
    factor = -math.log(form.tiny) if quantity.logarithms else 1.0
    missing = N * form.tiny if backend.flushes_subnormals else form.tiny * 2.0 ** (1 - form.bits)
    lost = np.abs(y - truth.nearest) / (missing * factor)
    small = truth.scale < 16 * N * form.tiny * factor
    return np.where(small, np.minimum(errors, lost * bound), errors)


def inputs(backend: Backend, dtype: str) -> Inputs:
    """Hand the sample of a dtype to a backend."""
    _, x, v, _ = sample(dtype)
    top = np.eye(N)[np.argmax(x, axis=-1)]
    arrays = (x, v, v[:, ::-1], top, -top, np.ones(x.shape), np.ones(len(x)))
    return Inputs(*(backend.array(a, dtype) for a in arrays))


def worst_row(regimes: list[str], errors: Array) -> Measured:
    """Find the largest error, and the regime of its row."""
    errors = np.nan_to_num(errors, nan=np.inf).reshape(len(regimes), -1).max(axis=-1)
    worst = int(np.argmax(errors))
    return Measured(float(errors[worst]), regimes[worst])
