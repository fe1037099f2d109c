"""The table of functions: what each one must equal, and within how many ulp."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import truth

import softmaxes as sm
from softmaxes._cli.budgets import budget

__all__ = [
    "CASES",
    "FUNCTIONS",
    "GRADIENTS",
    "LOSSES",
    "Case",
    "direction",
    "every_function",
    "flushed",
]


class Case(NamedTuple):
    """`function` of a slice x, and of `rest(x)`, must give `exact(x)`, within the budget in ulp of `scale(x)`."""

    function: Callable[..., Any]
    exact: Callable[..., Any]
    scale: Callable[..., Any] = lambda x: None  # what the ulp is of, where not the exact value
    rest: Callable[..., Any] = lambda x: ()  # further arguments
    logarithms: bool = False  # multiply the probabilities, and what these lose below tiny

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


def flushed(n, logarithms=False):
    """The number of smallest normal numbers that may be lost: n on an engine without subnormals, 0 on others."""
    if logarithms:  # that of the smallest number is 745 at most, and multiplies what is lost
        return 745 * (n or 1)
    return n or None


def direction(n, dtype, seed=1):
    """Return a tangent or cotangent of length n."""
    return np.random.default_rng(seed).standard_normal(n).astype(dtype)


def _top(x):
    return int(np.argmax(np.asarray(x, dtype=float)))


def soft(x):
    """Labels that do not sum to 1, and are 0 where the distance of two scores may overflow."""
    q = np.random.default_rng(2).uniform(size=x.size).astype(x.dtype)
    return np.where(np.abs(x.astype(float)) < 1e30, q, np.zeros_like(q))


def close(x):
    """The scores, every second of them moved to the next number."""
    y = x.copy()
    y[::2] = np.nextafter(x[::2], np.zeros_like(x[::2]))
    return y


def reverse(x):
    return x[::-1].copy()


LOSSES = {
    "cross_entropy of the top": Case(
        sm.cross_entropy, lambda x: truth.cross_entropy(x, _top(x)), rest=lambda x: (_top(x),)
    ),
    "cross_entropy of the first": Case(
        sm.cross_entropy, lambda x: truth.cross_entropy(x, 0), rest=lambda x: (0,)
    ),
    "cross_entropy of soft labels": Case(
        sm.cross_entropy, lambda x: truth.soft_cross_entropy(x, soft(x)), rest=lambda x: (soft(x),)
    ),
    "kl_divergence": Case(
        sm.kl_divergence,
        lambda x: truth.kl_divergence(x, reverse(x)),
        rest=lambda x: (reverse(x),),
        logarithms=True,
    ),
    "kl_divergence of close scores": Case(
        sm.kl_divergence,
        lambda x: truth.kl_divergence(x, close(x)),
        rest=lambda x: (close(x),),
        logarithms=True,
    ),
    "entropy": Case(sm.entropy, truth.entropy, logarithms=True),
}


class Gradient(NamedTuple):
    """
    A derivative of one slice, held to the budget of a quantity.

    `found(engine, x)` asks an engine with the methods jvp, vjp and hvp; `exact(x)` is the truth and
    the scale whose ulp the error counts in, None for its own.
    """

    quantity: str
    found: Callable[..., Any]
    exact: Callable[..., Any]
    logarithms: bool = False


def _at_top(x, value):
    e = np.zeros_like(x)
    e[_top(x)] = value
    return e


def _scaled(derivative):
    return derivative.value, derivative.entry_scale


def _gradient(function, rest=lambda x: ()):
    return lambda e, x: e.vjp(function, x, np.ones((), x.dtype), *rest(x))


def _divergence_gradient(partner):
    return Gradient(
        "kl_divergence gradient",
        _gradient(sm.kl_divergence, lambda x: (partner(x),)),
        lambda x: _scaled(truth.kl_divergence_gradients(x, partner(x))[0]),
        logarithms=True,
    )


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

LOSS_GRADIENTS = {
    "cross_entropy gradient": Gradient(
        "cross_entropy gradient",
        _gradient(sm.cross_entropy, lambda x: (_top(x),)),
        lambda x: _scaled(truth.soft_cross_entropy_gradient(x, _at_top(x, 1))),
    ),
    "cross_entropy gradient at the label": Gradient(
        "cross_entropy gradient",
        lambda e, x: e.vjp(sm.cross_entropy, x, np.ones((), x.dtype), 0)[0],
        lambda x: (truth.cross_entropy_gradient_at_label(x, 0), None),
    ),
    "cross_entropy gradient of soft labels": Gradient(
        "cross_entropy gradient",
        _gradient(sm.cross_entropy, lambda x: (soft(x),)),
        lambda x: _scaled(truth.soft_cross_entropy_gradient(x, soft(x))),
    ),
    "kl_divergence gradient": _divergence_gradient(reverse),
    "kl_divergence gradient of close scores": _divergence_gradient(close),
    "entropy gradient": Gradient(
        "entropy gradient",
        _gradient(sm.entropy),
        lambda x: _scaled(truth.entropy_gradient(x)),
        logarithms=True,
    ),
}
