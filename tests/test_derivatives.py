"""The rules against the truth, against JAX and against each other, on every library."""

from functools import cache, partial
from types import SimpleNamespace

import numpy as np
import pytest
from cases import GRADIENTS, LOSS_GRADIENTS, every_function, flushed
from conftest import LIBRARIES, backend_named, seldom
from hypothesis import given
from hypothesis import strategies as st
from regimes import REGIMES, regime, seeded
from ulps import ulp_error

import softmaxes as sm
from softmaxes._backends._compiled import loops
from softmaxes._cli.budgets import budget


def rules_on(backend, dtype):
    """The closed-form rules, called on arrays of a library."""

    def call(f, *args):
        arrays = [a if isinstance(a, int) else backend.asarray(a, dtype) for a in args]
        return backend.to_numpy(f(*arrays))

    return SimpleNamespace(
        jvp=lambda f, *args: call(lambda x, v, *rest: sm.jvp(f, x, v, *rest)[1], *args),
        vjp=lambda f, *args: call(lambda x, u, *rest: sm.vjp(f, x, *rest)[1](u), *args),
        hvp=lambda f, *args: call(partial(sm.hvp, f), *args),
    )


@cache
def engine_of(backend):
    """What a library derives from the rules itself, compiled once for each kind of array where it can be."""
    autodiff = backend.autodiff

    def hvp(f, x, v, *rest):
        return autodiff.jvp(autodiff.grad(lambda x: f(x, *rest).sum()), (x,), (v,))[1]

    def on_numpy(derivative):
        if hasattr(autodiff, "jit"):
            derivative = autodiff.jit(derivative, static_argnums=0)

        def found(f, *args):
            arrays = (a if isinstance(a, int) else backend.asarray(a, None) for a in args)
            return backend.to_numpy(derivative(f, *arrays))

        return found

    return SimpleNamespace(
        jvp=on_numpy(lambda f, x, v, *rest: autodiff.jvp(lambda x: f(x, *rest), (x,), (v,))[1]),
        vjp=on_numpy(lambda f, x, u, *rest: autodiff.vjp(lambda x: f(x, *rest), x)[1](u)[0]),
        hvp=on_numpy(hvp),
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("n", [2, seldom(10), 1000])
@pytest.mark.parametrize("name", REGIMES)
def test_every_derivative_keeps_its_budget(name, n, dtype):
    x = regime(name, n, dtype, seeded(name, n))
    engines = {
        f"rules on {library}": (rules_on(backend_named(manner), dtype), 0)
        for library, manner in {"numpy": "numpy", "strict": "strict-2025.12"}.items()
        if library in LIBRARIES and backend_named(manner).has(dtype)
    }
    for library, flush in {"jax": n, "torch": 0}.items():
        if library in LIBRARIES:
            engines[f"rules on {library}"] = rules_on(backend_named(library), dtype), flush
            engines[library] = engine_of(backend_named(library)), flush
    assert_within_budget(GRADIENTS, engines, x)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("n", [2, 203])
@pytest.mark.parametrize("name", REGIMES)
def test_every_gradient_of_a_loss_keeps_its_budget(name, n, dtype):
    x = regime(name, n, dtype, seeded(name, n))
    engines = {"rules on numpy": (rules_on(backend_named("numpy"), dtype), 0)}
    if "jax" in LIBRARIES and dtype in ("float32", "float64"):
        engines["jax"] = engine_of(backend_named("jax")), n
    assert_within_budget(LOSS_GRADIENTS, engines, x)


def assert_within_budget(cases, engines, x):
    """Check the derivatives of a slice on engines, each with the number of subnormals that it may lose."""
    dtype = x.dtype.name
    for what, case in cases.items():
        exact, scale = case.exact(x)
        for label, (engine, flush) in engines.items():
            lost = flushed(flush, case.logarithms)
            error = ulp_error(case.found(engine, x), exact, dtype, scale=scale, flush=lost).max()
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


def test_weights_leave_a_confident_row_its_derivative(backend):
    z, e, w = (backend.asarray(a, "float32") for a in ([20, 0, 0], [1, 0, 0], [2, 0.5, 0]))
    q = np.exp(-20.0) / 4
    expected = np.array([1, -1, 0]) * q / (1 + q) ** 2
    roads = {"hvp": sm.hvp(sm.logsumexp, z, e, weights=w)}
    if backend.autodiff:
        autodiff, f = backend.autodiff, partial(sm.logsumexp, axis=-1, weights=w)
        roads |= {
            "forward over reverse": autodiff.hessian(f)(z)[0],
            "reverse over reverse": autodiff.jacrev(autodiff.jacrev(f))(z)[0],
            "reverse over forward": autodiff.jacrev(autodiff.jacfwd(f))(z)[0],
        }
    for road, found in roads.items():
        np.testing.assert_allclose(backend.to_numpy(found), expected, rtol=1e-6, err_msg=road)


OURS, THEIRS = "our rule", "the formula of JAX"


@every_function
@pytest.mark.parametrize(
    ("axis", "whose"),
    [
        *((axis, OURS) for axis in (-1, 0, (0, 2), None)),
        ((0, 2), THEIRS),
        *(seldom(axis, THEIRS) for axis in (-1, 0, None)),
    ],
)
def test_the_rules_agree_with_the_engine_of_jax(jax, function, axis, whose):
    ours = partial(function, axis=axis)
    f = ours if whose is OURS else partial(getattr(jax.nn, function.__name__), axis=axis)
    f = jax.jit(f)
    rng = np.random.default_rng(3)
    x, v = rng.normal(size=(2, 2, 3, 4))
    u = rng.normal(size=np.shape(ours(x)))
    close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-13)

    for found, expected in zip(
        sm.jvp(function, x, v, axis=axis), jax.jvp(f, (x,), (v,)), strict=True
    ):
        close(found, expected)
    close(sm.vjp(function, x, axis=axis)[1](u), jax.vjp(f, x)[1](jax.numpy.asarray(u))[0])
    for jacobian in (jax.jacfwd, jax.jacrev):
        close(sm.jacobian(function, x, axis=axis), jax.jit(jacobian(f))(x))
    hessian = jax.jit(jax.hessian(lambda x: f(x).sum()))(x)
    close(sm.hvp(function, x, v, axis=axis), np.tensordot(hessian, v, 3))


@pytest.mark.parametrize(
    ("ours", "plain"),
    [
        (lambda x, t: sm.softmax(x, temperature=t), lambda x, t, nn: nn.softmax(x / t)),
        (lambda x, t: sm.log_softmax(x, temperature=t), lambda x, t, nn: nn.log_softmax(x / t)),
        (
            lambda x, t: sm.logsumexp(x, axis=-1, weights=t * (x > -2)),
            lambda x, t, nn: nn.logsumexp(x, axis=-1, b=t * (x > -2)),
        ),
    ],
    ids=["softmax", "log_softmax", "logsumexp"],
)
@pytest.mark.parametrize(
    "t",
    [
        seldom(0.7, id="one"),
        seldom([[0.7], [2.0]], id="by row"),
        pytest.param([[0.7, 3.0, 1.0], [2.0, 0.5, 1.5]], id="by entry"),
    ],
)
def test_derivatives_by_temperature_and_weights_agree_with_the_plain_formula(jax, ours, plain, t):
    x = jax.numpy.asarray([[0.3, -1.0, 2.0], [1.0, 1.0, -3.0]])
    t = jax.numpy.asarray(t)
    plain = partial(plain, nn=jax.nn)
    for derivative in (jax.jacfwd, jax.jacrev, hessian_of_squares):
        found, expected = (jax.jit(derivative(f, argnums=(0, 1)))(x, t) for f in (ours, plain))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


def hessian_of_squares(f, argnums):
    import jax

    return jax.hessian(lambda x, t: (f(x, t) ** 2).sum(), argnums=argnums)


@every_function
@pytest.mark.parametrize("options", [{}, {"where": True}, {"temperature": 2.0}], ids=str)
@given(
    x=st.lists(
        st.floats(-1e3, 1e3) | st.sampled_from([-np.inf, 1e300, -1e300]), min_size=1, max_size=6
    ),
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


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["score, weight", "weight, score"])
def test_a_confident_row_keeps_its_mixed_derivative(differentiable, order):
    def f(x, w):
        return sm.logsumexp(x, weights=w)

    first, second = order
    x, w = (differentiable.asarray(a, "float32") for a in ([20, 0, 0], [1, 1, 1]))
    autodiff = differentiable.autodiff
    found = autodiff.jacrev(autodiff.grad(f, first), second)(x, w)[0, 0]
    np.testing.assert_allclose(found, 4.122307e-9, rtol=1e-6)


def test_no_quotient_by_a_temperature_overflows_in_a_derivative(differentiable):
    x, v = np.array([1, 2], "float32"), np.array([0, 100], "float32")
    np.testing.assert_array_equal(sm.jvp(sm.softmax, x, v, temperature=1e-37)[1], [0, 0])
    far, t = (differentiable.asarray(a, "float32") for a in ([3e38, -3e38], 1e38))
    by_temperature = differentiable.autodiff.grad(lambda t: sm.log_softmax(far, temperature=t)[1])
    assert 0 <= by_temperature(t) <= 7e-38  # 6e-38, or flushed


def test_the_derivative_by_a_weight_does_not_underflow_where_the_sum_is_small(jax):
    x, w = (jax.numpy.asarray(a, "float32") for a in ([0, -95], [1e-12, 1]))
    found = jax.grad(lambda w: sm.logsumexp(x, weights=w))(w)[1]
    np.testing.assert_allclose(found, np.exp(-95) / float(w[0]), rtol=1e-6)


def test_a_weight_of_0_removes_the_tangent_of_its_entry(backend):
    x, w, v = (backend.asarray(a) for a in ([0, 1, 2], [1, 0, 3], [1, np.nan, 2]))
    plain = sm.jvp(sm.logsumexp, x[::2], v[::2], weights=w[::2])[1]
    assert sm.jvp(sm.logsumexp, x, v, weights=w)[1] == plain
    curvature = backend.to_numpy(sm.hvp(sm.logsumexp, x, v, weights=w))
    expected = backend.to_numpy(sm.hvp(sm.logsumexp, x[::2], v[::2], weights=w[::2]))
    np.testing.assert_array_equal(curvature, [expected[0], 0, expected[1]])


def test_derivatives_have_the_shape_of_x_also_where_weights_have_more_axes(backend):
    x, w = backend.asarray([1.0, 2, 3]), backend.asarray(np.ones((1, 3)))
    y, pullback = sm.vjp(sm.logsumexp, x, -1, weights=w)
    assert y.shape == (1,)
    assert pullback(y).shape == sm.hvp(sm.logsumexp, x, x, weights=w).shape == (3,)


@pytest.mark.parametrize("function", [sm.softmax, sm.log_softmax])
def test_a_pullback_does_not_notice_what_is_written_into_value_and_options(function):
    x, u, options = (
        np.array([1.0, 2, 3]),
        np.array([1.0, 0, 0]),
        {"temperature": np.array([0.5]), "where": np.array([True, True, False])},
    )
    expected = sm.vjp(function, x, **options)[1](u)
    y, pullback = sm.vjp(function, x, **options)
    for a in (x, y, *options.values()):
        a[...] = 0
    np.testing.assert_array_equal(pullback(u), expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_traced_number_has_no_say_in_the_dtype(jax, dtype):
    x = jax.numpy.asarray([1, 2], dtype)
    assert jax.jit(lambda t: sm.softmax(x, temperature=t))(2.0).dtype == dtype
    assert jax.jit(lambda w: sm.logsumexp(x, weights=w))(2.0).dtype == dtype


def test_a_traced_bad_temperature_has_no_gradient(jax):
    x = jax.numpy.asarray([1.0, 2, -np.inf])
    f = lambda x, t: sm.log_softmax(x, temperature=t)[0]  # noqa: E731  a one-line formula
    for derivative in (jax.jacfwd, jax.jacrev):
        for t in (-1.0, np.nan):
            dx, dt = derivative(f, argnums=(0, 1))(x, t)
            assert np.isnan([dt, *dx[:2]]).all()


def test_an_entry_of_probability_0_takes_no_part_of_an_infinite_cotangent(backend):
    x, u = backend.asarray([0, 0, -np.inf]), backend.asarray([np.inf, 1, 2])
    roads = {"rule": sm.vjp(sm.log_softmax, x)[1](u)}
    if backend.autodiff:
        roads["engine"] = backend.autodiff.vjp(sm.log_softmax, x)[1](u)[0]
    for road, found in roads.items():
        np.testing.assert_array_equal(backend.to_numpy(found)[2], 2, err_msg=road)


def test_rows_of_the_jacobian_of_softmax_sum_to_zero(backend):
    x = backend.asarray([0.0, -40.0, 1.0, 30.0])
    j = backend.to_numpy(sm.jacobian(sm.softmax, x))
    assert (np.abs(j.sum(axis=0)) <= 4 * np.finfo(float).eps * np.abs(j).sum(axis=0)).all()
    assert (np.abs(j.sum(axis=1)) <= 4 * np.finfo(float).eps * np.abs(j).sum(axis=1)).all()


@every_function
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_array_of_the_size_of_the_input_is_kept_for_the_backward_pass(jax, function, dtype):
    x = jax.numpy.linspace(0, 1, 60, dtype=dtype).reshape(6, 10)
    y, pullback = jax.vjp(lambda x: function(x, axis=-1), x)
    kept = [a for a in jax.tree.leaves(pullback) if a.size > 1]
    assert [(a.shape, str(a.dtype)) for a in kept] == [(x.shape, dtype)]
    # Compiled loops make the probabilities once more from the scores.
    owner = y if function is sm.softmax and dtype == "float32" and loops() is None else x
    assert (kept[0] == owner).all()


@every_function
def test_a_mask_is_kept_as_it_came_and_nothing_else(jax, function):
    x = jax.numpy.linspace(0, 1, 60).reshape(6, 10)
    mask = x > 0.2
    _, pullback = jax.vjp(lambda x: function(x, axis=-1, where=mask), x)
    kept = sorted(str(a.dtype) for a in jax.tree.leaves(pullback) if a.size > 1)
    assert kept in (["float64"], ["bool", "float64"])


@every_function
@pytest.mark.parametrize("order", [2, seldom(3)])
def test_transformations_of_jax_compose(jax, function, order):
    from jax.test_util import check_grads

    x = jax.numpy.asarray(np.random.default_rng(5).normal(size=(3, 4)))
    f = lambda x: function(x, axis=-1).sum() ** 2  # noqa: E731  a one-line formula
    expected = np.stack([jax.grad(f)(row) for row in x])
    for found in (
        jax.jit(jax.vmap(jax.grad(f)))(x),
        jax.vmap(jax.grad(jax.checkpoint(f)))(x),
        np.stack([jax.linear_transpose(jax.linearize(f, row)[1], row)(1.0)[0] for row in x]),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-14)
    check_grads(f, (x[0],), order=order, atol=1e-4, rtol=1e-4)
