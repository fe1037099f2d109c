"""The rules against the truth, against JAX and against each other, on every library."""

from functools import cache, partial
from types import SimpleNamespace

import numpy as np
import pytest
from cases import GRADIENTS
from conftest import LIBRARIES, _backend
from hypothesis import given
from hypothesis import strategies as st
from regimes import REGIMES, regime, seeded
from ulps import ulp_error

import softmaxes as sm
from softmaxes._cli.budgets import budget

FUNCTIONS = [sm.softmax, sm.log_softmax, sm.logsumexp]
each_function = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)


def rules_on(backend, dtype):
    """The closed-form rules, called on arrays of a library."""

    def call(f, *args, **options):
        arrays = [backend.asarray(a, dtype) for a in args]
        return backend.to_numpy(f(*arrays, **options))

    return SimpleNamespace(
        jvp=lambda f, x, v: call(lambda x, v: sm.jvp(f, x, v)[1], x, v),
        vjp=lambda f, x, u: call(lambda x, u: sm.vjp(f, x)[1](u), x, u),
        hvp=lambda f, x, v: call(lambda x, v: sm.hvp(f, x, v), x, v),
    )


@cache
def jax_engine(jax):
    """What JAX derives from the custom rule, compiled once for each kind of array."""

    @partial(jax.jit, static_argnums=0)
    def jvp(f, x, v):
        return jax.jvp(f, (x,), (v,))[1]

    @partial(jax.jit, static_argnums=0)
    def vjp(f, x, u):
        return jax.vjp(f, x)[1](u)[0]

    @partial(jax.jit, static_argnums=0)
    def hvp(f, x, v):
        return jax.jvp(jax.grad(lambda x: f(x).sum()), (x,), (v,))[1]

    def on_numpy(derivative):
        return lambda f, x, v: np.asarray(derivative(f, jax.numpy.asarray(x), jax.numpy.asarray(v)))

    return SimpleNamespace(jvp=on_numpy(jvp), vjp=on_numpy(vjp), hvp=on_numpy(hvp))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("n", [2, 10, 1000])
@pytest.mark.parametrize("name", REGIMES)
def test_every_derivative_keeps_its_budget(name, n, dtype):
    x = regime(name, n, dtype, seeded(name, n))
    engines = {"rules": (rules_on(_backend("numpy"), dtype), None)}
    if "jax" in LIBRARIES:
        _backend("jax")
        import jax

        engines["jax"] = (jax_engine(jax), n)
    for label, (engine, flush) in engines.items():
        for what, case in GRADIENTS.items():
            exact, scale = case.exact(x)
            error = ulp_error(case.found(engine, x), exact, dtype, scale=scale, flush=flush).max()
            assert error <= budget(case.quantity, dtype), (label, what)


def test_a_confident_row_keeps_its_derivative(backend):
    engine = rules_on(backend, "float32")
    z, e = np.array([20.0, 0, 0]), np.array([1.0, 0, 0])
    p = np.exp(-20.0)
    expected = p / (1 + 2 * p)
    for found in (
        engine.vjp(sm.log_softmax, z, e),
        engine.vjp(sm.softmax, z, e),
        engine.jvp(sm.softmax, z, e),
        engine.hvp(sm.logsumexp, z, e),
    ):
        np.testing.assert_allclose(found[0], 2 * expected, rtol=1e-6)
        np.testing.assert_allclose(found[1:], -expected, rtol=1e-6)


def test_peers_lose_the_derivative_of_a_confident_row(jax):
    z = jax.numpy.asarray([20.0, 0, 0], dtype="float32")
    assert jax.grad(lambda z: -jax.nn.log_softmax(z)[0])(z)[0] == 0
    np.testing.assert_allclose(jax.grad(lambda z: -sm.log_softmax(z)[0])(z)[0], -4.1223e-9, rtol=1e-5)


@each_function
@pytest.mark.parametrize("axis", [-1, 0, (0, 2), None])
def test_the_rules_agree_with_the_engine_of_jax(jax, function, axis):
    rng = np.random.default_rng(3)
    x, v = rng.normal(size=(2, 2, 3, 4))
    peer = {"softmax": jax.nn.softmax, "log_softmax": jax.nn.log_softmax, "logsumexp": jax.nn.logsumexp}
    for g in (lambda x: function(x, axis=axis), lambda x: peer[function.__name__](x, axis=axis)):
        y, dy = jax.jvp(g, (x,), (v,))
        y_ours, dy_ours = sm.jvp(function, x, v, axis=axis)
        np.testing.assert_allclose(y_ours, y, rtol=1e-13)
        np.testing.assert_allclose(dy_ours, dy, rtol=1e-12, atol=1e-14)
        u = rng.normal(size=y.shape)
        np.testing.assert_allclose(
            sm.vjp(function, x, axis=axis)[1](u), jax.vjp(g, x)[1](jax.numpy.asarray(u))[0], rtol=1e-12, atol=1e-14
        )
        np.testing.assert_allclose(sm.jacobian(function, x, axis=axis), jax.jacfwd(g)(x), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(sm.jacobian(function, x, axis=axis), jax.jacrev(g)(x), rtol=1e-12, atol=1e-14)
        h = jax.hessian(lambda x: g(x).sum())(x)
        np.testing.assert_allclose(
            sm.hvp(function, x, v, axis=axis), np.tensordot(h, v, 3), rtol=1e-12, atol=1e-13
        )


@each_function
def test_derivatives_by_temperature_and_weights_agree_with_the_plain_formula(jax, function):
    x = jax.numpy.asarray([[0.3, -1.0, 2.0], [1.0, 1.0, -3.0]])
    t = jax.numpy.asarray([[0.7], [2.0]])
    plain, option = {
        "softmax": (lambda x, t: jax.nn.softmax(x / t), "temperature"),
        "log_softmax": (lambda x, t: jax.nn.log_softmax(x / t), "temperature"),
        "logsumexp": (lambda x, t: jax.nn.logsumexp(x, axis=-1, b=t * (x > -2)), "weights"),
    }[function.__name__]
    if option == "weights":
        ours = lambda x, t: function(x, axis=-1, weights=t * (x > -2))  # noqa: E731  beside its plain twin
    else:
        ours = lambda x, t: function(x, temperature=t)  # noqa: E731  beside its plain twin
    for derivative in (jax.jacfwd, jax.jacrev, lambda f, argnums: jax.hessian(lambda x, t: (f(x, t) ** 2).sum(), argnums)):
        found, expected = derivative(ours, argnums=(0, 1))(x, t), derivative(plain, argnums=(0, 1))(x, t)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


@each_function
@pytest.mark.parametrize("options", [{}, {"where": True}, {"temperature": 2.0}], ids=str)
@given(
    x=st.lists(st.floats(-1e3, 1e3) | st.sampled_from([-np.inf, 1e300, -1e300]), min_size=1, max_size=6),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_pair_is_adjoint(function, options, x, seed):
    if function is sm.logsumexp and "temperature" in options:
        options = {}
    rng = np.random.default_rng(seed)
    x, v = np.array(x), rng.normal(size=len(x))
    if "where" in options:
        options = {"where": rng.random(len(x)) < 0.7}
    y, dy = sm.jvp(function, x, v, **options)
    u = rng.normal(size=np.shape(y))
    dx = sm.vjp(function, x, **options)[1](u)
    scale = np.sum(np.abs(u)) * np.max(np.abs(v))
    assert abs(np.sum(u * dy) - np.sum(dx * v)) <= 32 * np.finfo(float).eps * scale


def test_rows_of_the_jacobian_of_softmax_sum_to_zero(backend):
    x = backend.asarray([0.0, -40.0, 1.0, 30.0])
    j = backend.to_numpy(sm.jacobian(sm.softmax, x))
    assert (np.abs(j.sum(axis=0)) <= 4 * np.finfo(float).eps * np.abs(j).sum(axis=0)).all()
    assert (np.abs(j.sum(axis=1)) <= 4 * np.finfo(float).eps * np.abs(j).sum(axis=1)).all()


KEPT = {
    "softmax": {"float32": ["float32"], "bfloat16": ["bfloat16"]},
    "log_softmax": {"float32": ["float32"], "bfloat16": ["bfloat16"]},
    "logsumexp": {"float32": ["float32"], "bfloat16": ["bfloat16"]},
}


@each_function
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_array_of_the_size_of_the_input_is_kept_for_the_backward_pass(jax, function, dtype):
    x = jax.numpy.linspace(0, 1, 60, dtype=dtype).reshape(6, 10)
    y, pullback = jax.vjp(lambda x: function(x, axis=-1), x)
    kept = [a for a in jax.tree.leaves(pullback) if a.size > 1]
    assert [(a.shape, str(a.dtype)) for a in kept] == [(x.shape, dtype)]
    owner = y if function is sm.softmax and dtype == "float32" else x
    assert (kept[0] == owner).all()


@each_function
def test_a_mask_is_kept_as_it_came_and_nothing_else(jax, function):
    x = jax.numpy.linspace(0, 1, 60).reshape(6, 10)
    mask = x > 0.2
    _, pullback = jax.vjp(lambda x: function(x, axis=-1, where=mask), x)
    kept = sorted(str(a.dtype) for a in jax.tree.leaves(pullback) if a.size > 1)
    assert kept in (["float64"], ["bool", "float64"])


@each_function
def test_transformations_of_jax_compose(jax, function):
    x = jax.numpy.asarray(np.random.default_rng(5).normal(size=(3, 4)))
    f = lambda x: function(x, axis=-1).sum() ** 2  # noqa: E731  a one-line formula
    expected = np.stack([jax.grad(f)(row) for row in x])
    for found in (
        jax.jit(jax.vmap(jax.grad(f)))(x),
        jax.vmap(jax.grad(jax.checkpoint(f)))(x),
        np.stack([jax.linear_transpose(jax.linearize(f, row)[1], row)(1.0)[0] for row in x]),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-14)
    jax.test_util = __import__("jax.test_util").test_util
    jax.test_util.check_grads(f, (x[0],), order=3, atol=1e-4, rtol=1e-4)
