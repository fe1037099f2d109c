"""The losses: every label at every special value, with derivatives, and beside Optax, PyTorch and SciPy."""

from functools import partial

import mpmath
import numpy as np
import pytest
import scipy.special
import truth
from cases import LOSSES
from contract import CONTRACT, INF, NAN
from hypothesis import given
from hypothesis import strategies as st
from test_contract import DTYPES, arguments, assert_is, known
from ulps import ulp_error

import softmaxes as sm
from softmaxes._cli.budgets import BUDGETS, budget

FUNCTIONS = (sm.cross_entropy, sm.kl_divergence, sm.entropy)
ROWS = {name: row for name, row in CONTRACT.items() if row.options.keys() <= {"where"}}
every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
every_loss = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)


@pytest.fixture
def dtype(backend):
    return DTYPES.get(backend.name, "float64")


def derivatives(function, x, v, *rest, xp, jax=None, **options):
    """Return the values, the gradient of their sum, and the derivatives along v, by every road."""
    y, pullback = sm.vjp(function, x, *rest, **options)
    z, dy = sm.jvp(function, x, v, *rest, **options)
    roads = {
        "value": function(x, *rest, **options),
        "value by sm.vjp": y,
        "value by sm.jvp": z,
        "jvp": dy,
        "vjp": pullback(xp.ones_like(y)),
        "hvp": sm.hvp(function, x, v, *rest, **options),
    }
    if jax:
        gradient = jax.grad(lambda x: function(x, *rest, **options).sum())
        z, dy = jax.jvp(lambda x: function(x, *rest, **options), (x,), (v,))
        roads |= {
            "value by jax.jvp": z,
            "jvp by jax.jvp": dy,
            "vjp by jax.grad": gradient(x),
            "hvp by forward over reverse": jax.jvp(gradient, (x,), (v,))[1],
            "hvp by reverse over reverse": jax.vjp(gradient, x)[1](v)[0],
        }
    return roads


def check(backend, dtype, function, row, rest, expected):
    """Assert the values of equal slices, their gradients and their Hessians, the gradients taken as one matrix."""
    value, gradients, hessian = (np.array(e, dtype=object) for e in expected)
    n = gradients.shape[-1]
    x, options = arguments(backend, row, dtype)
    x = backend.asarray(np.broadcast_to(backend.to_numpy(x), gradients.shape), dtype)
    v = np.arange(3.0, 3.0 + n)
    directions = backend.asarray(np.broadcast_to(v, gradients.shape), dtype)
    arrays = x, directions, *(x if r is None else r for r in rest)
    found = backend.run(
        derivatives, function, *arrays, xp=backend.xp, jax=backend.autodiff, **options
    )
    due = {"value": value, "vjp": gradients, "jvp": times(gradients, v)}
    due["hvp"] = np.broadcast_to(times(hessian, v), gradients.shape)
    for road, actual in found.items():
        assert_is(due[road.partition(" ")[0]], actual, backend, road)


def times(matrix, v):
    """The product with a vector, None where the matrix is silent in a row."""
    silent = np.equal(matrix, None).any(axis=-1)
    return np.where(silent, None, known(matrix) @ v)


# Special values -------------------------------------------------------------------------------------------------------


@every_row
@pytest.mark.parametrize("kind", ["integer", "soft"])
def test_cross_entropy_of_every_label(backend, dtype, row, kind):
    n = len(row.x)
    labels = backend.asarray(
        *((np.arange(n), "int64") if kind == "integer" else (np.eye(n), dtype))
    )
    value = -np.array(row.log_softmax.value) if np.any(row.softmax.value) else np.zeros(n)
    if (
        np.isnan(value).any() and not np.isinf(row.x).any()
    ):  # NaN beside a label that is not in the support
        value = np.full(n, NAN)
    gradients = np.reshape([of_label(row, label) for label in range(n)], (n, n))
    expected = value, gradients, row.softmax.jacobian
    check(backend, dtype, sm.cross_entropy, row, [labels], expected)


def of_label(row, label):
    """The gradient of -log p of a label: minus its row of the Jacobian; p, where it is masked."""
    where = row.options.get("where", np.full(len(row.x), True))
    gradient = np.array(row.log_softmax.jacobian, object)[label]
    p = np.array(row.softmax.value, float)
    if where[label]:
        return np.array([None if g is None else -g for g in gradient])
    if np.isnan(p).any():
        return np.full(len(p), None)
    return np.where(where, p, 0.0)


@every_row
def test_entropy(backend, dtype, row):
    p, log_p = (np.array(e.value, float) for e in (row.softmax, row.log_softmax))
    j, r = known(row.softmax.jacobian), np.where(p == 0, 0, log_p)
    gradient = -j @ r
    hessian = np.diag(gradient) - np.outer(gradient, p) - np.outer(p, gradient) - j
    expected = [-np.sum(p * r)], gradient[None], hessian
    check(backend, dtype, sm.entropy, row, [], unknown_where_nan(*expected))


@every_row
def test_divergence_of_a_row_from_itself(backend, dtype, row):
    zeros = 0 * np.array(row.softmax.value, float)
    expected = [zeros.sum()], zeros[None], known(row.softmax.jacobian)
    check(backend, dtype, sm.kl_divergence, row, [None], unknown_where_nan(*expected))


def unknown_where_nan(value, gradient, hessian):
    """The expectation, silent on the derivatives of a NaN."""
    if not np.isnan(value).any():
        return value, gradient, hessian
    return value, np.full(gradient.shape, None), np.full(hessian.shape, None)


# p, q: the divergence, its gradient by the scores of p and by those of q.
LOG2, LOG3 = np.log(2), np.log(3)
DIVERGENCES = {
    "p lacks a class of q": ([0, -INF], [0, 0], LOG2, [0, 0], [-1 / 2, 1 / 2]),
    "q lacks a class of p": ([0, 0], [0, -INF], INF, [-LOG2 / 4, LOG2 / 4], [1 / 2, -1 / 2]),
    "both lack one": ([0, 0, -INF], [0, 0, -INF], 0, [0, 0, 0], [0, 0, 0]),
    "disjoint": ([0, -INF], [-INF, 0], INF, [0, 0], [-1, 1]),
    "p is nothing": ([-INF, -INF], [0, 0], 0, [0, 0], [0, 0]),
    "q is nothing": ([0, 0], [-INF, -INF], INF, [0, 0], [-1 / 2, -1 / 2]),
    "both are nothing": ([-INF, -INF], [-INF, -INF], 0, [0, 0], [0, 0]),
    "p has one +inf": ([INF, 0], [0, 0], LOG2, [0, 0], [-1 / 2, 1 / 2]),
    "q has one +inf": ([0, 0], [INF, 0], INF, [-LOG2 / 4, LOG2 / 4], [1 / 2, -1 / 2]),
    "both have one +inf": ([INF, 0], [INF, 0], 0, [0, 0], [0, 0]),
    "far apart": ([0, -1000], [-1000, 0], 1000, [0, 0], [-1, 1]),
    "NaN in p": ([NAN, 0], [0, 0], NAN, [NAN, NAN], [NAN, NAN]),
    "NaN in q": ([0, 0], [NAN, 0], NAN, [NAN, NAN], [NAN, NAN]),
    "two +inf in p": ([INF, INF], [0, 0], NAN, [NAN, NAN], [NAN, NAN]),
}


@pytest.mark.parametrize(("p", "q", "value", "by_p", "by_q"), DIVERGENCES.values(), ids=DIVERGENCES)
def test_divergence_of_two_rows(backend, dtype, p, q, value, by_p, by_q):
    p, q = backend.asarray(p, dtype), backend.asarray(q, dtype)
    assert_is(value, backend.run(sm.kl_divergence, p, q), backend)
    assert_is(by_p, backend.run(gradient, sm.kl_divergence, p, q, xp=backend.xp), backend, "by p")
    if backend.autodiff:
        grad = backend.autodiff.grad
        assert_is(by_p, backend.run(grad(sm.kl_divergence), p, q), backend, "by p, JAX")
        assert_is(by_q, backend.run(grad(sm.kl_divergence, 1), p, q), backend, "by q")


def gradient(function, x, *rest, xp):
    y, pullback = sm.vjp(function, x, *rest)
    return pullback(xp.ones_like(y))
