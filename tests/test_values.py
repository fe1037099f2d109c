"""Every entry within its budget of ulp: each function, dtype, regime, length, axis and library."""

import numpy as np
import pytest
from cases import CASES
from conftest import LIBRARIES, backend_named
from regimes import REGIMES, regime, seeded
from truth import stack
from ulps import FORMATS, ulp_error

import softmaxes as sm
from softmaxes._cli.budgets import BUDGETS

DTYPES = ["float16", "bfloat16", "float32", "float64"]
SHORT = [1, 2, 10, 1000]
EVERY_MANNER = {
    "numpy": ["numpy", "numpy-readonly"],
    "strict": ["strict-2024.12", "strict-2025.12"],
    "jax": ["jax", "jax-jit", "jax-vmap"],
}
LONG = {"jax": ["jax", "jax-jit"], "strict": []}  # array-api-strict sums as NumPy does


def backends(names, dtype):
    chosen = [backend_named(n) for library in LIBRARIES for n in names.get(library, [library])]
    return [b for b in chosen if b.has(dtype)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SHORT)
@pytest.mark.parametrize("name", REGIMES)
def test_every_entry_of_a_short_slice_keeps_its_budget(name, n, dtype):
    rows = [regime(name, n, dtype, seeded(name, n, seed)) for seed in range(3)]
    for backend in backends(EVERY_MANNER, dtype):
        assert_within_budget(backend, rows, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", REGIMES)
def test_every_entry_of_a_long_slice_keeps_its_budget(name, dtype):
    rows = [regime(name, 50_000, dtype, seeded(name, 50_000))]
    for backend in backends(LONG, dtype):
        assert_within_budget(backend, rows, dtype)


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
    import truth

    x = regime(name, 1000, dtype, seeded(name, 1000))
    t = float(np.dtype(dtype).type(temperature))
    for backend in backends(EVERY_MANNER, dtype):
        flush = 1000 if "jax" in backend.name else None
        for function, exact in ((sm.softmax, truth.softmax), (sm.log_softmax, truth.log_softmax)):
            y = backend.to_numpy(backend.run(function, backend.asarray(x, dtype), temperature=t))
            error = ulp_error(y, exact(x, t), dtype, flush=flush).max()
            assert error <= BUDGETS[function.__name__], (backend.name, function.__name__)


def assert_within_budget(backend, rows, dtype):
    """Check the slices along the last axis and along axis 0, and the sum of the probabilities."""
    n = rows[0].size
    flush = n if "jax" in backend.name else None
    # Outside NumPy and JAX the sums are the library's own, naive along other axes than the last.
    for axis in (-1,) if "strict" in backend.name else (-1, 0):
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
                total = y.astype(np.longdouble).sum(axis=-1)
                assert np.abs(total - 1).max() / u <= BUDGETS["sum of softmax"], (
                    backend.name,
                    axis,
                )


def test_the_order_of_the_scores_is_the_order_of_the_probabilities_to_1_ulp(backend):
    rng = np.random.default_rng(7)
    for dtype in ("float32", "float64"):
        x = np.sort(
            np.concatenate([rng.normal(size=500), 1 + np.arange(500) * np.finfo(dtype).eps]).astype(
                dtype
            )
        )
        p = backend.to_numpy(backend.run(sm.softmax, backend.asarray(x, dtype)))
        assert p[-1] == p.max()
        assert (np.diff(p) >= -np.spacing(p[1:])).all()


def test_on_numpy_the_bits_of_a_row_do_not_depend_on_the_batch():
    x = np.random.default_rng(8).normal(size=(300, 777)).astype(np.float32)
    alone = np.concatenate([sm.softmax(row[None, :]) for row in x])
    assert (sm.softmax(x) == alone).all()
    assert (alone == sm.softmax(x.T, axis=0).T).all()
    assert (sm.softmax(np.stack([x, x], axis=1), axis=2)[:, 0] == alone).all()
