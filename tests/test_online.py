"""A softmax seen in pieces is the softmax of the whole: any split, any order, any grouping, any library."""

import functools
import itertools
import math
import multiprocessing
import pickle
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
import truth
from cases import CASES
from conftest import seldom
from contract import CONTRACT, INF, NAN
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from regimes import REGIMES, regime, seeded
from test_contract import DTYPES, arguments, assert_is, pairs_of_nan_and_inf
from ulps import FORMATS, ulp_error

import softmaxes as sm
from softmaxes import online
from softmaxes._cli.budgets import BUDGETS, budget

# Any split ------------------------------------------------------------------------------------------------------------

ROWS = {name: row for name, row in CONTRACT.items() if row.options.keys() <= {"where"}}
every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


@pytest.fixture
def dtype(backend):
    return DTYPES.get(backend.name, "float64")


def seen(x, *cuts, xp, where=None, values=None):
    """Return the state of x, cut along its last axis and seen from left to right."""
    state = online.empty(mean_shape=None if values is None else (), xp=xp)
    for start, stop in itertools.pairwise((0, *cuts, x.shape[-1])):
        part = (..., slice(start, stop))
        options = {"where": where, "values": values}
        options = {name: a if a is None else a[part] for name, a in options.items()}
        state = online.update(state, x[part], **options)
    return state


def split(x, *, xp, where=None):
    """Return logsumexp and softmax of x, cut in two at every position."""
    found = []
    for cut in cuts_of(x):
        masks = (None, None) if where is None else (where[:cut], where[cut:])
        parts = zip((x[:cut], x[cut:]), masks, strict=True)
        states = [online.update(online.empty(xp=xp), part, where=mask) for part, mask in parts]
        state = online.merge(*(states if cut % 2 else states[::-1]))
        found.append((online.logsumexp(state), online.softmax(x, state, where=where)))
    return found


def cuts_of(x):
    """Return every position to cut x at; after the last entry, the second piece is empty."""
    return range(min(1, x.shape[-1]), x.shape[-1] + 1)


@every_row
def test_every_row_of_the_contract_holds_however_it_is_split(backend, dtype, row):
    x, options = arguments(backend, row, dtype)
    found = backend.run(split, x, xp=backend.xp, **options)
    for cut, (y, p) in zip(cuts_of(x), found, strict=True):
        assert y.dtype == p.dtype == x.dtype
        assert_is(row.logsumexp.value, y, backend, f"logsumexp, cut at {cut}")
        assert_is(row.softmax.value, p, backend, f"softmax, cut at {cut}")


def test_a_NaN_leaves_nothing_wherever_it_and_inf_stand(backend, dtype):
    x = backend.asarray(pairs_of_nan_and_inf(33, dtype), dtype)
    state = backend.run(seen, x, 20, xp=backend.xp)
    assert np.isnan(backend.to_numpy(online.logsumexp(state))).all()
    assert np.isnan(backend.to_numpy(online.softmax(x, state))).all()


@every_row
def test_every_row_of_the_contract_has_its_derivatives_however_it_is_split(jax, row):
    if np.sum(np.equal(row.x, INF) & row.options.get("where", True)) > 1:
        pytest.skip("no limit exists, and in different pieces none of them knows")
    x, where = (
        np.asarray(a, t) for a, t in ((row.x, float), (row.options.get("where", True), bool))
    )
    expected = row.logsumexp.jacobian, row.logsumexp.hessian, row.softmax.jacobian
    for cut in range(1, x.size) or [0]:
        found = derivatives_of(cut)(x, np.broadcast_to(where, x.shape))
        for exact, actual in zip(expected, found, strict=True):
            assert_near(exact, np.asarray(actual), f"cut at {cut}")


@functools.cache
def derivatives_of(cut):
    """Return the gradient and the Hessian of logsumexp, and the Jacobian of softmax, as one function."""
    import jax

    def y(x, where):
        return online.logsumexp(seen(x, cut, xp=jax.numpy, where=where))

    def p(x, where):
        return online.softmax(x, seen(x, cut, xp=jax.numpy, where=where), where=where)

    derivatives = jax.grad(y), jax.jacfwd(jax.grad(y)), jax.jacrev(p)
    return jax.jit(lambda x, where: [derivative(x, where) for derivative in derivatives])


def assert_near(expected, actual, name):
    """Assert equality to a few units of the last place of 1: these derivatives are not centred."""
    known = ~np.equal(expected, None)
    expected = np.where(known, expected, 0).astype(float)
    np.testing.assert_array_equal(np.isnan(actual)[known], np.isnan(expected)[known], name)
    error = np.nan_to_num(np.abs(actual - expected))
    assert (error <= BUDGETS["softmax JVP"] * np.spacing(1.0))[known].all(), (name, actual)


# Any length -----------------------------------------------------------------------------------------------------------


def _drift(step, start=0.0):
    return lambda n, form: start + step * np.arange(n)


# Every entry is a new maximum, and rescales a sum in units of the maximum; or it is the only one.
DRIFTS = {
    "rising by an ulp": lambda n, form: 1.0 + np.arange(n) * 2.0 ** (1 - form.bits),
    "rising by 1e-3": _drift(1e-3),
    "rising by 0.1": _drift(0.1),
    "rising through the edge of the grid": _drift(2e-5, 7.9),
    "falling by 1e-3": _drift(-1e-3),
    "small ones first": lambda n, form: np.r_[np.full(n - 1, -30.1), 0.0],
    "small ones last": lambda n, form: np.r_[0.0, np.full(n - 1, -30.1)],
}


@functools.cache
def streams(n, dtype):
    """Return one stream a row, the truths of logsumexp with its scale and of softmax, and the name of each."""
    x = {name: regime(name, n, dtype, seeded(name, n)) for name in REGIMES}
    x |= {name: drift(n, FORMATS[dtype]).astype(dtype) for name, drift in DRIFTS.items()}
    y, scale, p = (
        truth.stack([exact(row) for row in x.values()])
        for exact in (truth.logsumexp, CASES["logsumexp"].scale, truth.softmax)
    )
    return np.stack(list(x.values())), y, scale, p, list(x)


def assert_within_budget(state, x, n, dtype, flush=None):
    _, y, scale, p, names = streams(n, dtype)
    for name, error in {
        "logsumexp": ulp_error(online.logsumexp(state), y, dtype, scale=scale, flush=flush),
        "softmax": ulp_error(online.softmax(x, state), p, dtype, flush=flush).max(axis=-1),
    }.items():
        assert error.max() <= budget(name, dtype), (name, names[error.argmax()])


@pytest.mark.parametrize(("dtype", "n"), [seldom("float32", 10_000), ("float64", 1000)])
def test_a_stream_of_single_entries_keeps_the_budgets(dtype, n):
    x = streams(n, dtype)[0]
    pieces = (x[:, i : i + 1] for i in range(n))
    assert_within_budget(functools.reduce(online.update, pieces, online.empty()), x, n, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [7, 64, 1000, 10_000])
def test_a_stream_of_blocks_keeps_the_budgets(dtype, size):
    x = streams(10_000, dtype)[0]
    pieces = np.split(x, range(size, 10_000, size), axis=-1)
    assert_within_budget(functools.reduce(online.update, pieces, online.empty()), x, 10_000, dtype)


def scanned(x):
    """Return the state of x by lax.scan, an entry at a time."""
    import jax

    first = online.empty(x.shape[:-1], dtype=x.dtype, xp=jax.numpy)
    entries = jax.numpy.moveaxis(x, -1, 0)[..., None]
    return jax.lax.scan(lambda state, x: (online.update(state, x), None), first, entries)[0]


def accumulated(x):
    """Return the states of x up to every entry, by lax.associative_scan."""
    import jax

    single = online.update(online.empty(xp=jax.numpy), x[..., None])
    return jax.lax.associative_scan(online.merge, single, axis=-1)


def last_accumulated(x):
    return type(state := accumulated(x))(*(a if a is None else a[..., -1] for a in state))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_scan_of_single_entries_keeps_the_budgets(jax, dtype):
    x = jax.numpy.asarray(streams(10_000, dtype)[0])
    assert_within_budget(jax.jit(scanned)(x), x, 10_000, dtype, flush=10_000)


@pytest.mark.parametrize(
    ("states", "n", "dtype"),
    [(scanned, 1000, "float32"), (last_accumulated, 20, "float64")],
)
def test_the_gradient_through_a_scan_is_softmax(jax, states, n, dtype):
    rows, _, _, p, names = streams(n, dtype)
    gradient = jax.jit(jax.grad(lambda x: online.logsumexp(states(x)).sum()))
    error = ulp_error(gradient(jax.numpy.asarray(rows)), p, dtype, flush=n).max(axis=-1)
    assert error.max() <= budget("logsumexp gradient", dtype), names[error.argmax()]


def test_an_associative_scan_is_the_cumulative_logsumexp(jax):
    rows, *_, names = streams(40, "float32")
    y = np.asarray(jax.jit(lambda x: online.logsumexp(accumulated(x)))(jax.numpy.asarray(rows)))
    for i in range(40):
        exact, scale = (
            truth.stack([f(row[: i + 1]) for row in rows])
            for f in (truth.logsumexp, CASES["logsumexp"].scale)
        )
        error = ulp_error(y[:, i], exact, "float32", scale=scale, flush=40)
        assert error.max() <= BUDGETS["logsumexp"], names[error.argmax()]


def test_a_scale_inside_jit_changes_nothing(jax):
    def scaled(x):
        state = seen(x * 3.3, 7, 8, xp=jax.numpy)
        return online.logsumexp(state), online.softmax(x * 3.3, state)

    for size in (1.0, 1e4, 1e9, 1e20):
        x = np.random.default_rng(9).normal(scale=size, size=(50, 20)).astype("float32")
        for expected, actual in zip(scaled(jax.numpy.asarray(x)), jax.jit(scaled)(x), strict=True):
            np.testing.assert_array_equal(np.asarray(actual), np.asarray(expected))


# Any order and any grouping -------------------------------------------------------------------------------------------

pieces = st.lists(
    arrays(
        float,
        st.integers(0, 8),
        elements=st.floats(-1e3, 1e3)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.just(-INF),
    ),
    min_size=1,
    max_size=12,
)


def of(x):
    return online.update(online.empty(), x)


@given(pieces, st.randoms(use_true_random=False))
def test_any_order_and_any_grouping_keep_the_budgets(parts, random):
    states = [of(part) for part in parts]
    while len(states) > 1:
        random.shuffle(states)
        states.append(online.merge(states.pop(), states.pop()))
    (state,) = states
    x = np.concatenate(parts)
    kept = x[x > -INF]
    p = online.softmax(x, state)
    assert (p[x == -INF] == 0).all()
    if not kept.size:
        assert online.logsumexp(state) == -INF
        return
    scale = CASES["logsumexp"].scale(kept)
    error = ulp_error(online.logsumexp(state), truth.logsumexp(kept), "float64", scale=scale)
    assert error <= BUDGETS["logsumexp"]
    assert ulp_error(p[x > -INF], truth.softmax(kept), "float64").max() <= BUDGETS["softmax"]


any_piece = arrays(float, st.integers(0, 8), elements=st.floats(allow_nan=True, width=64))


@given(any_piece, any_piece)
def test_merge_is_commutative_to_the_bit(a, b):
    assert_same_bits(online.merge(of(a), of(b)), online.merge(of(b), of(a)))


@given(any_piece)
def test_the_empty_state_is_the_identity_to_the_bit(x):
    state = online.merge(of(x), of(x[:2]))
    assert_same_bits(state, online.merge(state, online.empty()))
    assert_same_bits(state, online.merge(online.empty(), state))
    assert_same_bits(state, online.update(state, x, where=np.False_))


@given(any_piece, any_piece, any_piece)
def test_merge_is_associative_at_every_special_value(a, b, c):
    left = online.merge(online.merge(of(a), of(b)), of(c))
    right = online.merge(of(a), online.merge(of(b), of(c)))
    x = np.concatenate([a, b, c])
    for found in ((online.logsumexp(s), online.softmax(x, s)) for s in (left, right)):
        whole = sm.logsumexp(x), sm.softmax(x)
        for actual, expected in zip(found, whole, strict=True):
            special = ~np.isfinite(expected) | (expected == 0)
            np.testing.assert_array_equal(
                np.where(special, actual, 0), np.where(special, expected, 0)
            )


def assert_same_bits(expected, actual):
    for one, other in zip(expected, actual, strict=True):
        np.testing.assert_array_equal(other, one, strict=True)


# Values ---------------------------------------------------------------------------------------------------------------


def exact_mean(x, v):
    """Return the mean of v under softmax(x) and the mean of |v| as fractions."""
    parts = (part.tolist() for part in truth.softmax(x))
    p = [(Fraction(hi) + Fraction(lo)) * Fraction(2) ** e for hi, lo, e in zip(*parts, strict=True)]
    v = [Fraction(float(v_i)) for v_i in v]
    return sum(map(Fraction.__mul__, p, v)), sum(map(Fraction.__mul__, p, map(abs, v)))


def mean_error(actual, x, v, dtype):
    """Return the error of a mean in ulp of sum p |v|."""
    exact, scale = exact_mean(x, v)
    if scale == 0:
        return 0.0 if actual == 0 else INF
    form = FORMATS[dtype]
    exponent = max(math.frexp(float(scale))[1] - 1, form.min_exponent)
    return float(abs(Fraction(float(actual)) - exact) / Fraction(2) ** (exponent - form.bits + 1))


VALUES = {
    "normal": lambda x, rng: rng.normal(size=x.shape),
    "rising": lambda x, rng: np.broadcast_to(np.arange(x.shape[-1]), x.shape),
    "the scores": lambda x, rng: x,
    "ones": lambda x, rng: np.ones_like(x),
    "far from 0": lambda x, rng: 1e6 + rng.normal(size=x.shape),
}


@pytest.mark.parametrize("size", [1, 7, 200])
@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_mean_keeps_its_budget(dtype, kind, size):
    rows, *_, names = streams(1000, dtype)
    # Where the probabilities themselves are subnormal, they have no digits to keep.
    kept = [i for i, name in enumerate(names) if name not in ("subnormal", "alternating_huge")]
    x = rows[kept, -200:]
    v = VALUES[kind](x, np.random.default_rng(3)).astype(dtype)
    cuts = range(size, x.shape[-1], size)
    mean = online.expectation(seen(x, *cuts, xp=np, values=v))
    errors = [mean_error(*row, dtype) for row in zip(mean, x, v, strict=True)]
    assert max(errors) <= BUDGETS["softmax"]


MEANS = {
    "a mean": ([0, 0], [1, 3], 2),
    "one entry": ([7], [3], 3),
    "nothing": ([], [], 0),
    "all -inf": ([-INF, -INF], [1, NAN], 0),
    "-inf with NaN": ([-INF, 2, 2], [NAN, 1, 3], 2),
    "-inf with inf": ([2, -INF, 2], [1, INF, 3], 2),
    "far below with inf": ([0, -2000, 0], [1, INF, 3], 2),
    "one +inf": ([1, INF, 2], [NAN, 5, 7], 5),
    "one +inf with inf": ([1, INF, 2], [1, INF, 7], INF),
    "two +inf": ([INF, 1, INF], [1, 2, 1], NAN),
    "NaN": ([1, NAN], [1, 2], NAN),
    "an infinite value": ([2, 2], [INF, 1], INF),
    "two infinite values": ([2, 2, 2], [INF, 1, INF], INF),
    "infinite values of both signs": ([2, 2], [INF, -INF], NAN),
    "a value NaN": ([2, 2], [1, NAN], NAN),
    "values far apart": ([2, 2], [1.5e38, -3e38], -0.75e38),
}


@pytest.mark.parametrize(("x", "v", "expected"), MEANS.values(), ids=MEANS)
def test_every_special_value_of_the_mean_however_it_is_split(backend, dtype, x, v, expected):
    x, v = backend.asarray(x, dtype), backend.asarray(v, dtype)
    found = backend.run(split_means, x, v, xp=backend.xp)
    for cut, mean in zip(cuts_of(x), found, strict=True):
        assert_is(expected, mean, backend, f"cut at {cut}")


def split_means(x, v, *, xp):
    return [online.expectation(seen(x, cut, xp=xp, values=v)) for cut in cuts_of(x)]


def test_a_masked_value_is_ignored(backend, dtype):
    x, v = (backend.asarray(a, dtype) for a in ([2, 2, 9, 2], [1, 3, NAN, 5]))
    where = backend.asarray([True, True, False, True], "bool")
    state = seen(x, 1, 3, xp=backend.xp, where=where, values=v)
    assert_is(3, online.expectation(state), backend)


def test_values_may_have_axes_in_front_and_broadcast_behind(backend, dtype):
    rng = np.random.default_rng(5)
    x, v = rng.normal(size=(2, 3, 6)), rng.normal(size=(4, 1, 3, 6))
    p = sm.softmax(x)
    expected, scale = np.sum(p * v, axis=-1), np.sum(p * np.abs(v), axis=-1)
    mean = backend.run(front, backend.asarray(x), backend.asarray(v), xp=backend.xp)
    assert mean.shape == (4, 2, 3)
    error = np.abs(backend.to_numpy(mean) - expected)
    assert (error <= 2 * BUDGETS["softmax"] * np.spacing(scale)).all()


def front(x, v, *, xp):
    return online.expectation(seen(x, 2, xp=xp, values=v))


def test_mean_and_entropy_in_one_pass(backend):
    x, v = np.log([0.5, 0.25, 0.125, 0.125]), np.array([8.0, 4.0, 2.0, 6.0])
    x, both = backend.asarray(x), backend.asarray(np.stack([v, x]))
    state = seen(x, 1, 3, xp=backend.xp, values=both)
    mean, score = backend.to_numpy(online.expectation(state))
    entropy = (float(backend.to_numpy(online.logsumexp(state))) - score) / np.log(2)
    assert (round(float(mean), 12), round(float(entropy), 12)) == (6.0, 1.75)


def test_the_derivative_of_the_mean_is_that_of_the_softmax(jax):
    rng = np.random.default_rng(6)

    def mean(x, v):
        return online.expectation(seen(x, 1, 9, xp=jax.numpy, values=v))

    gradient = jax.jit(jax.grad(mean))
    for row in streams(1000, "float64")[0]:
        x, v = row[-20:], rng.normal(size=20)
        p, exact = truth.softmax(x).double, truth.softmax_jvp(x, v).value.double
        scale = p * (np.abs(v) + np.sum(p * np.abs(v)))
        error = np.abs(np.asarray(gradient(x, v)) - exact)
        assert (error <= BUDGETS["softmax JVP"] * np.spacing(scale)).all()


def test_nothing_moves_the_mean_of_nothing(jax):
    x, v = jax.numpy.asarray([-INF, NAN, -INF]), jax.numpy.asarray([1.0, NAN, INF])
    where = jax.numpy.asarray([True, False, True])

    def mean(x, v):
        return online.expectation(seen(x, 1, xp=jax.numpy, where=where, values=v))

    for gradient in jax.jit(jax.grad(mean, (0, 1)))(x, v):
        np.testing.assert_array_equal(np.asarray(gradient), 0)


# Types, shapes, axes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("narrow", ["float16", "bfloat16"])
def test_half_precision_is_kept_in_single_and_rounded_once(backend, narrow):
    if not backend.has(narrow):
        pytest.skip(f"{backend.name} has no {narrow}")
    x = np.random.default_rng(8).normal(scale=3, size=300).astype(np.dtype(narrow))
    state = seen(backend.asarray(x, narrow), 10, 11, 200, xp=backend.xp)
    y, p = online.logsumexp(state), online.softmax(backend.asarray(x, narrow), state)
    p = backend.to_numpy(p)
    assert {backend.to_numpy(a).dtype.name for a in (*state[:3], y)} == {"float32"}
    assert p.dtype == narrow
    error = ulp_error(y, truth.logsumexp(x), "float32", scale=CASES["logsumexp"].scale(x))
    assert error <= BUDGETS["logsumexp"]
    assert ulp_error(p, truth.softmax(x), narrow).max() <= budget("softmax", narrow)


@pytest.mark.parametrize(
    ("state", "x", "values", "dtype"),
    [
        (None, "float32", None, "float32"),
        (None, "float64", None, "float64"),
        (None, "int8", None, "the default"),
        (None, "bool", None, "the default"),
        ("float64", "float32", None, "float64"),
        ("float32", "float32", "float64", "float64"),
    ],
)
def test_the_dtype_is_the_promoted_one(backend, state, x, values, dtype):
    ones = backend.asarray([1, 1], x)
    mean_shape = None if values is None else ()
    first = online.empty(
        mean_shape=mean_shape, dtype=state and getattr(backend.xp, state), xp=backend.xp
    )
    state = online.update(first, ones, values=values and backend.asarray([1, 2], values))
    dtype = backend.default if dtype == "the default" else dtype
    assert {str(a.dtype).rpartition(".")[2] for a in state if a is not None} == {dtype}
    p = online.softmax(ones, state)
    assert str(p.dtype).rpartition(".")[2] == (x if x.startswith("float") else backend.default)


def test_arrays_are_of_the_library(backend):
    x = backend.asarray([[1, 2, 3], [4, 5, 6]])
    state = seen(x, 1, xp=backend.xp, values=x)
    results = *state, online.logsumexp(state), online.expectation(state), online.softmax(x, state)
    assert {type(a) for a in results} == {type(x)}
    assert {a.shape for a in results[:-1]} == {(2,)}
    scalars = (
        *online.empty(mean_shape=(), xp=backend.xp),
        *online.update(online.empty(xp=backend.xp), x, None)[:3],
    )
    kinds = {
        isinstance(a, np.floating) if backend.xp is np else type(a) is type(x) for a in scalars
    }
    assert kinds == {True}


@pytest.mark.parametrize("axis", [(0, -1), None, ()])
def test_pieces_lie_along_any_axis(backend, axis):
    x = np.random.default_rng(4).normal(scale=5, size=(3, 4, 5))
    y, p = backend.run(along, backend.asarray(x), axis, xp=backend.xp)
    expected = sm.logsumexp(x, axis)
    assert (y.shape, p.shape) == (np.shape(expected), x.shape)
    ulps = 2 * BUDGETS["logsumexp"], 2 * BUDGETS["softmax"]
    np.testing.assert_array_max_ulp(backend.to_numpy(y), np.asarray(expected), ulps[0])
    np.testing.assert_array_max_ulp(backend.to_numpy(p), np.asarray(sm.softmax(x, axis)), ulps[1])


def along(x, axis, *, xp):
    state = online.update(online.empty(xp=xp), x, axis)
    return online.logsumexp(state), online.softmax(x, state, axis)


def test_states_broadcast(backend):
    x = backend.asarray(np.arange(6.0).reshape(2, 3))
    sink = online.update(online.empty((2, 1), xp=backend.xp), backend.asarray([[[0.0]], [[1.0]]]))
    state = online.merge(sink, online.update(online.empty(xp=backend.xp), x))
    assert online.logsumexp(state).shape == (2, 2)


def test_a_sink_takes_its_share_and_is_not_returned(backend, dtype):
    sink = online.update(online.empty(xp=backend.xp), backend.asarray(0, dtype))
    x = backend.asarray([[0, 0], [-INF, -INF], [INF, 0]], dtype)
    p = online.softmax(x, online.update(sink, x))
    expected = np.array([[1 / 3, 1 / 3], [0, 0], [1, 0]], dtype)
    np.testing.assert_array_max_ulp(backend.to_numpy(p), expected, BUDGETS["softmax"])


def test_what_was_not_seen_is_greater_than_all(backend, dtype):
    x, none = backend.asarray([0, -INF, INF], dtype), online.empty(xp=backend.xp)
    assert_is([INF, 0, INF], online.softmax(x, none), backend)
    assert_is(-INF, online.logsumexp(none), backend)


# Any road -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def logits():
    return np.random.default_rng(1).normal(scale=4, size=1000).astype("float32")


def assert_seen(state, x):
    """Assert that a state is that of x."""
    scale = CASES["logsumexp"].scale(x)
    error = ulp_error(online.logsumexp(state), truth.logsumexp(x), "float32", scale=scale)
    assert error <= BUDGETS["logsumexp"]
    assert (
        ulp_error(online.softmax(x, state), truth.softmax(x), "float32").max() <= BUDGETS["softmax"]
    )


def test_by_reduce_and_accumulate(logits):
    parts = np.array_split(logits, 7)
    state = functools.reduce(online.update, parts, online.empty())
    assert_seen(state, logits)
    assert_seen(functools.reduce(online.merge, map(of, parts)), logits)
    *_, last = itertools.accumulate(parts, online.update, initial=online.empty())
    assert_same_bits(state, last)


def test_as_a_pytree_under_vmap_and_jit(jax, logits):
    x = jax.numpy.asarray(logits.reshape(4, 250))

    def state(x):
        return seen(x, 100, xp=jax.numpy)

    expected, found = state(x), jax.jit(jax.vmap(state))(x)
    assert_same_bits(jax.tree.map(np.asarray, expected), jax.tree.map(np.asarray, found))
    assert [a.shape for a in jax.tree.leaves(online.empty((4,), xp=jax.numpy))] == [(4,)] * 3


def test_between_processes(logits):
    see = functools.partial(online.update, online.empty())
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        states = pool.map(see, np.array_split(logits, 5))
    assert_seen(functools.reduce(online.merge, states), logits)


def test_through_a_pickle_and_a_file(backend, tmp_path):
    x = backend.asarray([1, 2, 3])
    state = seen(x, 1, xp=backend.xp, values=x)
    if backend.xp is np or backend.autodiff:
        copy = pickle.loads(pickle.dumps(state))
        assert_same_bits(map(backend.to_numpy, state), map(backend.to_numpy, copy))
    np.savez(tmp_path / "state.npz", **{n: backend.to_numpy(a) for n, a in state._asdict().items()})
    with np.load(tmp_path / "state.npz") as stored:
        copy = online.State(**{name: backend.make(a) for name, a in stored.items()})
    assert_same_bits(map(backend.to_numpy, state), map(backend.to_numpy, copy))


def test_by_the_trees_of_dask(logits):
    bag = pytest.importorskip("dask.bag", reason="dask is not installed")
    parts = bag.from_sequence(np.array_split(logits, 16), npartitions=8)
    folded = parts.fold(online.update, online.merge, initial=online.empty(), split_every=2)
    assert_seen(folded.compute(scheduler="sync"), logits)


def test_a_file_larger_than_memory_takes_the_memory_of_a_piece(tmp_path):
    size, step = 1 << 22, 1 << 15
    rng = np.random.default_rng(2)
    x = np.memmap(tmp_path / "logits", dtype="float32", mode="w+", shape=size)
    for i in range(0, size, step):
        x[i : i + step] = rng.normal(size=step)
    x.flush()
    tracemalloc.start()
    try:
        pieces = (x[i : i + step] for i in range(0, size, step))
        state = functools.reduce(online.update, pieces, online.empty())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < x.nbytes / 4
    # The mean of exp(x) in double precision, where nothing overflows.
    expected = np.log(sum(np.exp(x[i : i + step], dtype=float).sum() for i in range(0, size, step)))
    assert abs(float(online.logsumexp(state)) - expected) <= BUDGETS["logsumexp"] * np.spacing(
        np.float32(expected)
    )


# What is refused ------------------------------------------------------------------------------------------------------

X = np.ones((2, 3))
SEEN = online.update(online.empty(), X)
WITH_VALUES = online.update(online.empty(mean_shape=()), X, values=X)
REFUSED = {
    "no state": (lambda: online.update(None, X), TypeError, "state must be a State", "NoneType"),
    "a tuple": (lambda: online.merge(SEEN, tuple(SEEN)), TypeError, "b must be a State", "tuple"),
    "x for a state": (lambda: online.logsumexp(X), TypeError, "state must be a State", "ndarray"),
    "state for x": (lambda: online.softmax(SEEN, X), ValueError, "x must be", "numbers"),
    "shapes": (
        lambda: online.update(SEEN, np.ones((3, 4))),
        ValueError,
        "state of shape (2,)",
        "x of shape (3,)",
    ),
    "shapes of states": (
        lambda: online.merge(online.empty(2), online.empty(3)),
        ValueError,
        "a of shape (2,)",
        "b of shape (3,)",
    ),
    "shape under softmax": (
        lambda: online.softmax(np.ones((3, 4)), SEEN),
        ValueError,
        "state of shape (2,)",
        "slices of shape (3,)",
    ),
    "too many axes": (
        lambda: online.softmax(np.ones(3), SEEN),
        ValueError,
        "state of shape (2,)",
        "slices of shape ()",
    ),
    "axis": (lambda: online.update(SEEN, X, 2), ValueError, "axis 2", "2 axes"),
    "mask": (
        lambda: online.update(SEEN, X, where=[1, 0, 1]),
        TypeError,
        "where must be boolean",
        "int64",
    ),
    "complex scores": (
        lambda: online.update(SEEN, X * 1j),
        TypeError,
        "x must be real",
        "complex128",
    ),
    "complex values": (
        lambda: online.update(WITH_VALUES, X, values=X * 1j),
        TypeError,
        "values must be real",
        "complex128",
    ),
    "values of another shape": (
        lambda: online.update(WITH_VALUES, X, values=np.ones(4)),
        ValueError,
        "values of shape (4,)",
        "x of shape (2, 3)",
    ),
    "values that enlarge x": (
        lambda: online.update(WITH_VALUES, np.ones((1, 3)), values=X),
        ValueError,
        "values of shape (2, 3)",
        "x of shape (1, 3)",
    ),
    "values for a state without": (
        lambda: online.update(SEEN, X, values=X),
        TypeError,
        "x has values and state has none",
        "mean_shape",
    ),
    "no values for a state with": (
        lambda: online.update(WITH_VALUES, X),
        TypeError,
        "state has values and x has none",
        "mean_shape",
    ),
    "one of two with values": (
        lambda: online.merge(SEEN, WITH_VALUES),
        TypeError,
        "b has values and a has none",
        "mean_shape",
    ),
    "mean without values": (
        lambda: online.expectation(SEEN),
        TypeError,
        "state must have values",
        "mean_shape",
    ),
    "dtype": (
        lambda: online.empty(dtype=np.int64),
        TypeError,
        "dtype must be a real floating dtype",
        "int64",
    ),
}


@pytest.mark.parametrize(("call", "error", "was", "expected"), REFUSED.values(), ids=REFUSED)
def test_a_bad_argument_is_named(call, error, was, expected):
    with pytest.raises(error) as caught:
        call()
    assert was in str(caught.value)
    assert expected in str(caught.value)


def test_two_libraries_are_refused():
    strict = pytest.importorskip("array_api_strict")
    x = strict.asarray([1.0, 2.0])
    state = online.update(online.empty(xp=strict), x)
    calls = {
        "state and x": lambda: online.update(online.empty(), x),
        "a and b": lambda: online.merge(online.empty(), state),
        "x and state": lambda: online.softmax([1.0], state),
        "x and values": lambda: online.update(
            online.empty(mean_shape=(), xp=strict), x, values=np.ones(2)
        ),
    }
    for names, call in calls.items():
        with pytest.raises(TypeError, match=f"{names} must be arrays of one library"):
            call()


def test_two_devices_are_refused():
    strict = pytest.importorskip("array_api_strict")
    device = strict.Device("device1")
    here = online.empty(2, xp=strict)
    there = online.empty(2, device=device, xp=strict)
    calls = {
        "state and x": lambda: online.update(here, strict.ones((2, 3), device=device)),
        "a and b": lambda: online.merge(here, there),
    }
    for names, call in calls.items():
        with pytest.raises(ValueError, match=f"{names} must be arrays on one device, .*device1"):
            call()


def test_the_device_is_kept():
    strict = pytest.importorskip("array_api_strict")
    device = strict.Device("device1")
    x = strict.asarray([[1.0, 2.0, 3.0]], device=device)
    state = online.empty(mean_shape=(), device=device, xp=strict)
    state = online.update(state, x, where=[True, False, True], values=[1.0, 2.0, 3.0])
    results = *state, online.logsumexp(state), online.expectation(state), online.softmax(x, state)
    assert {a.device for a in results} == {device}
