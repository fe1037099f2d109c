"""The table of functions: what each one must equal, and within how many ulp."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import truth

import softmaxes as sm
from softmaxes._cli.budgets import budget

__all__ = ["CASES", "FUNCTIONS", "GRADIENTS", "Case", "direction", "every_function"]


class Case(NamedTuple):
    """`function` of a slice x must give `exact(x)`, within the budget in ulp of `scale(x)`."""

    function: Callable[..., Any]
    exact: Callable[..., Any]
    scale: Callable[..., Any] = lambda x: None  # what the ulp is of, where not the exact value

    def budget(self, dtype):
        return budget(self.function.__name__, dtype)


def _logsumexp_scale(x):
    y = np.abs(truth.logsumexp(x).double)
    hi, exponent = np.frexp(np.maximum(y, np.abs(np.max(np.asarray(x, dtype=float)))))
    return truth.Exact(hi, np.zeros_like(hi), exponent)


CASES = {
    "softmax": Case(sm.softmax, truth.softmax),
    "log_softmax": Case(sm.log_softmax, truth.log_softmax),
    "logsumexp": Case(sm.logsumexp, truth.logsumexp, _logsumexp_scale),
}


FUNCTIONS = {name: case.function for name, case in CASES.items()}
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


def direction(n, dtype, seed=1):
    """Return a tangent or cotangent of length n."""
    return np.random.default_rng(seed).standard_normal(n).astype(dtype)


class Gradient(NamedTuple):
    """
    A derivative of one slice, held to the budget of a quantity.

    `found(engine, x)` asks an engine with the methods jvp, vjp and hvp; `exact(x)` is the truth and
    the scale whose ulp the error counts in, None for its own.
    """

    quantity: str
    found: Callable[..., Any]
    exact: Callable[..., Any]


def _top(x):
    return int(np.argmax(np.asarray(x, dtype=float)))


def _at_top(x, value):
    e = np.zeros_like(x)
    e[_top(x)] = value
    return e


def _scaled(derivative):
    return derivative.value, derivative.entry_scale


GRADIENTS = {
    "softmax JVP": Gradient(
        "softmax JVP",
        lambda e, x: e.jvp(sm.softmax, x, direction(x.size, x.dtype)),
        lambda x: _scaled(truth.softmax_jvp(x, direction(x.size, x.dtype))),
    ),
    "softmax VJP": Gradient(
        "softmax VJP",
        lambda e, x: e.vjp(sm.softmax, x, direction(x.size, x.dtype)),
        lambda x: _scaled(truth.softmax_jvp(x, direction(x.size, x.dtype))),
    ),
    "softmax JVP at the top": Gradient(
        "softmax JVP",
        lambda e, x: e.jvp(sm.softmax, x, _at_top(x, 1)),
        lambda x: _scaled(truth.softmax_jvp(x, _at_top(x, 1))),
    ),
    "softmax VJP at the top": Gradient(
        "softmax VJP",
        lambda e, x: e.vjp(sm.softmax, x, _at_top(x, 1)),
        lambda x: _scaled(truth.softmax_jvp(x, _at_top(x, 1))),
    ),
    "log_softmax VJP at the top": Gradient(
        "log_softmax gradient at the label",
        lambda e, x: e.vjp(sm.log_softmax, x, _at_top(x, -1))[_top(x)],
        lambda x: (truth.cross_entropy_gradient_at_label(x, _top(x)), None),
    ),
    "logsumexp gradient": Gradient(
        "logsumexp gradient",
        lambda e, x: e.vjp(sm.logsumexp, x, np.ones((), x.dtype)),
        lambda x: (truth.softmax(x), None),
    ),
    "logsumexp Hessian row": Gradient(
        "logsumexp Hessian row",
        lambda e, x: e.hvp(sm.logsumexp, x, _at_top(x, 1)),
        lambda x: (truth.logsumexp_hessian_row_at_top(x), None),
    ),
}
