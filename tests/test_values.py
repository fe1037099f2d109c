"""Every entry within its budget of ulp: each function, dtype, regime, length, axis and library."""

import math
from itertools import cycle, product

import mpmath
import numpy as np
import pytest
import truth
from cases import CASES, LOSSES, flushed
from conftest import LIBRARIES, backend_named, missing, seldom
from regimes import REGIMES, crowded, regime, seeded
from truth import stack
from ulps import FORMATS, ulp_error

import softmaxes as sm
from softmaxes._cli.budgets import BUDGETS

DTYPES = ["float16", "bfloat16", "float32", "float64"]
SHORT = [1, seldom(2), seldom(10), 1000]
EVERY_MANNER = {
    "numpy": ["numpy", "numpy-readonly"],
    "strict": ["strict-2024.12", "strict-2025.12"],
    "jax": ["jax", "jax-jit", "jax-vmap"],
}
LOSS_MANNERS = {"strict": ["strict-2025.12"], "jax": ["jax-jit"]}
LONG = {"jax": ["jax", "jax-jit"], "strict": []}  # array-api-strict sums as NumPy does


def backends(names, dtype):
    """Yield the array libraries that know the dtype, in their manners."""
    there = [library for library in LIBRARIES if not missing(library)]
    chosen = [backend_named(n) for library in there for n in names.get(library, [library])]
    for backend in chosen:
        if backend.has(dtype):
            with backend.flags:
                yield backend


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SHORT)
@pytest.mark.parametrize("name", REGIMES)
def test_every_entry_of_a_short_slice_keeps_its_budget(name, n, dtype):
    rows = [regime(name, n, dtype, seeded(name, n, seed)) for seed in range(3)]
    for backend in backends(EVERY_MANNER, dtype):
        assert_within_budget(backend, rows, dtype)


@pytest.mark.parametrize("dtype", [seldom("float16"), "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("n", [seldom(2), 203])
@pytest.mark.parametrize("name", REGIMES)
def test_every_loss_keeps_its_budget(name, n, dtype):
    rows = [regime(name, n, dtype, seeded(name, n))] * 2
    exact = {label: case.exact(rows[0]) for label, case in LOSSES.items()}
    for backend in backends(LOSS_MANNERS, dtype):
        for label, case in LOSSES.items():
            arguments = zip(*((row, *case.rest(row)) for row in rows), strict=True)
            arrays = [stacked(backend, of_rows, dtype) for of_rows in arguments]
            y = backend.to_numpy(backend.run(case.function, *arrays))
            flush = flushed(n if "jax" in backend.name else 0, case.logarithms)
            error = ulp_error(y, stack([exact[label]] * 2), dtype, flush=flush).max()
            assert error <= case.budget(dtype), (backend.name, label)


# Of each regime one dtype; sums of half precision are those of float32, rounded once.
IN_TURN = set(zip(REGIMES, cycle(["float32", "float64"]), strict=False))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [case if case in IN_TURN else seldom(*case) for case in product(REGIMES, DTYPES)],
)
def test_every_entry_of_a_long_slice_keeps_its_budget(name, dtype):
    rows = [regime(name, 50_000, dtype, seeded(name, 50_000))]
    for backend in backends(LONG, dtype):
        assert_within_budget(backend, rows, dtype)


# By the standard alone, sums are the library's.
CROWDED = {"numpy": ["numpy"], "strict": [], "jax": ["jax-jit", "jax-vmap"]}
# For each of them JAX compiles anew.
OFTEN, SELDOM = (39, 1000, 20_000), (15, 63, 64, 127, 203, 4096)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [*OFTEN, *map(seldom, SELDOM)])
@pytest.mark.parametrize("large", [2, seldom(9), 17])
@pytest.mark.parametrize("gap", [0.68, 9.0])
def test_a_large_score_loses_none_of_many_small_ones(gap, large, n, dtype):
    rows = crowded(gap, large, n, dtype)
    for backend in backends(CROWDED, dtype):
        # The sums of XLA over columns of float32, where all but one are small, are as they are.
        by_xla = backend.name.startswith("jax") and dtype == "float32" and gap > 1 and n > 1000
        assert_within_budget(backend, rows, dtype, axes=(-1,) if by_xla else (-1, 0))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["standard_normal", "scale_10", "near_ties", "dominant_20"])
def test_every_entry_of_a_million_keeps_its_budget(name, dtype):
    rows = [regime(name, 1_000_000, dtype, seeded(name, 1_000_000))]
    for backend in backends(LONG, dtype):
        assert_within_budget(backend, rows, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("temperature", [0.3, 1.7, 30.0])
@pytest.mark.parametrize("name", ["standard_normal", "scale_10", "scale_100", "near_ties"])
def test_a_temperature_costs_no_accuracy(name, temperature, dtype):
    x = regime(name, 1000, dtype, seeded(name, 1000))
    t = float(np.dtype(dtype).type(temperature))
    for backend in backends(EVERY_MANNER, dtype):
        flush = 1000 if "jax" in backend.name else None
        for function, exact in ((sm.softmax, truth.softmax), (sm.log_softmax, truth.log_softmax)):
            y = backend.to_numpy(backend.run(function, backend.asarray(x, dtype), temperature=t))
            error = ulp_error(y, exact(x, t), dtype, flush=flush).max()
            assert error <= BUDGETS[function.__name__], (backend.name, function.__name__)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("temperature", [1e-36, 3e-34, 1e-12, 1e12, 3e36])
def test_an_extreme_temperature_costs_no_accuracy(backend, temperature, dtype):
    t = float(np.dtype(dtype).type(temperature))
    x = (t * np.array([0.0, -0.1, -3.0, -10.0, -58.016, 1.0 / 3.0])).astype(dtype)
    temperatures = np.full(x.shape, t)
    for function, exact in zip(
        (sm.softmax, sm.log_softmax), tempered(x, temperatures), strict=True
    ):
        y = backend.run(function, backend.asarray(x, dtype), temperature=t)
        assert ulps(y, exact, dtype) <= BUDGETS[function.__name__]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1, 30, 1000])
def test_a_temperature_for_each_entry_costs_no_accuracy(backend, scale, dtype):
    rng = np.random.default_rng(scale)
    x = (scale * rng.standard_normal(50)).astype(dtype)
    t = rng.uniform(0.5, 2, 50).astype(dtype)
    for function, exact in zip((sm.softmax, sm.log_softmax), tempered(x, t), strict=True):
        y = backend.run(function, backend.asarray(x, dtype), temperature=backend.asarray(t, dtype))
        assert ulps(y, exact, dtype, flush=50) <= BUDGETS[function.__name__]


WEIGHTS = {  # the scale of the scores, that of the logarithms of the weights, and a common factor
    "alike": (3, 1, 1),
    "means of small scores": (1e-4, 0, 1 / 50),
    "small": (1, 1, 1e-7),
    "far apart": (30, 20, 1),
    "against the scores": (40, -40, 1),
    "against the small scores": (25, -17, 1),
    "of an overflowing sum": (1, 0.1, None),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_cost_no_accuracy(backend, name, dtype):
    rng = np.random.default_rng(11)
    scale, spread, factor = WEIGHTS[name]
    normal = rng.standard_normal(50)
    x = (scale * normal).astype(dtype)
    logarithm = spread * (normal if spread < 0 else rng.standard_normal(50))
    factor = factor or np.finfo(dtype).max / 10
    w = (factor * np.exp(logarithm)).astype(dtype)
    y, p = weighted(x, w)
    arrays = backend.asarray(x, dtype), backend.asarray(w, dtype)
    found = backend.run(lambda x, w: sm.logsumexp(x, weights=w), *arrays)
    # A relative error u of the weights moves the sum by u, so 1 counts in the scale.
    scale = max(abs(float(y)), abs(float(x.max())), 1.0)
    assert ulps(found, [y], dtype, scale=scale) <= BUDGETS["logsumexp"]
    gradient = backend.run(weighted_gradient, *arrays)
    assert ulps(gradient, p, dtype, flush=50) <= BUDGETS["logsumexp gradient"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_mean_of_many_exponentials_costs_no_accuracy(backend, dtype):
    n, w = 100_000, np.dtype(dtype).type(1e-5)
    with mpmath.workdps(50):
        exact = mpmath.mpf(0.5) + mpmath.log(n * mpmath.mpf(float(w)))
    x = backend.asarray(np.full(n, 0.5), dtype)
    y = backend.run(sm.logsumexp, x, weights=float(w))
    assert ulps(y, [exact], dtype, scale=1.0) <= BUDGETS["logsumexp"]


def test_subnormal_scores_have_a_subnormal_temperature():
    tiny = 5e-324  # the smallest number
    p = sm.softmax([0.0, 3 * tiny], temperature=tiny)
    np.testing.assert_array_max_ulp(p, sm.softmax([0.0, 3.0]), 4)


def test_temperatures_of_one_slice_may_be_0(backend):
    for x, t, plain in (
        ([0, 1], [0, 1], [0, 1]),  # 0 / 0 is 0
        ([-np.inf, 1, 2], [1, 0, 0], [-np.inf, 0, np.inf]),  # -inf has no say in what is common
    ):
        expected = sm.softmax(np.array(plain, dtype=float))
        p = backend.run(sm.softmax, backend.asarray(x), temperature=backend.asarray(t))
        np.testing.assert_array_max_ulp(np.asarray(p), expected, 4)


def weighted_gradient(x, w):
    y, pullback = sm.vjp(sm.logsumexp, x, weights=w)
    return pullback(y * 0 + 1)


def tempered(x, t):
    """Return softmax and log_softmax of x / t to 200 digits."""
    with mpmath.workdps(200):
        z = [mpmath.mpf(float(a)) / mpmath.mpf(float(b)) for a, b in zip(x, t, strict=True)]
        total = mpmath.fsum(map(mpmath.exp, z))
        return [mpmath.exp(a) / total for a in z], [a - mpmath.log(total) for a in z]


def weighted(x, w):
    """Return the weighted logsumexp and its gradient to 200 digits."""
    with mpmath.workdps(200):
        pairs = zip(x, w, strict=True)
        terms = [mpmath.mpf(float(b)) * mpmath.exp(mpmath.mpf(float(a))) for a, b in pairs]
        total = mpmath.fsum(terms)
        return mpmath.log(total), [term / total for term in terms]


def ulps(actual, exact, dtype, *, scale=None, flush=0):
    """Return the largest error in ulp of the exact numbers, less what may be flushed to 0."""
    worst, tiny = 0.0, float(np.finfo(dtype).tiny)
    with mpmath.workdps(200):
        for a, e in zip(np.ravel(np.asarray(actual, dtype="float64")), exact, strict=True):
            size = max(abs(float(e)) if scale is None else scale, tiny)
            ulp = float(np.spacing(np.dtype(dtype).type(size)))
            worst = max(worst, float((abs(mpmath.mpf(a) - e) - flush * tiny) / ulp))
    return worst


def assert_within_budget(backend, rows, dtype, axes=(-1, 0)):
    """Check the slices along the last axis and along axis 0, and the sum of the probabilities."""
    n = rows[0].size
    flush = n if "jax" in backend.name else None
    # This one leaves the sums to NumPy, whose sums are naive along other axes than the last.
    for axis in (-1,) if backend.name.startswith("strict") else axes:
        x = backend.asarray(np.stack(rows, axis=0 if axis else 1), dtype)
        for case in CASES.values():
            y = backend.to_numpy(backend.run(case.function, x, axis=axis))
            y = y if axis or case.function is sm.logsumexp else y.T
            exact = stack([case.exact(row) for row in rows])
            scales = [case.scale(row) for row in rows]
            scale = None if scales[0] is None else stack(scales)
            error = ulp_error(y, exact, dtype, scale=scale, flush=flush).max()
            assert error <= case.budget(dtype), (backend.name, axis, case.function.__name__)
            if case.function is sm.softmax and dtype in ("float32", "float64"):
                u = 2.0 ** -FORMATS[dtype].bits
                off = [math.fsum((*row, -1.0)) for row in y.astype(np.float64)]
                assert np.abs(off).max() / u <= BUDGETS["sum of softmax"], (
                    backend.name,
                    axis,
                )


def stacked(backend, of_rows, dtype):
    """Return the slices, or the one number of each, as an array of the library."""
    if isinstance(of_rows[0], int):
        return backend.asarray(of_rows, "int64")
    return backend.asarray(np.stack(of_rows), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_probabilities_have_the_order_of_the_scores_within_its_budget(backend, dtype):
    rng = np.random.default_rng(7)
    start = rng.normal(scale=10, size=(400, 1))
    steps = np.arange(25) * np.spacing(np.abs(start).astype(dtype)).astype(float)
    x = np.concatenate([np.sort(start + steps, axis=1), np.full((400, 1), 40.0)], 1).astype(dtype)
    p = backend.to_numpy(backend.run(sm.softmax, backend.asarray(x, dtype)))
    assert (p.argmax(axis=1) == 25).all()
    falls = -np.diff(p[:, :25], axis=1) / np.spacing(p[:, 1:25])
    assert falls.max() <= BUDGETS["order of softmax"]
    equal = np.diff(x[:, :25], axis=1) == 0
    assert (falls[equal] == 0).all()


def test_on_numpy_the_bits_of_a_row_do_not_depend_on_the_batch():
    x = np.random.default_rng(8).normal(size=(300, 777)).astype(np.float32)
    alone = np.concatenate([sm.softmax(row[None, :]) for row in x])
    assert (sm.softmax(x) == alone).all()
    assert (alone == sm.softmax(x.T, axis=0).T).all()
    assert (sm.softmax(np.stack([x, x], axis=1), axis=2)[:, 0] == alone).all()
