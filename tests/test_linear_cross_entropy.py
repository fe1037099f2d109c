"""linear_cross_entropy is cross_entropy of the product, in value and derivatives, in little memory."""

import tracemalloc
from functools import cache, partial

import numpy as np
import pytest
import truth
from cases import flushed
from conftest import seldom
from contract import CONTRACT
from regimes import REGIMES, regime, seeded
from test_contract import DTYPES, arguments, assert_is, known
from test_losses import of_label, times
from ulps import ulp_error

import softmaxes as sm
from softmaxes._cli.budgets import BUDGETS, budget

ROWS, H, CLASSES = 13, 3, 29
RNG = np.random.default_rng(0)
# Small integers: their products are exact in every dtype, so that the scores are given.
FEATURES = RNG.integers(-3, 4, size=(ROWS, H)).astype(float)
WEIGHTS = RNG.integers(-3, 4, size=(CLASSES, H)).astype(float)
BIAS = RNG.integers(-3, 4, size=CLASSES).astype(float)
SCORES = FEATURES @ WEIGHTS.T
LABELS = RNG.integers(0, CLASSES, size=ROWS)
SOFT = RNG.integers(0, 4, size=(ROWS, CLASSES)) / 4
MASK = RNG.random((ROWS, CLASSES)) < 0.8
COTANGENTS = RNG.standard_normal(ROWS)

OPTIONS = {
    "": {},
    "bias": {"bias": BIAS},
    "mask": {"where": MASK},
    "classes left out": {"where": MASK[0]},
    "rows left out": {"where": MASK[:, :1]},
    "smoothing": {"label_smoothing": 0.25, "where": MASK},
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
every_label = pytest.mark.parametrize("labels", [LABELS, SOFT], ids=["numbers", "soft"])

# One row at a time; two tiles that overlap; all rows at once.
TILES = {"one row": 1, "some rows": 8 * 4 * CLASSES * 5, "all rows": None}


def on(backend, a, dtype):
    """The array in the library; numbers that are not floating keep their dtype."""
    return backend.asarray(a, dtype if a.dtype.kind == "f" else a.dtype.name)


def formed(scores, labels, *, bias=None, **options):
    """The loss of scores that are formed."""
    return sm.cross_entropy(scores if bias is None else scores + bias, labels, **options)


# The value ------------------------------------------------------------------------------------------------------------


# Every tiling in one dtype, and in the other in the slow session.
TILED = {"one row": "float32", "some rows": "float64", "all rows": "float32"}


@pytest.mark.parametrize(
    ("dtype", "tile_bytes"),
    [
        (pytest.param if dtype == TILED[name] else seldom)(dtype, tile_bytes, id=f"{name}-{dtype}")
        for name, tile_bytes in TILES.items()
        for dtype in ("float32", "float64")
    ],
)
@every_label
@every_option
def test_the_value_is_that_of_the_scores(backend, dtype, options, labels, tile_bytes):
    options = {
        name: a if isinstance(a, float) else on(backend, a, dtype) for name, a in options.items()
    }
    scores, features, weights, labels = (
        on(backend, a, dtype) for a in (SCORES, FEATURES, WEIGHTS, labels)
    )
    expected = backend.to_numpy(backend.run(formed, scores, labels, **options))
    actual = backend.to_numpy(
        backend.run(
            partial(sm.linear_cross_entropy, tile_bytes=tile_bytes),
            features,
            weights,
            labels,
            **options,
        )
    )
    assert expected.dtype == actual.dtype
    # Each is within the budget of the exact value.
    close = 2 * budget("cross_entropy", dtype) * np.spacing(np.abs(expected))
    assert (
        np.isinf(expected)
        | (
            np.abs(
                np.subtract(
                    actual, expected, where=np.isfinite(expected), out=np.zeros_like(expected)
                )
            )
            <= close
        )
    ).all()
    assert np.array_equal(np.isinf(expected), np.isinf(actual))


def test_the_tiling_changes_no_bit_on_numpy():
    losses = [
        sm.linear_cross_entropy(FEATURES, WEIGHTS, LABELS, tile_bytes=b) for b in TILES.values()
    ]
    assert all(np.array_equal(losses[0], loss) for loss in losses)


def test_examples_may_have_any_axes(backend):
    features, weights = backend.asarray(FEATURES[:12]), backend.asarray(WEIGHTS)
    labels, where = backend.asarray(LABELS[:12], None), backend.asarray(MASK[:12], None)
    flat = backend.run(sm.linear_cross_entropy, features, weights, labels, where=where)
    xp = backend.xp
    shaped = backend.run(
        sm.linear_cross_entropy,
        xp.reshape(features, (3, 4, H)),
        weights,
        xp.reshape(labels, (3, 4)),
        where=xp.reshape(where, (3, 4, CLASSES)),
    )
    assert np.array_equal(np.reshape(backend.to_numpy(flat), (3, 4)), backend.to_numpy(shaped))
    one = backend.run(
        sm.linear_cross_entropy, features[0, :], weights, labels[0], where=where[0, :]
    )
    assert float(one) == pytest.approx(float(backend.to_numpy(flat)[0]), rel=1e-15)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_operands_are_accumulated_in_single_precision_and_rounded_once(backend, dtype):
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    features, weights = backend.asarray(FEATURES, dtype), backend.asarray(WEIGHTS, dtype)
    labels = backend.asarray(LABELS, None)
    actual = backend.run(sm.linear_cross_entropy, features, weights, labels)
    single = backend.run(formed, backend.asarray(SCORES, "float32"), labels)
    assert str(actual.dtype).endswith(dtype)
    actual = backend.to_numpy(actual)
    assert np.array_equal(backend.to_numpy(single).astype(actual.dtype), actual)


def test_a_bias_in_single_precision_gives_a_loss_in_single_precision(jax):
    features, weights = (jax.numpy.asarray(a, "bfloat16") for a in (FEATURES, WEIGHTS))
    bias = jax.numpy.zeros(CLASSES, "float32")
    loss = sm.linear_cross_entropy(features, weights, LABELS.tolist(), bias=bias)
    assert loss.dtype == "float32"


# Special values -------------------------------------------------------------------------------------------------------

CONTRACT_ROWS = {
    name: row for name, row in CONTRACT.items() if row.options.keys() <= {"where"} and len(row.x)
}
every_row = pytest.mark.parametrize("row", CONTRACT_ROWS.values(), ids=CONTRACT_ROWS)


@every_row
def test_every_row_of_the_contract_holds_of_a_product_for_every_label(backend, row):
    dtype, n = DTYPES.get(backend.name, "float64"), len(row.x)
    x, options = arguments(backend, row, dtype)
    features, labels = (
        backend.asarray(np.ones((n, 1)), dtype),
        backend.asarray(np.arange(n), "int64"),
    )
    weights = backend.xp.reshape(x, (n, 1))
    loss = backend.run(sm.linear_cross_entropy, features, weights, labels, **options)
    value = -np.array(row.log_softmax.value) if np.any(row.softmax.value) else np.zeros(n)
    if np.isnan(value).any() and not np.isinf(row.x).any():  # NaN beside a label out of the support
        value = np.full(n, np.nan)
    assert_is(value, loss, backend)


@pytest.mark.slow
@every_row
def test_every_row_of_the_contract_has_its_derivatives_by_the_scores_of_a_product(jax, row):
    n = len(row.x)
    x, where = (
        np.asarray(a, t) for a, t in ((row.x, float), (row.options.get("where", True), bool))
    )
    where = np.broadcast_to(where, x.shape) if row.options else None
    v = np.arange(3.0, 3.0 + n)
    gradients = np.reshape([of_label(row, label) for label in range(n)], (n, n))
    hvp = np.broadcast_to(times(row.softmax.jacobian, v), (n, n))
    expected = gradients, hvp, times(gradients, v)
    names = "gradient", "hvp", "jvp"
    found = derivatives_by_weights()(x[:, None], v[:, None], where)
    for name, due, actual in zip(names, expected, found, strict=True):
        # The products that end a derivative sum up n numbers of size v.
        bound = 1e-14 * v.sum()
        close = np.isclose(np.reshape(actual, due.shape), known(due), 1e-14, bound, equal_nan=True)
        assert (close | np.equal(due, None)).all(), (name, actual, due)


@cache
def derivatives_by_weights():
    """Derivatives of the loss for every label, by the weights that one feature, 1, makes the scores of."""
    import jax

    def derivatives(w, v, where):
        def of(label):
            def f(w):
                options = {} if where is None else {"where": where}
                return sm.linear_cross_entropy(jax.numpy.ones(1), w, label, **options)

            gradient = jax.grad(f)
            return *jax.jvp(gradient, (w,), (v,)), jax.jvp(f, (w,), (v,))[1]

        return jax.vmap(of)(jax.numpy.arange(len(w)))

    return jax.jit(derivatives)


def test_a_confident_example_has_a_small_loss_and_not_none(backend):
    features = backend.asarray([[20, 0]], "float32")
    weights = backend.asarray([[1, 0], [0, 1], [0, 0]], "float32")
    labels = backend.asarray([0], "int64")
    loss = backend.run(sm.linear_cross_entropy, features, weights, labels)
    assert f"{float(backend.to_numpy(loss)[0]):.3g}" == "4.12e-09"
    if backend.autodiff:
        gradient = backend.autodiff.grad(
            lambda f: sm.linear_cross_entropy(f, weights, labels).sum()
        )
        assert f"{float(backend.run(gradient, features)[0, 0]):.3g}" == "-4.12e-09"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loss_is_finite_where_only_the_gap_between_two_scores_overflows(backend, dtype):
    largest = float(np.finfo(dtype).max)
    features = backend.asarray([[largest]], dtype)
    weights = backend.asarray([[1.0]] * 99 + [[-1.0]], dtype)
    found = [
        backend.run(sm.linear_cross_entropy, features, weights, [label], label_smoothing=smoothing)
        for label, smoothing in ((0, 0.5), (99, 0.75))
    ]
    found = [float(backend.to_numpy(y)[0]) / largest for y in found]
    np.testing.assert_allclose(found, [0.01, 0.515], rtol=8 * np.finfo(dtype).eps)


def test_no_rows_and_one_class(backend):
    weights = backend.asarray(WEIGHTS)
    none = backend.run(
        sm.linear_cross_entropy,
        backend.asarray(np.zeros((0, H))),
        weights,
        backend.asarray([], "int64"),
    )
    assert tuple(none.shape) == (0,)
    labels = backend.asarray(np.zeros(ROWS), "int64")
    one = backend.run(sm.linear_cross_entropy, backend.asarray(FEATURES), weights[:1, :], labels)
    assert backend.to_numpy(one).tolist() == [0] * ROWS


def test_no_rows_have_gradients_of_0(jax):
    jnp = jax.numpy
    features, weights = jnp.zeros((0, H)), jnp.asarray(WEIGHTS)
    gradient = jax.grad(
        lambda *a: sm.linear_cross_entropy(*a, jnp.zeros(0, int)).sum(), argnums=(0, 1)
    )
    by_features, by_weights = gradient(features, weights)
    assert by_features.shape == (0, H)
    assert not by_weights.any()


def test_a_row_left_out_counts_for_nothing_whatever_stands_there(jax):
    jnp = jax.numpy
    valid = np.arange(ROWS) % 3 != 0
    bad = np.where(valid[:, None], FEATURES, np.nan)
    labels = np.where(valid, LABELS, -100)

    def loss(features, weights, labels, where=None):
        return sm.linear_cross_entropy(
            features, weights, labels, where=where, tile_bytes=1000
        ).sum()

    f = jax.grad(loss, argnums=(0, 1))
    actual = f(
        jnp.asarray(bad), jnp.asarray(WEIGHTS), jnp.asarray(labels), jnp.asarray(valid[:, None])
    )
    expected = f(*map(jnp.asarray, (FEATURES[valid], WEIGHTS, LABELS[valid])))
    assert not actual[0][~valid].any()
    np.testing.assert_allclose(actual[0][valid], expected[0], rtol=1e-13)
    np.testing.assert_allclose(actual[1], expected[1], rtol=1e-13, atol=1e-15)


def test_a_label_out_of_range_is_an_error_or_nan_in_its_own_row(backend):
    features, weights = backend.asarray(FEATURES[:2]), backend.asarray(WEIGHTS)
    labels = backend.asarray([1, CLASSES], "int64")
    if not backend.traced:
        with pytest.raises(ValueError, match=f"labels must lie in 0 to {CLASSES - 1}"):
            backend.run(sm.linear_cross_entropy, features, weights, labels)
        return
    loss = backend.to_numpy(backend.run(sm.linear_cross_entropy, features, weights, labels))
    assert np.isnan(loss).tolist() == [False, True]


def test_a_traced_label_out_of_range_makes_the_gradient_of_its_row_nan(jax):
    features, weights = jax.numpy.asarray(FEATURES[:2]), jax.numpy.asarray(WEIGHTS)
    f = jax.jit(jax.grad(lambda f, labels: sm.linear_cross_entropy(f, weights, labels).sum()))
    gradient = f(features, jax.numpy.asarray([1, -1]))
    assert np.isnan(gradient).tolist() == [[False] * H, [True] * H]


def test_a_label_on_a_masked_class_is_infinitely_far_with_a_finite_gradient(jax):
    features, weights = jax.numpy.asarray(FEATURES[:1]), jax.numpy.asarray(WEIGHTS)
    where = np.arange(CLASSES) != 5
    mask = jax.numpy.asarray(where)
    f = jax.value_and_grad(lambda f: sm.linear_cross_entropy(f, weights, [5], where=mask).sum())
    loss, gradient = f(features)
    assert loss == np.inf
    expected = sm.softmax(SCORES[0], where=where) @ WEIGHTS
    np.testing.assert_allclose(gradient[0], expected, rtol=1e-13)


# Accuracy -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.25])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [2, 256])
def test_the_loss_of_a_product_and_its_gradient_keep_the_budgets(jax, n, dtype, smoothing):
    for name in REGIMES:
        if smoothing and name == "alternating_huge":
            continue  # the difference of two scores is beyond the largest number, and so the loss inf
        x = regime(name, n, dtype, seeded(name, n))
        for label in {0, int(np.argmax(x))}:
            q = (1 - smoothing) * np.eye(n)[label] + smoothing / n  # exact, as n is a power of 2
            loss, gradient = loss_and_gradient()(x[:, None], label, smoothing)
            error = ulp_error(loss, truth.soft_cross_entropy(x, q), dtype, flush=flushed(n, True))
            assert error <= BUDGETS["cross_entropy"], (name, label)
            exact = truth.soft_cross_entropy_gradient(x, q)
            error = ulp_error(
                np.ravel(gradient), exact.value, dtype, scale=exact.entry_scale, flush=flushed(n)
            )
            assert error.max() <= BUDGETS["cross_entropy gradient"], (name, label)


@cache
def loss_and_gradient():
    """The loss of scores that one feature, 1, makes of the weights, and its gradient by these."""
    import jax

    def loss(weights, label, smoothing):
        features = jax.numpy.ones(1, weights.dtype)
        return sm.linear_cross_entropy(features, weights, label, label_smoothing=smoothing)

    return jax.jit(jax.value_and_grad(loss), static_argnums=2)


# Derivatives on any library -------------------------------------------------------------------------------------------

ARRAYS = (FEATURES / 3, WEIGHTS / 3, BIAS / 3, SOFT)
DIRECTIONS = tuple(RNG.standard_normal(a.shape) for a in ARRAYS)
NAMES = ("features", "weights", "bias")
CLOSE = {"rtol": 1e-12, "atol": CLASSES * ROWS * 2.0**-52}  # sums of products of numbers of size 1


def gradients(g, features, weights):
    """The cotangents of the factors for that of the scores."""
    return g @ weights, g.T @ features, g.sum(axis=0)


@pytest.mark.parametrize(
    ("tiling", "labels", "options"),
    [
        ("one row", LABELS, {}),
        ("some rows", LABELS, {"where": MASK[:, :1]}),
        ("some rows", SOFT, {"label_smoothing": 0.25}),
        ("all rows", SOFT, {}),
    ],
    ids=["one row", "some rows", "smoothing", "soft labels"],
)
def test_closed_form_derivatives_are_those_of_the_scores(backend, tiling, labels, options):
    (features, weights, bias), (df, dw, db) = ARRAYS[:3], DIRECTIONS[:3]
    scores, dz = features @ weights.T + bias, df @ weights.T + features @ dw.T + db
    y, pullback = sm.vjp(sm.cross_entropy, scores, labels, **options)
    dy = sm.jvp(sm.cross_entropy, scores, dz, labels, **options)[1]
    g, dg = pullback(np.ones(ROWS)), sm.hvp(sm.cross_entropy, scores, dz, labels, **options)
    change = *gradients(g, df, dw)[:2], np.zeros(CLASSES)
    expected = (
        y,
        *gradients(pullback(COTANGENTS), features, weights),
        dy,
        *(a + b for a, b in zip(gradients(dg, features, weights), change, strict=True)),
    )

    def derivatives(features, weights, bias, labels, u, *v, **options):
        options |= {"bias": bias, "tile_bytes": TILES[tiling], "argnames": NAMES}
        function = sm.linear_cross_entropy
        y, pullback = sm.vjp(function, features, weights, labels, **options)
        dy = sm.jvp(function, features, v, weights, labels, **options)[1]
        return y, *pullback(u), dy, *sm.hvp(function, features, v, weights, labels, **options)

    arrays = (*ARRAYS[:3], labels, COTANGENTS, *DIRECTIONS[:3])
    options = {n: a if isinstance(a, float) else on(backend, a, None) for n, a in options.items()}
    actual = backend.run(derivatives, *(on(backend, a, "float64") for a in arrays), **options)
    for e, a in zip(expected, actual, strict=True):
        assert e.shape == tuple(a.shape)
        np.testing.assert_allclose(backend.to_numpy(a), e, **CLOSE)


def test_closed_form_derivatives_ignore_what_stands_in_a_row_left_out(backend):
    valid = np.arange(ROWS) % 3 != 0
    bad, labels = np.where(valid[:, None], FEATURES, np.nan), np.where(valid, LABELS, -100)

    def derivatives(features, weights, labels, u, *v, **options):
        options |= {"tile_bytes": TILES["some rows"], "argnames": NAMES[:2]}
        function = sm.linear_cross_entropy
        y, pullback = sm.vjp(function, features, weights, labels, **options)
        dy = sm.jvp(function, features, v, weights, labels, **options)[1]
        of_x, of_w = pullback(u)
        h_x, h_w = sm.hvp(function, features, v, weights, labels, **options)
        return y, dy, of_x, h_x, of_w, h_w

    arrays = (bad, WEIGHTS / 3, labels, COTANGENTS, bad, WEIGHTS)
    where = backend.asarray(valid[:, None], None)
    found = backend.run(derivatives, *(on(backend, a, "float64") for a in arrays), where=where)
    short = (a[valid] if len(a) == ROWS else a for a in (FEATURES, *arrays[1:4], FEATURES, WEIGHTS))
    expected = derivatives(*short)
    for e, a in zip(expected, map(backend.to_numpy, found), strict=True):
        of_rows = len(a) == ROWS
        assert not of_rows or not a[~valid].any()
        np.testing.assert_allclose(a[valid] if of_rows else a, e, **CLOSE)


def test_no_rows_have_closed_form_gradients_of_0(backend):
    features, weights = backend.asarray(np.zeros((0, H))), backend.asarray(WEIGHTS)

    def gradients(features, weights, labels):
        y, pullback = sm.vjp(sm.linear_cross_entropy, features, weights, labels, argnames=NAMES[:2])
        return pullback(y)

    found = backend.run(gradients, features, weights, backend.asarray([], "int64"))
    assert [tuple(a.shape) for a in found] == [(0, H), (CLASSES, H)]
    assert not backend.to_numpy(found[1]).any()


def test_the_first_argument_is_differentiated_where_no_name_is_given(backend):
    arrays = [on(backend, a, "float64") for a in (*ARRAYS[:2], LABELS, COTANGENTS, DIRECTIONS[0])]
    function = sm.linear_cross_entropy

    def derivatives(argnames, features, weights, labels, u, v):
        y, pullback = sm.vjp(function, features, weights, labels, argnames=argnames)
        dy = sm.jvp(function, features, v, weights, labels, argnames=argnames)[1]
        return y, pullback(u), dy, sm.hvp(function, features, v, weights, labels, argnames=argnames)

    expected = backend.run(derivatives, "features", *arrays)
    actual = backend.run(derivatives, None, *arrays)
    assert all(
        np.array_equal(*map(backend.to_numpy, pair)) for pair in zip(expected, actual, strict=True)
    )


def test_the_jacobian_has_the_gradients_of_the_examples_on_its_diagonal(backend):
    features, weights, labels = (on(backend, a, "float64") for a in (*ARRAYS[:2], LABELS))
    found = backend.to_numpy(
        backend.run(sm.jacobian, sm.linear_cross_entropy, features, weights, labels)
    )
    g = sm.vjp(sm.cross_entropy, ARRAYS[0] @ ARRAYS[1].T, LABELS)[1](np.ones(ROWS)) @ ARRAYS[1]
    np.testing.assert_allclose(found, np.eye(ROWS)[:, :, None] * g, **CLOSE)


def test_what_the_caller_writes_before_pulling_back_does_not_matter():
    features, weights = FEATURES.copy(), WEIGHTS.copy()
    expected = sm.vjp(sm.linear_cross_entropy, features, weights, LABELS)[1](COTANGENTS)
    _, pullback = sm.vjp(sm.linear_cross_entropy, features, weights, LABELS)
    features[:], weights[:] = np.nan, np.nan
    assert np.array_equal(expected, pullback(COTANGENTS))


def test_closed_form_gradients_keep_the_dtypes_of_the_factors(backend):
    if not backend.has("float16"):
        pytest.skip(f"{backend.name} has no float16")
    features, weights = (backend.asarray(a, "float16") for a in (FEATURES, WEIGHTS))
    labels, bias = backend.asarray(LABELS, None), backend.asarray(BIAS, "float32")

    def gradients(features, weights, bias, labels):
        function, options = sm.linear_cross_entropy, {"bias": bias, "argnames": NAMES}
        y, pullback = sm.vjp(function, features, weights, labels, **options)
        return pullback(backend.xp.ones_like(y))

    found = backend.run(gradients, features, weights, bias, labels)
    assert [str(a.dtype).rpartition(".")[2] for a in found] == ["float16", "float16", "float32"]


BAD_NAMES = {
    "unknown": ("labels", ValueError, "argnames must be one of features, weights, bias or a tuple"),
    "twice": (("bias", "bias"), ValueError, "argnames must be one of features"),
    "none": ((), ValueError, "argnames must be one of features"),
    "a list": (["bias"], ValueError, r"or a tuple of several, got \['bias'\]"),
    "a number": (0, ValueError, "argnames must be one of features"),
}


@pytest.mark.parametrize(("argnames", "error", "message"), BAD_NAMES.values(), ids=BAD_NAMES)
def test_bad_names_are_refused(argnames, error, message):
    with pytest.raises(error, match=message):
        sm.vjp(sm.linear_cross_entropy, FEATURES, WEIGHTS, LABELS, bias=BIAS, argnames=argnames)


def test_a_factor_that_is_not_there_has_no_derivative():
    with pytest.raises(ValueError, match="argnames must be one of features, weights or a tuple"):
        sm.vjp(sm.linear_cross_entropy, FEATURES, WEIGHTS, LABELS, argnames="bias")


def test_functions_of_scores_are_differentiated_by_their_first_argument_alone():
    with pytest.raises(ValueError, match="argnames must be 'x', as softmax is differentiated by x"):
        sm.vjp(sm.softmax, SCORES, temperature=2.0, argnames="temperature")
    p, pullback = sm.vjp(sm.softmax, SCORES, argnames="x")
    assert np.array_equal(pullback(p), sm.vjp(sm.softmax, SCORES)[1](p))


@pytest.mark.parametrize("v", [FEATURES, (FEATURES,), (FEATURES, WEIGHTS, BIAS)])
def test_tangents_are_as_many_as_their_names(v):
    names = ("features", "weights")
    with pytest.raises(TypeError, match="v must be a tuple of arrays, one for each of features, w"):
        sm.jvp(sm.linear_cross_entropy, FEATURES, v, WEIGHTS, LABELS, argnames=names)


def test_a_tangent_that_does_not_fit_is_named():
    names, v = ("features", "weights"), (FEATURES, WEIGHTS[1:])
    with pytest.raises(ValueError, match=r"v of weights must have shape \(29, 3\), got \(28, 3\)"):
        sm.jvp(sm.linear_cross_entropy, FEATURES, v, WEIGHTS, LABELS, argnames=names)


# Derivatives of the engines -------------------------------------------------------------------------------------------


def leaves(tree):
    """The arrays of tuples of tuples."""
    return [a for part in tree for a in leaves(part)] if isinstance(tree, tuple) else [tree]


def tiled_loss(*arrays, where=None, smoothing=0.0):
    features, weights, bias, *soft = arrays
    return sm.linear_cross_entropy(
        features,
        weights,
        *(soft or [LABELS.tolist()]),
        bias=bias,
        where=where,
        label_smoothing=smoothing,
        tile_bytes=TILES["some rows"],
    )


def formed_loss(*arrays, where=None, smoothing=0.0):
    features, weights, bias, *soft = arrays
    scores = features @ weights.T + bias
    labels = soft or [LABELS.tolist()]
    return sm.cross_entropy(scores, *labels, where=where, label_smoothing=smoothing)


def grad(engine, f, reduce):
    """The gradient of a reduction of f by all its arguments."""
    return lambda *a: engine.grad(lambda *a: reduce(f(*a)), argnums=tuple(range(len(a))))(*a)


def mean(y):
    return y.mean()


def weighted(y):
    return sum(u * y[i] for i, u in enumerate(COTANGENTS.tolist()))


TRANSFORMS = {
    "gradient of a mean": lambda engine, f, a, v: grad(engine, f, mean)(*a),
    "gradient of another sum": lambda engine, f, a, v: grad(engine, f, weighted)(*a),
    "jvp": lambda engine, f, a, v: engine.jvp(f, a, v),
    "linearize": lambda engine, f, a, v: engine.linearize(f, *a)[1](*v),
    "forward over reverse": lambda engine, f, a, v: engine.jvp(grad(engine, f, mean), a, v)[1],
    "forward over reverse, another sum": lambda engine, f, a, v: engine.jvp(
        grad(engine, f, weighted), a, v
    )[1],
    "reverse over reverse": lambda engine, f, a, v: engine.vjp(grad(engine, f, mean), *a)[1](v),
    "reverse over forward": lambda engine, f, a, v: grad(
        engine, lambda *a: engine.jvp(f, a, v)[1], weighted
    )(*a),
    "a Jacobian for each example": lambda engine, f, a, v: engine.jacrev(f, argnums=1)(*a),
    "vmap of gradients": lambda engine, f, a, v: engine.vmap(
        lambda scale, a: grad(engine, f, mean)(*(scale * b for b in a)), (0, None)
    )(2 * abs(v[0][:2, 0]), a),
    "vmap over features": lambda engine, f, a, v: engine.vmap(
        lambda x: grad(engine, f, weighted)(x, *a[1:])
    )(a[0][None] / 2),
}
SOFT_TOO = ("gradient of a mean", "jvp", "forward over reverse", "vmap of gradients")


@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node")  # linearize of PyTorch
@pytest.mark.parametrize(
    ("transform", "soft"),
    [
        pytest.param(transform, soft, id=f"{name}, soft labels" if soft else name)
        for name, transform in TRANSFORMS.items()
        for soft in (False, True)
        if not soft or name in SOFT_TOO
    ],
)
def test_every_derivative_is_that_of_the_scores(differentiable, transform, soft):
    n = 4 if soft else 3
    arrays, directions = (tuple(map(differentiable.asarray, a[:n])) for a in (ARRAYS, DIRECTIONS))
    options = {"where": differentiable.asarray(MASK[:, :1], None), "smoothing": 0.25}

    def of(f):  # compiled as a whole where that is faster than piece by piece
        f, engine = partial(f, **options), differentiable.autodiff
        compiled = engine.jit if differentiable.traced else lambda f: f
        return leaves(compiled(lambda a, v: transform(engine, f, a, v))(arrays, directions))

    for e, a in zip(of(formed_loss), of(tiled_loss), strict=True):
        assert e.shape == a.shape
        np.testing.assert_allclose(a, e, **CLOSE)


@pytest.mark.parametrize("soft", [False, True], ids=["numbers", "soft"])
def test_pytorch_finds_first_and_second_derivatives_in_both_modes(torch, soft):
    arrays = [torch.tensor(a[:5], requires_grad=True) for a in ARRAYS[: 4 if soft else 3]]
    weights, bias = (torch.tensor(a[:6], requires_grad=True) for a in ARRAYS[1:3])
    arrays[1:3] = weights, bias
    labels = torch.tensor(LABELS[:5] % 6)
    if soft:
        arrays[3] = torch.tensor(SOFT[:5, :6], requires_grad=True)

    def f(features, weights, bias, labels=labels):
        options = {"bias": bias, "label_smoothing": 0.25, "tile_bytes": 600}
        return sm.linear_cross_entropy(features, weights, labels, **options)

    assert torch.autograd.gradcheck(f, arrays, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(f, arrays, check_fwd_over_rev=True)


def test_autocast_of_pytorch_rounds_no_factor(torch):
    features, weights = (torch.tensor(a / 3, dtype=torch.float32) for a in (FEATURES, WEIGHTS))
    labels = torch.from_numpy(LABELS)

    def derivatives():
        def loss(*arrays):
            return sm.linear_cross_entropy(*arrays, labels).sum()

        arrays = features, weights
        forward = torch.func.jvp(loss, arrays, arrays)
        backward = loss(features.requires_grad_(), weights.requires_grad_())
        arrays = features.detach(), weights.detach()
        y, pullback = sm.vjp(sm.linear_cross_entropy, *arrays, labels)
        found = forward, torch.autograd.grad(backward, (features, weights)), (y, pullback(y))
        return [a.detach() for pair in found for a in pair]

    expected = derivatives()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = derivatives()
    assert all(e.dtype == a.dtype for e, a in zip(expected, actual, strict=True))
    assert all(torch.equal(e, a) for e, a in zip(expected, actual, strict=True))


def test_the_compiler_of_pytorch_finds_one_graph(torch):
    labels = torch.from_numpy(LABELS)

    def loss(features, weights, bias):
        options = {"bias": bias, "tile_bytes": TILES["some rows"]}
        return sm.linear_cross_entropy(features, weights, labels, **options).mean()

    def gradients(*arrays):
        return torch.func.grad(loss, argnums=(0, 1, 2))(*arrays)

    arrays = tuple(map(torch.tensor, ARRAYS[:3]))
    compiled = torch.compile(gradients, fullgraph=True, backend="aot_eager")
    for e, a in zip(gradients(*arrays), compiled(*arrays), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-12, atol=1e-15)


def in_a_loop(jax, f):
    """The mean of f over halved and whole features, in a loop of JAX."""

    def loop(features, *others):
        return jax.lax.scan(
            lambda total, scale: (total + f(scale * features, *others).mean(), None),
            0.0,
            jax.numpy.asarray([0.5, 1.0]),
        )[0]

    return loop


def saving_products(jax, f):
    return jax.checkpoint(f, policy=jax.checkpoint_policies.dots_saveable)


COMPOSITIONS = {
    "checkpoint": lambda jax, f, *a: grad(jax, jax.checkpoint(f), mean)(*a),
    "checkpoint that saves": lambda jax, f, *a: grad(jax, saving_products(jax, f), mean)(*a),
    "tangent of a checkpoint": lambda jax, f, *a: jax.jvp(jax.checkpoint(f), a, a),
    "second derivative of a checkpoint": lambda jax, f, *a: jax.jvp(
        grad(jax, jax.checkpoint(f), mean), a, a
    )[1],
    "loop": lambda jax, f, *a: grad(jax, in_a_loop(jax, f), mean)(*a),
    "checkpoint of a loop": lambda jax, f, *a: grad(jax, jax.checkpoint(in_a_loop(jax, f)), mean)(
        *a
    ),
    "loop of checkpoints": lambda jax, f, *a: grad(jax, in_a_loop(jax, jax.checkpoint(f)), mean)(
        *a
    ),
    "tangents, twice many": lambda jax, f, *a: jax.jacfwd(jax.jacfwd(f, 2), 2)(*a),
}


@pytest.mark.parametrize("composed", COMPOSITIONS.values(), ids=COMPOSITIONS)
def test_checkpoints_loops_and_batches_change_no_derivative(jax, composed):
    arrays = tuple(map(jax.numpy.asarray, ARRAYS[:3]))
    expected, actual = (
        jax.tree.leaves(jax.jit(partial(composed, jax, f))(*arrays))
        for f in (formed_loss, tiled_loss)
    )
    for e, a in zip(expected, actual, strict=True):
        np.testing.assert_allclose(a, e, **CLOSE)


@pytest.mark.parametrize("argnums", [0, 1, 2, (0, 2)])
def test_any_of_the_operands_may_be_constant(jax, argnums):
    arrays = tuple(map(jax.numpy.asarray, ARRAYS[:3]))
    expected, actual = (
        jax.tree.leaves(jax.grad(lambda *a, f=f: f(*a).mean(), argnums)(*arrays))
        for f in (formed_loss, tiled_loss)
    )
    for e, a in zip(expected, actual, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-12, atol=1e-15)


def test_nobody_sees_in_the_value_that_it_is_differentiated(jax):
    rng = np.random.default_rng(1)
    features, weights = (
        jax.numpy.asarray(rng.standard_normal(shape), "float32") for shape in ((50, 20), (300, 20))
    )
    labels = jax.numpy.asarray(rng.integers(0, 300, 50))

    def f(features, weights):
        return sm.linear_cross_entropy(features, weights, labels, tile_bytes=100_000)

    y = f(features, weights)
    assert np.array_equal(y, jax.vjp(f, features, weights)[0])
    assert np.array_equal(y, jax.jvp(f, (features, weights), (features, weights))[0])
    assert np.array_equal(y, jax.jit(lambda *a: jax.vjp(f, *a)[0])(features, weights))


def test_gradients_in_bfloat16_come_from_exact_products_and_two_roundings(jax):
    jnp = jax.numpy
    arrays = [jnp.asarray(a, "bfloat16") for a in (FEATURES, WEIGHTS)]

    def loss(features, weights):
        zero = jnp.zeros(CLASSES, "float32")
        return sm.linear_cross_entropy(features, weights, LABELS.tolist(), bias=zero).sum()

    by_features, by_weights = jax.grad(loss, (0, 1))(*arrays)
    assert by_features.dtype == by_weights.dtype == "bfloat16"
    g = sm.softmax(SCORES) - np.eye(CLASSES)[LABELS]
    u = 2.0**-8  # p - q is rounded before the product, and the product at the end
    for actual, a, b in ((by_features, g, WEIGHTS), (by_weights, g.T, FEATURES)):
        bound = 1.01 * u * (np.abs(a) @ np.abs(b) + np.abs(a @ b))
        assert (np.abs(np.asarray(actual, float) - a @ b) <= bound).all()


# Memory ---------------------------------------------------------------------------------------------------------------


def temporaries(jax, n, classes, h=64, tile_bytes=1 << 20):
    """The bytes of temporaries of value and gradient, as XLA counts them."""
    jnp = jax.numpy
    shapes = (n, h), (classes, h)
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    labels = jax.ShapeDtypeStruct((n,), jnp.int32)

    def loss(features, weights, labels):
        return sm.linear_cross_entropy(features, weights, labels, tile_bytes=tile_bytes).mean()

    compiled = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*arrays, labels).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_temporaries_stay_within_the_budget_however_many_rows_and_classes(jax):
    budget = 1 << 20
    sizes = {"": (512, 1000), "classes": (512, 8000), "rows": (4096, 1000), "odd": (517, 8003)}
    used = {name: temporaries(jax, *size, tile_bytes=budget) for name, size in sizes.items()}
    # Beside the tiles there is what has one number for each row or class.
    assert {
        name: size <= budget + 16 * sum(sizes[name]) for name, size in used.items()
    } == dict.fromkeys(sizes, True)


def test_nothing_that_pytorch_saves_has_the_size_of_the_scores(torch):
    torch.manual_seed(0)
    features, weights = torch.randn(200, 3), torch.randn(3000, 3)
    saved = []

    def pack(a):
        saved.append(a.numel())
        return a

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda a: a):
        arrays = features.requires_grad_(), weights.requires_grad_()
        labels = torch.zeros(200, dtype=int)
        loss = sm.linear_cross_entropy(*arrays, labels, tile_bytes=1 << 18).mean()
    loss.backward()
    assert max(saved) == weights.numel()


def test_the_memory_of_numpy_stays_within_the_budget():
    n, classes, budget = 2000, 2000, 1 << 20
    rng = np.random.default_rng(0)
    features, weights = rng.standard_normal((n, 8)), rng.standard_normal((classes, 8))
    labels = rng.integers(0, classes, n)

    def gradients():
        options = {"tile_bytes": budget, "argnames": NAMES[:2]}
        y, pullback = sm.vjp(sm.linear_cross_entropy, features, weights, labels, **options)
        return pullback(np.ones_like(y))

    gradients()
    tracemalloc.start()
    gradients()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The scores would take 32 MB. Beside the tile there are copies of the factors, and the gradients.
    assert peak < 4 * budget


# Bad input ------------------------------------------------------------------------------------------------------------

GOOD = {"features": FEATURES, "weights": WEIGHTS, "labels": LABELS}
BAD = {
    "features a number": ({"features": 1.0}, ValueError, "features must have shape"),
    "features complex": ({"features": FEATURES * 1j}, TypeError, "features must be real"),
    "features a string": ({"features": "abc"}, TypeError, "features must be an array"),
    "weights missing": ({"weights": None}, TypeError, "weights must be an array of shape"),
    "weights a number": ({"weights": 2.0}, TypeError, "weights must be an array of shape"),
    "weights of another width": (
        {"weights": WEIGHTS[:, :2]},
        ValueError,
        r"weights must have shape \(n, 3\)",
    ),
    "weights of one axis": ({"weights": WEIGHTS[0]}, ValueError, "weights must have shape"),
    "weights complex": ({"weights": WEIGHTS * 1j}, TypeError, "weights must be real"),
    "labels missing": ({"labels": None}, TypeError, "labels must be"),
    "labels boolean": (
        {"labels": LABELS > 1},
        TypeError,
        "labels must be integer or real floating",
    ),
    "labels too few": (
        {"labels": LABELS[1:]},
        ValueError,
        r"integer labels must have shape \(13,\)",
    ),
    "soft labels too narrow": (
        {"labels": SOFT[:, 1:]},
        ValueError,
        r"floating labels must have shape \(13, 29\)",
    ),
    "bias too short": ({"bias": BIAS[1:]}, ValueError, r"bias must have shape \(29,\)"),
    "bias a number": ({"bias": 1.0}, ValueError, r"bias must have shape \(29,\)"),
    "bias complex": ({"bias": BIAS * 1j}, TypeError, "bias must be real"),
    "where not boolean": ({"where": SOFT}, TypeError, "where must be boolean"),
    "where that does not fit": ({"where": MASK[1:]}, ValueError, "where of shape"),
    "smoothing above 1": ({"label_smoothing": 1.5}, ValueError, "label_smoothing must lie in"),
    "smoothing no number": (
        {"label_smoothing": "x"},
        TypeError,
        "label_smoothing must be a number",
    ),
    "tile_bytes 0": ({"tile_bytes": 0}, ValueError, "tile_bytes must be at least 1"),
    "tile_bytes a fraction": ({"tile_bytes": 0.5}, TypeError, "tile_bytes must be an int"),
}


@pytest.mark.parametrize(("bad", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input_names_the_argument(bad, error, message):
    arguments = GOOD | bad
    arrays = [arguments.pop(name) for name in GOOD]
    with pytest.raises(error, match=message):
        sm.linear_cross_entropy(*arrays, **arguments)


def test_arrays_of_two_libraries_do_not_mix(jax):
    with pytest.raises(TypeError, match="features and weights must be arrays of one library"):
        sm.linear_cross_entropy(FEATURES, jax.numpy.asarray(WEIGHTS), LABELS)
