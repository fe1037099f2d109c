"""The losses: every label at every special value, with derivatives, and beside Optax, PyTorch and SciPy."""

from functools import cache, partial

import mpmath
import numpy as np
import pytest
import scipy.special
import truth
from conftest import seldom
from contract import CONTRACT, INF, NAN
from hypothesis import given
from hypothesis import strategies as st
from test_contract import DTYPES, arguments, assert_is, known
from ulps import ulp_error

import softmaxes as sm
from softmaxes._backends._compiled import loops
from softmaxes._cli.budgets import BUDGETS

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
    # Compiling is dear, so one manner of JAX takes its roads.
    jax = backend.autodiff if backend.name in ("jax-jit", "torch") else None
    found = backend.run(derivatives, function, *arrays, xp=backend.xp, jax=jax, **options)
    due = {"value": value, "vjp": gradients, "jvp": times(gradients, v)}
    due["hvp"] = np.broadcast_to(times(hessian, v), gradients.shape)
    for road, actual in found.items():
        assert_is(due[road.partition(" ")[0]], actual, backend, road)


def once(backend):
    """Compiling is dear: skip a test of JAX but for one manner."""
    if backend.name in ("jax", "jax-vmap"):
        pytest.skip("the compiled manner is tested")


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
    once(backend)
    p, log_p = (np.array(e.value, float) for e in (row.softmax, row.log_softmax))
    j, r = known(row.softmax.jacobian), np.where(p == 0, 0, log_p)
    gradient = -j @ r
    hessian = np.diag(gradient) - np.outer(gradient, p) - np.outer(p, gradient) - j
    expected = [-np.sum(p * r)], gradient[None], hessian
    check(backend, dtype, sm.entropy, row, [], unknown_where_nan(*expected))


@every_row
def test_divergence_of_a_row_from_itself(backend, dtype, row):
    once(backend)
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
    once(backend)
    p, q = backend.asarray(p, dtype), backend.asarray(q, dtype)
    assert_is(value, backend.run(sm.kl_divergence, p, q), backend)
    assert_is(by_p, backend.run(gradient, sm.kl_divergence, p, q, xp=backend.xp), backend, "by p")
    if backend.autodiff:
        found = backend.run(divergence_gradients(backend.autodiff), p, q)
        assert_is(by_p, found[0], backend, "by p, JAX")
        assert_is(by_q, found[1], backend, "by q, JAX")


@cache
def divergence_gradients(jax):
    return jax.grad(sm.kl_divergence, argnums=(0, 1))


def gradient(function, x, *rest, xp, **options):
    y, pullback = sm.vjp(function, x, *rest, **options)
    return pullback(xp.ones_like(y))


# Labels ---------------------------------------------------------------------------------------------------------------

X = np.array([[1.0, 2.0, 3.0], [0.0, -1.0, 4.0], [2.0, 2.0, 2.0]])


@pytest.mark.parametrize("label", [-1, 3, 2**31])
def test_a_number_that_names_no_class_is_an_error_where_it_is_known_and_NaN_where_it_is_not(
    backend, dtype, label
):
    x, labels = backend.asarray(X, dtype), backend.asarray([0, label, 2], "int64")
    if not backend.traced:
        with pytest.raises(ValueError, match=r"labels must lie in 0 to 2"):
            backend.run(sm.cross_entropy, x, labels)
        return
    y = backend.to_numpy(backend.run(sm.cross_entropy, x, labels))
    dx = backend.to_numpy(backend.run(gradient, sm.cross_entropy, x, labels, xp=backend.xp))
    for found in (y, dx.sum(axis=-1)):
        assert np.isnan(found).tolist() == [False, True, False]
    if backend.name == "jax-jit":
        grad = backend.autodiff.grad(lambda x, labels: sm.cross_entropy(x, labels).sum())
        np.testing.assert_array_equal(backend.run(grad, x, labels), dx)


def test_an_empty_row_has_no_loss_whatever_its_label(backend, dtype):
    numbers = [0, -100, -1, 0, 3, 255]
    rows = [[1, 2, 3], *[[NAN, INF, 1]] * 3, *[[-INF] * 3] * 2]
    x, labels = backend.asarray(rows, dtype), backend.asarray(numbers, "int64")
    where = backend.asarray([[True], *[[False]] * 3, *[[True]] * 2], "bool")
    y = backend.to_numpy(backend.run(sm.cross_entropy, x, labels, where=where))
    dx = backend.run(gradient, sm.cross_entropy, x, labels, xp=backend.xp, where=where)
    assert y[0] > 0
    np.testing.assert_array_equal(y[1:], np.zeros(5))
    np.testing.assert_array_equal(backend.to_numpy(dx)[1:], np.zeros((5, 3)))
    if backend.name == "jax-jit":
        jax = backend.autodiff
        f = jax.grad(lambda x, labels: sm.cross_entropy(x, labels, where=where).sum())
        for derivative in (jax.jacfwd, jax.jacrev):
            hessian = np.asarray(jax.jit(derivative(f))(x, labels))
            assert np.isfinite(hessian).all()
            assert not hessian[1:].any()


@pytest.mark.parametrize(("axis", "smoothing"), [(1, 0.0), ((2, 0), 0.1), (None, 1.0)])
def test_an_integer_label_is_one_among_soft_labels(backend, smoothing, axis):
    rng = np.random.default_rng(1)
    x, where = rng.normal(size=(2, 3, 4)), rng.random((2, 3, 4)) < 0.8
    order = {1: (0, 2, 1), (2, 0): (1, 2, 0), None: (0, 1, 2)}[axis]
    moved, k = np.transpose(x, order), {1: 1, (2, 0): 2, None: 3}[axis]
    shape = moved.shape
    batch, n = shape[: 3 - k], int(np.prod(shape[3 - k :]))
    labels = rng.integers(0, n, batch)
    soft = np.transpose(np.eye(n)[labels].reshape(shape), np.argsort(order))
    options = {"axis": axis, "label_smoothing": smoothing, "where": backend.asarray(where, "bool")}
    x = backend.asarray(x)
    expected, actual = (
        backend.to_numpy(backend.run(sm.cross_entropy, x, labels, **options))
        for labels in (backend.asarray(soft), backend.asarray(labels, "int64"))
    )
    np.testing.assert_array_max_ulp(actual, expected, 4)
    plain = -scipy.special.log_softmax(np.where(where, backend.to_numpy(x), -INF), axis)
    q = (1 - smoothing) * soft + smoothing * where / where.sum(axis=axis, keepdims=True)
    plain = np.where(q == 0, 0, q * np.where(q == 0, 0, plain)).sum(axis=axis)
    np.testing.assert_allclose(actual, plain, rtol=1e-13)


def test_smoothing_spreads_the_labels_over_the_classes_that_are_left(backend, dtype):
    x = backend.asarray([2, NAN, -INF, 2], dtype)
    where = backend.asarray([True, False, True, True], "bool")
    smoothed = partial(backend.run, sm.cross_entropy, x, where=where)
    assert_is(LOG2, smoothed(0, label_smoothing=0.5), backend)
    assert_is(INF, smoothed(2, label_smoothing=0.5), backend)
    assert_is(LOG2, smoothed(2, label_smoothing=1.0), backend)
    labels = backend.asarray([1, 0, 0, 3], dtype)  # of the sum 4
    assert_is(4 * LOG2, smoothed(labels, label_smoothing=0.5), backend)
    found = backend.run(
        gradient, sm.cross_entropy, x, labels, xp=backend.xp, where=where, label_smoothing=0.5
    )
    assert_is([0.5, 0, 0, -0.5], found, backend)


def test_a_loss_is_finite_where_only_the_gap_between_two_scores_overflows(backend, dtype):
    largest = float(np.finfo(dtype).max)
    scores, q = np.full(100, largest), np.zeros(100)
    scores[-1], q[0], q[-1] = -largest, 0.75, 0.25
    x = backend.asarray(scores, dtype)
    found = [
        backend.run(sm.cross_entropy, x, 0, label_smoothing=0.5),
        backend.run(sm.cross_entropy, x, 99, label_smoothing=0.75),
        backend.run(sm.cross_entropy, x, backend.asarray(q, dtype)),
    ]
    found = [float(backend.to_numpy(y)) / largest for y in found]
    np.testing.assert_allclose(found, [0.01, 0.515, 0.5], rtol=8 * np.finfo(dtype).eps)


def test_soft_labels_of_any_sum_scale_the_loss(backend, dtype):
    x, q = backend.asarray(X, dtype), np.array([[1, 2, 5], [0, 0, 0], [4, 0, 4]])
    single = [backend.run(sm.cross_entropy, x, backend.asarray([i] * 3, "int64")) for i in range(3)]
    expected = sum(backend.to_numpy(y).astype(float) * q[:, i] for i, y in enumerate(single))
    np.testing.assert_allclose(
        backend.to_numpy(backend.run(sm.cross_entropy, x, backend.asarray(q, dtype))),
        expected,
        rtol=4 * np.finfo(dtype).eps,
    )


@pytest.mark.parametrize("labels", ["int8", "uint64"])
def test_labels_may_be_of_any_integer_dtype(backend, labels):
    x = backend.asarray(np.eye(300)[:2])
    expected = backend.run(sm.cross_entropy, x, backend.asarray([0, 100], "int64"))
    actual = backend.run(sm.cross_entropy, x, backend.asarray([0, 100], labels))
    np.testing.assert_array_equal(backend.to_numpy(actual), backend.to_numpy(expected))


def test_a_class_number_beyond_the_digits_of_single_precision_is_exact():
    x = np.zeros(2**24 + 2, "float32")
    x[-1] = 5
    losses = [sm.cross_entropy(x, label) for label in (x.size - 2, x.size - 1)]
    np.testing.assert_allclose(losses[0] - losses[1], 5, rtol=1e-6)


# Derivatives by the other arguments -----------------------------------------------------------------------------------


def test_derivative_by_soft_labels(jax):
    x, q = jax.numpy.asarray([1.0, 2.0, -INF, 5.0]), jax.numpy.asarray([0.5, 0.0, 0.0, 2.0])
    where = jax.numpy.asarray([True, True, True, False])
    f = partial(sm.cross_entropy, x, where=where)
    # -log p; 0 where that is infinite, be the label 0 or not
    expected = np.where(np.array([1, 1, 0, 0]), -np.asarray(sm.log_softmax(x, where=where)), 0)
    for derivative in (jax.grad(f), jax.jacfwd(f), jax.jit(jax.grad(f))):
        # Compiled loops take another road to the logarithm than the loss does.
        ulps = 0 if loops() is None else 1
        np.testing.assert_array_max_ulp(np.asarray(derivative(q)), expected, maxulp=ulps)
    smooth = jax.grad(partial(f, label_smoothing=0.5))(q)
    np.testing.assert_allclose(smooth, 0.5 * expected + 0.5 * expected.sum() / 2, rtol=1e-15)
    assert not np.asarray(jax.hessian(f)(q)).any()


def plain_cross_entropy(x, q, *, jax, smoothing=0.0):
    log_p = jax.nn.log_softmax(x)
    share = smoothing * q.sum(axis=-1, keepdims=True) / x.shape[-1]
    return -(((1 - smoothing) * q + share) * log_p).sum(axis=-1)


def plain_divergence(x, y, *, jax):
    log_p, log_q = jax.nn.log_softmax(x), jax.nn.log_softmax(y)
    return (jax.numpy.exp(log_p) * (log_p - log_q)).sum(axis=-1)


@pytest.mark.parametrize(
    ("ours", "plain"),
    [
        (sm.cross_entropy, plain_cross_entropy),
        (
            partial(sm.cross_entropy, label_smoothing=0.3),
            partial(plain_cross_entropy, smoothing=0.3),
        ),
        (sm.kl_divergence, plain_divergence),
    ],
    ids=["cross_entropy", "smoothed", "kl_divergence"],
)
def test_all_derivatives_by_both_arguments_agree_with_the_plain_formula(jax, ours, plain):
    rng = np.random.default_rng(3)
    x, y = (jax.numpy.asarray(a) for a in rng.uniform(size=(2, 2, 3)))
    plain = partial(plain, jax=jax)
    for derivative in (jax.jacfwd, jax.jacrev, hessian_of_squares):
        found, expected = (derivative(f, argnums=(0, 1))(x, y) for f in (ours, plain))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def hessian_of_squares(f, argnums):
    import jax

    return jax.jit(jax.hessian(lambda x, y: (f(x, y) ** 2).sum(), argnums=argnums))


def test_the_gradient_by_the_scores_of_q_keeps_its_budget_where_the_distributions_are_close(jax):
    rng = np.random.default_rng(4)
    for scale in (1, 10, 100):
        x = rng.normal(scale=scale, size=50)
        y = np.nextafter(x, 0)
        y[::2] = x[::2]
        found = jax.grad(sm.kl_divergence, 1)(jax.numpy.asarray(x), jax.numpy.asarray(y))
        exact = truth.kl_divergence_gradients(x, y)[1]
        error = ulp_error(found, exact.value, "float64", scale=exact.entry_scale)
        assert error.max() <= BUDGETS["kl_divergence gradient"]


@pytest.mark.slow
def test_the_rules_agree_with_jax_on_every_axis(jax):
    rng = np.random.default_rng(5)
    x, v, y = rng.normal(size=(3, 2, 3, 4))
    for axis in (0, (2, 0), None):
        classes = {0: 2, (2, 0): 8, None: 24}[axis]
        labels = rng.integers(0, classes, np.sum(x, axis=axis).shape)
        for function, rest in (
            (sm.cross_entropy, (labels,)),
            (sm.kl_divergence, (y,)),
            (sm.entropy, ()),
        ):
            f = jax.jit(lambda x, g=function, r=rest, a=axis: g(x, *map(jax.numpy.asarray, r), a))
            close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-14)
            close(sm.jvp(function, x, v, *rest, axis=axis)[1], jax.jvp(f, (x,), (v,))[1])
            close(sm.jacobian(function, x, *rest, axis=axis), jax.jit(jax.jacrev(f))(x))
            grad = jax.jit(jax.grad(lambda x, f=f: f(x).sum()))
            close(sm.hvp(function, x, v, *rest, axis=axis), jax.jvp(grad, (x,), (v,))[1])


@pytest.mark.parametrize(
    "function", [sm.cross_entropy, seldom(sm.kl_divergence), seldom(sm.entropy)]
)
def test_transformations_of_jax_compose(jax, function):
    from jax.test_util import check_grads

    x, y = jax.numpy.asarray(np.random.default_rng(5).uniform(size=(2, 3, 4)))
    rest = () if function is sm.entropy else (y,)
    f = lambda x, *rest: function(x, *rest).sum() ** 2  # noqa: E731  a one-line formula
    expected = np.stack([jax.grad(f)(*rows) for rows in zip(x, *rest, strict=True)])
    for g in (jax.grad(f), jax.grad(jax.checkpoint(f))):
        np.testing.assert_allclose(jax.jit(jax.vmap(g))(x, *rest), expected, rtol=1e-13, atol=1e-14)
    check_grads(f, (x[0], *(a[0] for a in rest)), order=2, atol=1e-4, rtol=1e-4)


def test_nothing_but_scores_and_labels_is_kept_for_the_backward_pass(jax):
    x, labels = jax.numpy.linspace(0, 1, 60).reshape(6, 10), jax.numpy.arange(6)
    _, pullback = jax.vjp(lambda x: sm.cross_entropy(x, labels), x)
    kept = sorted(a.shape for a in jax.tree.leaves(pullback) if a.size > 1)
    assert kept in ([(6, 1), (6, 10)], [(6,), (6, 10)])


# Accuracy where it is hard, and the peers -----------------------------------------------------------------------------


def test_a_confident_row_keeps_its_loss_and_its_gradient_where_the_peers_lose_both(backend):
    x = backend.asarray([20, 0, 0], "float32")
    label = backend.asarray(0, "int64")
    exact = 2 * np.exp(-20.0) / (1 + 2 * np.exp(-20.0))
    found = backend.to_numpy(backend.run(sm.cross_entropy, x, label))
    np.testing.assert_allclose(found, np.log1p(2 * np.exp(-20.0)), rtol=1e-6)
    dx = backend.to_numpy(backend.run(gradient, sm.cross_entropy, x, label, xp=backend.xp))
    np.testing.assert_allclose(dx, [-exact, exact / 2, exact / 2], rtol=1e-6)


def test_what_the_peers_lose_on_a_confident_row(jax):
    optax, torch = pytest.importorskip("optax"), pytest.importorskip("torch")
    theirs = optax.losses.softmax_cross_entropy_with_integer_labels
    x = jax.numpy.asarray([20, 0, 0], "float32")
    assert jax.value_and_grad(theirs)(x, 0)[0] == jax.grad(theirs)(x, 0)[0] == 0
    x = torch.tensor([20.0, 0, 0], requires_grad=True)
    loss = torch.nn.functional.cross_entropy(x, torch.tensor(0))
    loss.backward()
    assert loss == x.grad[0] == 0


def test_an_offset_common_to_all_scores_costs_nothing(jax, backend):
    optax = pytest.importorskip("optax")
    for offset in (1e6, 1e8):
        x = backend.asarray([offset, offset], "float32")
        assert_is(LOG2, backend.run(sm.cross_entropy, x, 0), backend)
        assert_is(LOG2, backend.run(sm.entropy, x), backend)
    theirs = optax.losses.softmax_cross_entropy_with_integer_labels
    assert theirs(jax.numpy.asarray([1e8, 1e8], "float32"), 0) == 0


def random_losses(seed=6):
    rng = np.random.default_rng(seed)
    q = rng.uniform(size=(50, 7))
    labels = rng.integers(0, 7, 50)
    return rng.normal(scale=3, size=(50, 7)), q / q.sum(axis=-1, keepdims=True), labels


def test_losses_agree_with_optax(jax):
    optax = pytest.importorskip("optax")
    x, q, labels = random_losses()
    where = np.random.default_rng(7).random(x.shape) < 0.7
    where[:, 0], q = True, np.where(where, q, 0)
    close = partial(np.testing.assert_allclose, rtol=1e-12)
    theirs = optax.losses.softmax_cross_entropy_with_integer_labels
    close(sm.cross_entropy(x, labels), theirs(x, labels))
    close(sm.cross_entropy(x, 0 * labels, where=where), theirs(x, 0 * labels, where=where))
    close(sm.cross_entropy(x, q), optax.losses.softmax_cross_entropy(x, q))
    soft = optax.losses.softmax_cross_entropy(np.where(where, x, 0), q, where=where)
    assert np.isfinite(soft).all()
    smoothed = optax.losses.smooth_labels(np.eye(7)[labels], 0.1)
    found = sm.cross_entropy(x, labels, label_smoothing=0.1)
    close(found, optax.losses.softmax_cross_entropy(x, smoothed))
    log_q, p = jax.nn.log_softmax(x), sm.softmax(x[::-1])
    close(sm.kl_divergence(x[::-1], x), optax.losses.kl_divergence(log_q, p))


def test_losses_and_gradients_agree_with_pytorch():
    torch = pytest.importorskip("torch")
    x, q, labels = random_losses(8)
    for labels_of, smoothing in ((labels, 0.0), (labels, 0.2), (q, 0.0), (q, 0.2)):
        scores = torch.tensor(x, requires_grad=True)
        theirs = torch.nn.functional.cross_entropy(
            scores, torch.tensor(labels_of), reduction="none", label_smoothing=smoothing
        )
        theirs.sum().backward()
        y, pullback = sm.vjp(sm.cross_entropy, x, labels_of, label_smoothing=smoothing)
        np.testing.assert_allclose(y, theirs.detach(), rtol=1e-12)
        np.testing.assert_allclose(pullback(np.ones_like(y)), scores.grad, rtol=1e-12, atol=1e-15)
    theirs = torch.distributions.Categorical(logits=torch.tensor(x)).entropy()
    np.testing.assert_allclose(sm.entropy(x), theirs, rtol=1e-12)


def test_a_label_of_0_at_minus_infinity_is_lost_in_the_peers_alone(jax, backend):
    optax, torch = pytest.importorskip("optax"), pytest.importorskip("torch")
    x, q = backend.asarray([0, 0, -INF]), backend.asarray([1, 0, 0])
    assert_is(LOG2, backend.run(sm.cross_entropy, x, q), backend)
    x, q = np.array([[0, 0, -INF]]), np.array([[1.0, 0, 0]])
    assert np.isnan(optax.losses.softmax_cross_entropy(x, q))
    assert torch.nn.functional.cross_entropy(torch.tensor(x), torch.tensor(q)).isnan()


scores = st.lists(st.floats(-800, 800), min_size=1, max_size=8)


@given(x=scores, seed=st.integers(0, 2**32 - 1), exponent=st.integers(-52, 10))
def test_no_divergence_is_negative(x, seed, exponent):
    x = np.array(x)
    y = x + 2.0**exponent * np.random.default_rng(seed).normal(size=x.shape)
    assert sm.kl_divergence(x, y) >= 0
    assert sm.kl_divergence(x, x) == 0


@given(x=scores)
def test_the_entropy_lies_between_0_and_that_of_equal_scores(x):
    assert 0 <= sm.entropy(x) <= np.log(len(x)) * (1 + BUDGETS["entropy"] * np.finfo(float).eps)


@given(x=scores, seed=st.integers(0, 2**32 - 1))
def test_the_loss_is_the_entropy_of_the_labels_and_the_divergence_from_them(x, seed):
    x = np.array(x)
    z = x + np.random.default_rng(seed).normal(size=x.shape)
    expected = sm.entropy(z) + sm.kl_divergence(z, x)
    lost = (
        745 * np.finfo(float).smallest_subnormal
    )  # by a subnormal probability, times its logarithm
    np.testing.assert_allclose(sm.cross_entropy(x, sm.softmax(z)), expected, 1e-12, atol=lost)


def test_values_agree_with_mpmath():
    rng = np.random.default_rng(9)
    for scale in (1e-9, 1, 30):
        x, y, q = rng.normal(scale=scale, size=5), rng.normal(size=5), rng.uniform(size=5)
        found = sm.cross_entropy(x, q), sm.entropy(x), sm.kl_divergence(x, x + 1e-8 * y)
        with mpmath.workdps(200):
            log_p, log_q = (log_softmax(a) for a in (x, x + 1e-8 * y))
            p = [mpmath.exp(a) for a in log_p]
            expected = (
                -mpmath.fdot(map(mpmath.mpf, q.tolist()), log_p),
                -mpmath.fdot(p, log_p),
                mpmath.fdot(p, [a - b for a, b in zip(log_p, log_q, strict=True)]),
            )
            for a, b in zip(found, expected, strict=True):
                assert abs(mpmath.mpf(float(a)) / b - 1) <= 6 * np.finfo(float).eps


def log_softmax(x):
    terms = [mpmath.mpf(a) for a in x.tolist()]
    total = mpmath.log(mpmath.fsum(map(mpmath.exp, terms)))
    return [a - total for a in terms]


# In and out -----------------------------------------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(("axis", "shape"), [seldom(-1, (2, 3)), ((0, 2), (3,))])
def test_type_dtype_and_shape_of_the_loss(backend, function, axis, shape, dtype):
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    x = backend.asarray(np.random.default_rng(2).uniform(size=(2, 3, 4)), dtype)
    rest = () if function is sm.entropy else (x,)
    y = backend.run(function, x, *rest, axis=axis)
    assert (y.shape, y.dtype) == (shape, x.dtype)
    assert backend.run(gradient, function, x, *rest, xp=backend.xp).dtype == x.dtype


@every_loss
def test_half_precision_is_rounded_once(backend, function):
    if not backend.has("float16"):
        pytest.skip(f"{backend.name} has no float16")
    rows = [backend.asarray(a, "float16") for a in np.random.default_rng(8).uniform(size=(2, 100))]
    rest = slice(1 if function is sm.entropy else 2)
    wide = [backend.asarray(backend.to_numpy(a), "float32") for a in rows]
    expected, y = (backend.run(function, *arrays[rest]) for arrays in (wide, rows))
    assert backend.to_numpy(y) == backend.to_numpy(expected).astype("float16")


@every_loss
def test_integers_are_promoted_before_they_are_subtracted(backend, function):
    x = backend.asarray([1, 2, 0], "uint8")
    real = backend.asarray([1, 2, 0], backend.default)
    rest = {sm.cross_entropy: [1], sm.kl_divergence: [x], sm.entropy: []}[function]
    expected, actual = (backend.run(function, a, *rest) for a in (real, x))
    np.testing.assert_array_equal(backend.to_numpy(actual), backend.to_numpy(expected))
    assert actual.dtype == expected.dtype


def test_the_dtype_of_a_loss_is_that_of_all_real_arrays(backend):
    x, wide = backend.asarray([1, 2], "float32"), backend.asarray([1, 2], "float64")
    assert backend.run(sm.cross_entropy, x, wide).dtype == wide.dtype
    assert backend.run(sm.kl_divergence, x, wide).dtype == wide.dtype
    assert backend.run(sm.cross_entropy, x, 1, label_smoothing=np.float64(0.5)).dtype == x.dtype


@every_loss
def test_the_one_class_of_a_scalar_is_certain(backend, dtype, function):
    x = backend.asarray(7, dtype)
    rest = {sm.cross_entropy: [0], sm.kl_divergence: [x], sm.entropy: []}[function]
    for axis in (-1, 0, None, ()):
        assert_is(0, backend.run(function, x, *rest, axis=axis), backend)


def test_without_axes_every_entry_is_a_slice(backend, dtype):
    x = backend.asarray([7, -INF, INF], dtype)
    zeros = backend.asarray([0, 0, 0], "int64")
    assert_is([0, 0, 0], backend.run(sm.cross_entropy, x, zeros, axis=()), backend)
    assert_is([0, 0, 0], backend.run(sm.entropy, x, axis=()), backend)


@pytest.mark.parametrize("shape", [(0,), (0, 2)])
def test_nothing_has_no_loss(backend, dtype, shape):
    x = backend.asarray(np.zeros(shape), dtype)
    labels = backend.asarray(np.zeros(shape[:-1]), "int64")
    for function, *rest in ((sm.cross_entropy, labels), (sm.kl_divergence, x), (sm.entropy,)):
        assert_is(np.zeros(shape[:-1]), backend.run(function, x, *rest), backend)
        assert_is(
            np.zeros(shape), backend.run(gradient, function, x, *rest, xp=backend.xp), backend
        )


def test_the_scores_of_two_distributions_broadcast(backend):
    p, q = backend.asarray(X), backend.asarray(X[0])
    expected = [float(sm.kl_divergence(row, X[0])) for row in X]
    found = backend.to_numpy(backend.run(sm.kl_divergence, p, q))
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    uniform = backend.to_numpy(backend.run(sm.kl_divergence, p, backend.asarray(0.0)))
    np.testing.assert_allclose(uniform, LOG3 - sm.entropy(X), rtol=1e-12, atol=1e-15)
    found = backend.run(gradient, sm.kl_divergence, q, p, xp=backend.xp)
    by_row = [sm.vjp(sm.kl_divergence, X[0], row)[1](np.float64(1)) for row in X]
    np.testing.assert_allclose(backend.to_numpy(found), np.sum(by_row, axis=0), rtol=1e-14)


@every_loss
def test_lists_and_numbers_become_arrays_of_numpy(function):
    rest = {sm.cross_entropy: [1], sm.kl_divergence: [[0, 0, 1]], sm.entropy: []}[function]
    y = function([1, 2, 0], *rest)
    assert isinstance(y, np.float64)
    assert y == function(np.array([1.0, 2.0, 0.0]), *map(np.asarray, rest))


def test_a_pullback_does_not_notice_what_is_written_into_its_arguments():
    x, q = np.array([1.0, 2, 3]), np.array([0.0, 1, 0])
    for function, rest in ((sm.cross_entropy, [q]), (sm.kl_divergence, [q]), (sm.entropy, [])):
        expected = sm.vjp(function, x, *rest)[1](np.float64(1))
        copies = x.copy(), *(a.copy() for a in rest)
        _, pullback = sm.vjp(function, *copies)
        for a in copies:
            a[...] = 7
        np.testing.assert_array_equal(pullback(np.float64(1)), expected)


@pytest.mark.parametrize("size", [1, 1e9, 1e20])
def test_a_scale_inside_jit_changes_nothing(jax, size):
    x = np.random.default_rng(9).normal(scale=size, size=(50, 20)).astype("float32")
    x[:, 7] = x.max(axis=1)  # met twice, it must be found twice
    x, labels = jax.numpy.asarray(x), jax.numpy.arange(50) % 20

    def scaled(x):
        z = x / 0.3
        losses = sm.cross_entropy(z, labels), sm.kl_divergence(x[::-1] / 0.3, z), sm.entropy(z)
        return jax.numpy.stack(losses)

    assert not np.isnan(scaled(x)).any()
    np.testing.assert_allclose(scaled(x), jax.jit(scaled)(x), rtol=1e-6, atol=1e-6)
