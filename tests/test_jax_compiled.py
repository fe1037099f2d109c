"""What XLA makes of the functions on a processor: how much memory, how much code, which communication."""

import re
from functools import partial

import numpy as np
import pytest
from cases import every_function

import softmaxes as sm

ROWS = (256, 4096)


def ways(jax, function):
    """Return the value along the last axis, and both derivatives, of scores and a tangent."""
    f = partial(function, axis=-1)
    return {
        "value": lambda x, v: f(x),
        "forwards": lambda x, v: jax.jvp(f, (x,), (v,)),
        "backwards": lambda x, v: jax.grad(lambda x: (f(x) ** 2).sum())(x),
    }


def _jax_shared(jax):
    """Return the module that hands arrays over, with nothing kept of what was handed over before."""
    from softmaxes._backends import _jax_shared

    jax.clear_caches()
    return _jax_shared


@pytest.fixture
def recent(jax):
    """The module jax, where its XLA does not write a second copy of the terms."""
    if jax.__version_info__ < (0, 10):
        pytest.skip("known to need more with jax 0.8")
    return jax


def temporaries(jax, f, dtype):
    """The bytes of temporaries, as XLA counts them, for each byte of the scores."""
    x = jax.ShapeDtypeStruct(ROWS, dtype)
    memory = jax.jit(f).lower(x).compile().memory_analysis()
    return memory.temp_size_in_bytes / (x.size * x.dtype.itemsize)


@pytest.mark.parametrize("axis", [-1, 0])
def test_softmax_needs_no_memory_of_the_size_of_the_scores_beside_its_result(recent, axis):
    assert temporaries(recent, partial(sm.softmax, axis=axis), "float32") < 0.1


@every_function
@pytest.mark.parametrize("axis", [-1, 0])
def test_no_value_needs_more_than_one_array_like_the_scores(jax, function, axis):
    assert temporaries(jax, partial(function, axis=axis), "float32") < 1.1


def test_the_gradient_of_logsumexp_needs_no_memory_beside_its_result(recent):
    gradient = recent.grad(lambda x: sm.logsumexp(x, axis=-1).sum())
    assert temporaries(recent, gradient, "float32") < 0.1


@pytest.mark.parametrize("function", [sm.softmax, sm.log_softmax, sm.logsumexp])
def test_narrow_scores_are_held_once_in_single_precision(recent, function):
    assert temporaries(recent, partial(function, axis=-1), "bfloat16") < 2.1


@every_function
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_special_values_of_narrow_rows_that_xla_sums_fast_are_those_of_numpy(
    jax, function, dtype
):
    big = float(jax.numpy.finfo(dtype).max)
    inf, nan = np.inf, np.nan
    rows = [[inf, big, 1], [inf, inf, big], [nan, 1, 2], [nan, inf, 1], [nan, nan, nan]]
    rows += [[-inf, -inf, -inf], [-big, -big, -big], [big, big, big], [big, -big, 0], [0, -20, -70]]
    x = np.tile(np.pad(rows, ((0, 0), (0, 61)), constant_values=-inf), (64, 1)).astype(dtype)
    expected = function(x, axis=-1).astype("float32")
    for a, axis in ((x, -1), (x.T, 0)):
        found = np.asarray(function(jax.numpy.asarray(a), axis=axis)).astype("float32")
        found = found if axis == -1 or found.ndim == 1 else found.T
        np.testing.assert_allclose(found, expected, rtol=2.0**-7, atol=0)  # one step of bfloat16


@every_function
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("place", [0, 2048, 4095])
def test_a_nan_in_a_row_that_xla_sums_fast_makes_all_of_it_nan(jax, function, dtype, place):
    x = np.random.default_rng(0).normal(size=(2, 4096))
    x[0, place], x[:, 7], x[:, 8] = np.nan, -np.inf, -200.0  # nothing, and next to nothing
    y = np.asarray(function(jax.numpy.asarray(x, dtype), axis=-1)).astype("float32")
    outside = (np.arange(4096) == 7) if y.ndim == 2 else False
    np.testing.assert_array_equal(np.isnan(y[0]), ~outside if y.ndim == 2 else True)
    assert not np.isnan(y[1]).any()


def test_the_loss_of_a_row_with_a_nan_that_xla_sums_fast_is_nan(jax):
    x = np.random.default_rng(0).normal(size=(2, 4096)).astype("float32")
    x[0, -1] = np.nan
    losses = sm.cross_entropy(jax.numpy.asarray(x), jax.numpy.asarray([3, 3]))
    entropies = sm.entropy(jax.numpy.asarray(x))
    np.testing.assert_array_equal(np.isnan(losses), [True, False])
    np.testing.assert_array_equal(np.isnan(entropies), [True, False])


@every_function
def test_the_program_is_as_long_for_a_large_array_as_for_a_small_one(jax, function):
    def lines(f, shape):
        x = jax.ShapeDtypeStruct(shape, "float32")
        return jax.jit(f).lower(x, x).as_text().count("\n")

    for f in ways(jax, function).values():
        of_large = lines(f, (65_536, 50_257))
        assert lines(f, (3, 7)) == lines(f, (64, 64)) == of_large
        assert lines(f, (1, 4095)) < 2.5 * of_large  # a step for each half of few


@every_function
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_on_several_devices_are_not_exchanged(jax, function, dtype, monkeypatch):
    monkeypatch.setattr(_jax_shared(jax), "DEVICES", 1)  # as it is but for these tests
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("devices",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("devices"))
    x = jax.ShapeDtypeStruct((16, 50), dtype, sharding=rows)
    for f in ways(jax, function).values():
        text = jax.jit(f).lower(x, x).compile().as_text()
        assert not re.findall("all-gather|all-reduce|all-to-all|collective-permute", text)


@every_function
def test_a_column_has_the_bits_of_a_row(jax, function):
    x = np.random.default_rng(4).normal(scale=5, size=1000).astype("float32")
    x[7] = x[8] = x.max()
    row = jax.numpy.asarray(x[None, :])
    column = row.reshape(-1, 1, 1)
    for where in (None, row > -5):
        f = partial(function, axis=-1, where=where)
        g = partial(function, axis=0, where=None if where is None else where.reshape(column.shape))
        for expected, found in zip(answers(jax, f, row), answers(jax, g, column), strict=True):
            assert np.array_equal(expected, found)


def answers(jax, f, x):
    """Return, flat, the value and the derivatives in the direction of the scores."""
    y, dy = jax.jit(lambda x: jax.jvp(f, (x,), (x,)))(x)
    (g,) = jax.jit(lambda x: jax.vjp(f, x)[1](jax.numpy.ones_like(y)))(x)
    return [np.ravel(a) for a in (y, dy, g)]
