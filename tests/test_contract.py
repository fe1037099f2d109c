"""The boundary contract on every backend: values, first and second derivatives, each by every road to it."""

import itertools
from functools import partial

import numpy as np
import pytest
import truth
from cases import FUNCTIONS, every_function
from conftest import backend_named, seldom
from contract import CONTRACT, INF, NAN, Row
from ulps import ulp_error

import softmaxes as sm
from softmaxes._cli.budgets import budget

# Exact results are due, or the nearest number to a logarithm; the accuracy of each function is tested elsewhere.
ULPS = 4

# Between them, the backends of a library see both precisions.
DTYPES = {
    "numpy-readonly": "float32",
    "strict-2024.12": "float32",
    "jax": "float32",
    "jax-vmap": "float32",
}

CASES = [
    pytest.param(function, row, getattr(row, of), id=f"{of}, {name}")
    for name, row in CONTRACT.items()
    for of, function in FUNCTIONS.items()
    if getattr(row, of) is not None
]
every_case = pytest.mark.parametrize(("function", "row", "expected"), CASES)


@pytest.fixture
def dtype(backend):
    return DTYPES.get(backend.name, "float64")


@pytest.fixture(autouse=True)
def silence():
    """No operation of NumPy may as much as hint at trouble; warnings are errors anyway."""
    with np.errstate(all="raise"):
        yield


@every_case
def test_value(backend, dtype, function, row, expected):
    x, options = arguments(backend, row, dtype)
    assert_is(expected.value, backend.run(function, x, **options), backend)


@every_case
def test_first_derivative(backend, dtype, function, row, expected):
    x, options = arguments(backend, row, dtype)
    v, u = direction(x.shape), direction(np.shape(expected.value))
    vectors = backend.asarray(v, dtype), backend.asarray(u, dtype)
    found = backend.run(first, function, x, *vectors, **engine(backend), **options)
    assert_each(
        found,
        backend,
        value=expected.value,
        jvp=product(expected.jacobian, v),
        vjp=product(u, expected.jacobian),
        jacobian=expected.jacobian,
    )


def first(function, x, v, u, *, autodiff=None, every_road=False, **options):
    """Return the value, J v, u J and J; the first word of a road tells what it leads to."""
    f = partial(function, **options)
    y, dy = sm.jvp(function, x, v, **options)
    z, pullback = sm.vjp(function, x, **options)
    roads = {
        "value by sm.jvp": y,
        "value by sm.vjp": z,
        "jvp": dy,
        "vjp": pullback(u),
        "jacobian": sm.jacobian(function, x, **options),
    }
    if autodiff:
        roads |= {
            "jacobian by jacfwd": autodiff.jacfwd(f)(x),
            "jacobian by jacrev": autodiff.jacrev(f)(x),
        }
    if every_road:
        y, dy = autodiff.jvp(f, (x,), (v,))
        z, pullback = autodiff.vjp(f, x)
        roads |= {
            "value by autodiff.jvp": y,
            "value by autodiff.vjp": z,
            "jvp by autodiff.jvp": dy,
            "vjp by autodiff.vjp": pullback(u)[0],
        }
    return roads


@every_case
def test_second_derivative(backend, dtype, function, row, expected):
    x, options = arguments(backend, row, dtype)
    v = direction(x.shape)
    found = backend.run(
        second, function, x, backend.asarray(v, dtype), **engine(backend), **options
    )
    assert_each(found, backend, hvp=product(expected.hessian, v), hessian=expected.hessian)


def second(function, x, v, *, autodiff=None, every_road=False, **options):
    """Return H v and H, the Hessian of the sum of the outputs."""

    def f(x):
        return function(x, **options).sum()

    roads = {"hvp": sm.hvp(function, x, v, **options)}
    if autodiff:
        roads["hessian by forward over reverse"] = autodiff.hessian(f)(x)
    if every_road:
        roads |= {
            "hvp by reverse over reverse": autodiff.vjp(autodiff.grad(f), x)[1](v)[0],
            "hvp by reverse over forward": autodiff.grad(lambda x: autodiff.jvp(f, (x,), (v,))[1])(
                x
            ),
        }
    return roads


def engine(backend):
    """Return the options for what a library derives itself; compiling is dear, so one of JAX takes every road."""
    if not backend.autodiff:
        return {}
    return {"autodiff": backend.autodiff, "every_road": backend.name in ("jax-jit", "torch")}


# Slices among others, and of other shapes -----------------------------------------------------------------------------


@every_function
@pytest.mark.parametrize("axis", [0, 1])
def test_slices_of_one_array_know_nothing_of_each_other(backend, dtype, function, axis):
    rows = [row for row in CONTRACT.values() if len(row.x) == 3 and row.options.keys() <= {"where"}]
    x = np.stack([row.x for row in rows], axis=1 - axis)
    where = np.stack([row.options.get("where", [True] * 3) for row in rows], axis=1 - axis)
    x, options = arguments(backend, Row(x, options={"where": where}), dtype)
    y, dx = backend.run(pulled_back, function, x, xp=backend.xp, axis=axis, **options)
    for i, row in enumerate(rows):
        expected = getattr(row, function.__name__)
        ones = np.ones(np.shape(expected.value))
        at = i if y.ndim == 1 else (i, slice(None))[:: 1 if axis else -1]
        assert_is(expected.value, backend.to_numpy(y)[at], backend)
        assert_is(
            product(ones, expected.jacobian), np.moveaxis(backend.to_numpy(dx), axis, 1)[i], backend
        )


def pulled_back(function, x, *, xp, **options):
    """Return the value and the gradient of its sum."""
    y, pullback = sm.vjp(function, x, **options)
    return y, pullback(xp.ones_like(y))


@every_function
def test_the_one_entry_of_a_scalar_is_all_there_is(backend, dtype, function):
    value = {"softmax": 1, "log_softmax": 0, "logsumexp": 7}[function.__name__]
    derivative = {"softmax": 0, "log_softmax": 0, "logsumexp": 1}[function.__name__]
    x, one = backend.asarray(7, dtype), backend.asarray(1, dtype)
    for axis in (-1, 0, None, ()):
        assert_is(value, backend.run(function, x, axis=axis), backend)
    found = backend.run(first, function, x, one, one, autodiff=backend.autodiff)
    assert_each(found, backend, value=value, jvp=derivative, vjp=derivative, jacobian=derivative)
    assert_each(
        backend.run(second, function, x, one, autodiff=backend.autodiff), backend, hvp=0, hessian=0
    )


@every_function
def test_without_axes_every_entry_is_a_slice(backend, dtype, function):
    x, one = backend.asarray([7, -INF, INF], dtype), backend.asarray([1, 1, 1], dtype)
    value = {"softmax": [1, 0, 1], "log_softmax": [0, -INF, 0], "logsumexp": [7, -INF, INF]}[
        function.__name__
    ]
    derivative = [1, 0, 1] if function is sm.logsumexp else [0, 0, 0]
    found = backend.run(first, function, x, one, one, autodiff=backend.autodiff, axis=())
    assert_each(
        found, backend, value=value, jvp=derivative, vjp=derivative, jacobian=np.diag(derivative)
    )


@every_function
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("n", [6, 300])
def test_slices_of_one_entry_know_nothing_of_each_other(backend, dtype, function, axis, n):
    def tiled(some):
        return np.expand_dims(np.resize(some, n), axis)

    # a score, 0, nothing, what is infinite, what is not known, and what is masked
    x, where = tiled([7, 0, -INF, INF, NAN, NAN]), tiled([True] * 5 + [False])
    value = {
        "softmax": [1, 1, 0, 1, NAN, 0],
        "log_softmax": [0, 0, -INF, 0, NAN, -INF],
        "logsumexp": [7, 0, -INF, INF, NAN, -INF],
    }[function.__name__]
    derivative = [1, 1, 0, 1, NAN, 0] if function is sm.logsumexp else [0, 0, 0, 0, NAN, 0]
    value = tiled(value).ravel() if function is sm.logsumexp else tiled(value)
    x, options = arguments(backend, Row(x, options={"where": where}), dtype)
    y, dx = backend.run(pulled_back, function, x, xp=backend.xp, axis=axis, **options)
    assert_is(value, y, backend)
    assert_is(tiled(derivative), dx, backend)


# Of many numbers, a compiler may take the maximum by instructions that drop a NaN.
NORMALISERS_AND_LOSSES = {f.__name__: (f, 0) for f in FUNCTIONS.values()} | {
    "entropy": (sm.entropy, 0),
    "cross_entropy": (sm.cross_entropy, 1),
    "kl_divergence": (sm.kl_divergence, 1),
}


@pytest.mark.parametrize(
    ("function", "n_more"), NORMALISERS_AND_LOSSES.values(), ids=NORMALISERS_AND_LOSSES
)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_NaN_leaves_nothing_wherever_it_and_inf_stand(backend, dtype, function, n_more, axis):
    x = np.insert(pairs_of_nan_and_inf(33, dtype), 33, 1, axis=1)
    kept = np.arange(34) < 33
    arrays = x, np.broadcast_to(kept, x.shape)
    x, where = (backend.asarray(np.moveaxis(a, 1, axis), a.dtype) for a in arrays)
    found = backend.run(
        unknown, function, x, xp=backend.xp, rest=n_more * (x,), axis=axis, where=where
    )
    for name, actual in found.items():
        a, outside = backend.to_numpy(actual), -INF if name == "log_softmax" else 0
        expected = NAN if a.ndim == 1 else np.moveaxis([np.where(kept, NAN, outside)], 1, axis)
        np.testing.assert_array_equal(a, np.broadcast_to(expected, a.shape), err_msg=name)


def pairs_of_nan_and_inf(n, dtype):
    """Return rows of n ones, with NaN and +inf at every two places."""
    first, second = np.transpose(list(itertools.permutations(range(n), 2)))
    x, rows = np.ones((first.size, n), dtype), np.arange(first.size)
    x[rows, first], x[rows, second] = NAN, INF
    return x


def unknown(function, x, *, xp, rest, **options):
    """Return the value and its derivatives."""
    y, pullback = sm.vjp(function, x, *rest, **options)
    v = xp.ones_like(x)
    return {
        function.__name__: y,
        "vjp": pullback(xp.ones_like(y)),
        "jvp": sm.jvp(function, x, v, *rest, **options)[1],
        "hvp": sm.hvp(function, x, v, *rest, **options),
    }


@every_function
@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 2)])
def test_nothing_comes_of_nothing(backend, dtype, function, shape):
    x = backend.asarray(np.zeros(shape), dtype)
    value = np.full(shape[:-1], -INF) if function is sm.logsumexp else np.zeros(shape)
    assert_is(value, backend.run(function, x, axis=-1), backend)
    assert_is(
        np.zeros(value.shape + shape), backend.run(sm.jacobian, function, x, axis=-1), backend
    )
    assert_is(np.zeros(shape), backend.run(sm.hvp, function, x, x, axis=-1), backend)


@every_function
def test_the_largest_numbers_do_not_overflow(backend, dtype, function):
    largest = np.finfo(dtype).max
    value = {"softmax": [1, 0], "log_softmax": [0, -INF], "logsumexp": largest}[function.__name__]
    dx = {"softmax": [0, 0], "log_softmax": [-1, 1], "logsumexp": [1, 0]}[function.__name__]
    y, actual = backend.run(
        pulled_back, function, backend.asarray([largest, -largest], dtype), xp=backend.xp
    )
    assert_is(value, y, backend)
    assert_is(dx, actual, backend)


# Tangents and cotangents where the probability is 0 -------------------------------------------------------------------

DEAD = {
    "masked": Row([2, 1, 2], options={"where": [True, False, True]}),
    "-inf": Row([2, -INF, 2]),
    "underflowing": Row([2, -1e5, 2]),
    "underflowing beside a dominant score": Row([2, -1e5, 0]),
}
every_dead_entry = pytest.mark.parametrize("row", DEAD.values(), ids=DEAD)


@every_dead_entry
@pytest.mark.parametrize("bad", [NAN, INF])
@every_function
def test_a_tangent_at_probability_0_changes_no_other_entry(backend, dtype, function, row, bad):
    x, options = arguments(backend, row, dtype)
    good, bad = (backend.asarray([3, v, 5], dtype) for v in (0, bad))
    expected = backend.run(pushed, function, x, good, autodiff=backend.autodiff, **options)
    actual = backend.run(pushed, function, x, bad, autodiff=backend.autodiff, **options)
    for road, dy in expected.items():
        moves = function is sm.log_softmax and "where" not in options and "hvp" not in road
        kept = [0, 2] if moves else ...  # log p_i = x_i - logsumexp(x) itself moves with x_i
        assert_same(backend.to_numpy(dy)[kept], backend.to_numpy(actual[road])[kept])


def pushed(function, x, v, *, autodiff=None, **options):
    """Return J v and H v by every road."""
    roads = {"jvp": sm.jvp(function, x, v, **options)[1], "hvp": sm.hvp(function, x, v, **options)}
    if autodiff:
        f = partial(function, **options)
        roads["jvp by autodiff"] = autodiff.jvp(f, (x,), (v,))[1]
        roads["hvp by autodiff"] = autodiff.jvp(autodiff.grad(lambda x: f(x).sum()), (x,), (v,))[1]
    return roads


@pytest.mark.parametrize(
    ("function", "row"),
    [(sm.log_softmax, DEAD["masked"]), *((sm.softmax, row) for row in DEAD.values())],
    ids=["log_softmax, masked", *DEAD],
)
@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_cotangent_at_probability_0_is_lost(backend, dtype, function, row, bad):
    x, options = arguments(backend, row, dtype)
    good, bad = (backend.asarray([3, u, 5], dtype) for u in (0, bad))
    expected = backend.run(pulled, function, x, good, autodiff=backend.autodiff, **options)
    actual = backend.run(pulled, function, x, bad, autodiff=backend.autodiff, **options)
    for road, dx in expected.items():
        assert_same(backend.to_numpy(dx), backend.to_numpy(actual[road]))


@every_dead_entry
@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_cotangent_of_logsumexp_is_lost_at_probability_0(backend, dtype, row, bad):
    x, options = arguments(backend, row, dtype)
    found = backend.run(
        pulled, sm.logsumexp, x, backend.asarray(bad, dtype), autodiff=backend.autodiff, **options
    )
    for dx in found.values():
        assert_same(np.array([bad, 0, bad], dtype), backend.to_numpy(dx))


def pulled(function, x, u, *, autodiff=None, **options):
    """Return uᵀ J by every road."""
    roads = {"vjp": sm.vjp(function, x, **options)[1](u)}
    if autodiff:
        roads["vjp by autodiff"] = autodiff.vjp(partial(function, **options), x)[1](u)[0]
    return roads


# Temperature and weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [sm.softmax, sm.log_softmax])
@pytest.mark.parametrize("temperature", [0.0, 2.0, INF])
def test_a_temperature_may_have_any_shape_that_broadcasts(backend, dtype, function, temperature):
    x = backend.asarray([[2, 2, 1], [0, -1, 5]], dtype)
    expected = backend.to_numpy(backend.run(function, x, temperature=temperature))
    for shape in ((), (1,), (2, 1), (1, 3), (2, 3)):
        array = backend.asarray(np.full(shape, temperature), dtype)
        assert_is(expected, backend.run(function, x, temperature=array), backend, f"shape {shape}")


@pytest.mark.parametrize("function", [sm.softmax, sm.log_softmax])
def test_every_slice_may_have_its_own_temperature(backend, dtype, function):
    x, temperatures = backend.asarray([[1, 3, 2]] * 4, dtype), [0.0, 0.5, 2.0, INF]
    y = backend.run(
        function, x, temperature=backend.asarray(np.reshape(temperatures, (4, 1)), dtype)
    )
    for temperature, row in zip(temperatures, backend.to_numpy(y), strict=True):
        assert_is(
            backend.to_numpy(backend.run(function, x[0, :], temperature=temperature)), row, backend
        )


@pytest.mark.parametrize("function", [sm.softmax, sm.log_softmax])
@pytest.mark.parametrize("temperature", [-1.0, NAN, -INF])
def test_a_bad_temperature_is_an_error_where_it_is_known_and_NaN_where_it_is_not(
    backend, dtype, function, temperature
):
    x, array = backend.asarray([2, 2, 1], dtype), backend.asarray([temperature], dtype)
    with pytest.raises(ValueError, match="temperature"):
        backend.run(function, x, temperature=temperature)
    if backend.traced:
        assert_is([NAN] * 3, backend.run(function, x, temperature=array), backend)
    else:
        with pytest.raises(ValueError, match="temperature"):
            backend.run(function, x, temperature=array)


@pytest.mark.parametrize("function", [sm.softmax, sm.log_softmax])
@pytest.mark.parametrize("temperature", [0.0, INF])
def test_nothing_moves_with_the_temperature_at_its_limits(differentiable, function, temperature):
    x = differentiable.asarray([[1.0, 2.0, 2.0], [1.0, -INF, 3.0]])
    for derivative in temperature_derivatives(differentiable, function, x, temperature):
        assert not derivative.any()


@pytest.mark.parametrize("function", [sm.softmax, sm.log_softmax])
@pytest.mark.parametrize("temperature", [0.0, 2.0, INF])
def test_nothing_moves_with_the_temperature_where_there_is_nothing(
    differentiable, function, temperature
):
    x, where = differentiable.asarray([-INF, NAN, -INF]), [True, False, True]
    masked = partial(function, where=differentiable.asarray(where, bool))
    for derivative in temperature_derivatives(differentiable, masked, x, temperature):
        assert not derivative.any()


def temperature_derivatives(backend, function, x, temperature):
    """Return ∂y/∂T, both ways, ∂²y/∂T² and ∂²y/∂x∂T."""

    def f(x, t):
        return function(x, temperature=t)

    autodiff = backend.autodiff
    for derivative in (
        autodiff.jacfwd(f, 1),
        autodiff.jacrev(f, 1),
        autodiff.hessian(f, 1),
        autodiff.jacfwd(autodiff.jacrev(f, 1), 0),
    ):
        yield backend.to_numpy(backend.run(derivative, x, backend.asarray(temperature)))


WEIGHT_DERIVATIVES = {  # ∂y/∂w_i = exp(x_i - y)
    "a weight 0": ([2, 2, 2], [0, 1, 3], [1 / 4, 1 / 4, 1 / 4]),
    "a weight 0 on NaN": ([NAN, 2, 2], [0, 1, 3], [0, 1 / 4, 1 / 4]),
    "a weight 0 on inf": ([INF, 2, 2], [0, 1, 3], [0, 1 / 4, 1 / 4]),
    "a weight 0 on -inf": ([-INF, 2, 2], [0, 1, 3], [0, 1 / 4, 1 / 4]),
    "an entry -inf": ([-INF, 2, 2], [5, 1, 3], [0, 1 / 4, 1 / 4]),
    "weights of both signs": ([2, 2, 2], [-2, 1, 3], [1 / 2, 1 / 2, 1 / 2]),
    "all -inf": ([-INF, -INF, -INF], [1, 0, 3], [0, 0, 0]),
}


@pytest.mark.parametrize(
    ("x", "weights", "expected"), WEIGHT_DERIVATIVES.values(), ids=WEIGHT_DERIVATIVES
)
def test_derivative_by_weights(differentiable, x, weights, expected):
    x, weights = differentiable.asarray(x), differentiable.asarray(weights)

    def f(w):
        return sm.logsumexp(x, weights=w)

    autodiff, expected = differentiable.autodiff, np.array(expected)
    for derivative, exact in (
        (autodiff.jacfwd(f), expected),
        (autodiff.jacrev(f), expected),
        (autodiff.hessian(f), -np.outer(expected, expected)),
    ):
        found = differentiable.to_numpy(differentiable.run(derivative, weights))
        np.testing.assert_array_max_ulp(exact, found, ULPS)


@pytest.mark.parametrize("entry", [NAN, INF, -INF, 1e300])
def test_derivative_by_masked_weights_is_0(differentiable, entry):
    x, w = (differentiable.asarray([entry, *rest]) for rest in ([2, 2], [1, 3]))
    where = differentiable.asarray([False, True, True], bool)
    derivative = differentiable.autodiff.jacfwd(lambda w: sm.logsumexp(x, where=where, weights=w))
    dw = differentiable.to_numpy(derivative(w))
    np.testing.assert_array_max_ulp(np.array([0, 1 / 4, 1 / 4]), dw, ULPS)


# Types ----------------------------------------------------------------------------------------------------------------

INTEGERS = {
    "bool": [True, False, True],
    "uint8": [1, 2, 0],
    "int8": [100, -100, 99],
    "uint16": [0, 65535, 65534],
    "int64": [2**63 - 1, -(2**63), 2**63 - 1],
}


@every_function
@pytest.mark.parametrize(("dtype", "values"), INTEGERS.items(), ids=INTEGERS)
def test_integers_are_promoted_before_they_are_subtracted(backend, function, dtype, values):
    x, v = backend.asarray(values, dtype), backend.asarray([3, 4, 5], backend.default)
    real = backend.asarray(np.array(values, dtype), backend.default)
    assert_same(backend.to_numpy(function(real)), backend.to_numpy(function(x)))
    for expected, actual in zip(sm.jvp(function, real, v), sm.jvp(function, x, v), strict=True):
        assert_same(backend.to_numpy(expected), backend.to_numpy(actual))


@every_function
def test_integers_become_single_precision_where_that_is_the_default(jax, function):
    with jax.enable_x64(False):
        assert function(jax.numpy.asarray([1, 2, 0], "uint8")).dtype == "float32"


@every_function
@pytest.mark.parametrize("narrow", ["float16", "bfloat16"])
def test_half_precision_is_rounded_once(backend, function, narrow):
    if not backend.has(narrow):
        pytest.skip(f"{backend.name} has no {narrow}")
    rng = np.random.default_rng(8)
    x, v = (backend.asarray(rng.normal(scale=3, size=100), narrow) for _ in range(2))
    wide = [backend.asarray(backend.to_numpy(a), "float32") for a in (x, v)]
    expected, actual = backend.run(sm.jvp, function, *wide), backend.run(sm.jvp, function, x, v)
    for wide_y, y in zip(expected, actual, strict=True):
        with np.errstate(under="ignore"):
            assert_same(backend.to_numpy(wide_y).astype(narrow), backend.to_numpy(y))


def test_half_precision_does_not_overflow_in_a_long_sum(backend):
    if not backend.has("float16"):
        pytest.skip(f"{backend.name} has no float16")
    y = backend.run(sm.logsumexp, backend.asarray(np.zeros(100_000), "float16"))
    assert_same(np.float16(11.516), backend.to_numpy(y))


@every_function
def test_complex_numbers_are_refused(backend, function):
    with pytest.raises(TypeError, match="x must be real, got dtype complex128"):
        backend.run(function, backend.asarray([1, 2], "complex128"))


# Compiled, differentiated or neither ----------------------------------------------------------------------------------


@every_function
def test_a_value_does_not_change_because_someone_differentiates_it(backend, dtype, function):
    x = backend.asarray(np.random.default_rng(6).normal(scale=10, size=1000), dtype)
    expected = backend.to_numpy(backend.run(function, x))
    for y, _ in backend.run(
        with_derivatives, function, x, xp=backend.xp, autodiff=backend.autodiff
    ):
        assert_same(expected, backend.to_numpy(y))


def with_derivatives(function, x, *, xp, autodiff=None):
    """Return the value by every road that also gives a derivative, which keeps the compiler from dropping it."""
    y, dy = sm.jvp(function, x, x)
    z, pullback = sm.vjp(function, x)
    found = [(y, dy), (z, pullback(xp.ones_like(z)))]
    if autodiff:
        z, pullback = autodiff.vjp(function, x)
        found += [autodiff.jvp(function, (x,), (x,)), (z, pullback(xp.ones_like(z)))]
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [16_385, 32_769, 50_257, 128_256])
def test_long_slices_keep_the_budget_compiled_or_not(jax, n, dtype):
    rng = np.random.default_rng(n)
    x, u = (rng.choice(rng.normal(scale=5, size=99), n).astype(dtype) for _ in range(2))
    p, vjp = truth.softmax(x), truth.softmax_jvp(x, u)
    expected = {
        "softmax": (p, p),
        "log_softmax": (truth.log_softmax(x),) * 2,
        "logsumexp": (truth.logsumexp(x),) * 2,
        "logsumexp gradient": (p, p),
        "softmax VJP": (vjp.value, vjp.entry_scale),
    }
    x, u = jax.numpy.asarray(x), jax.numpy.asarray(u)
    eager, jit = everything(x, u), jax.jit(everything)(x, u)
    batch = jax.jit(jax.vmap(everything))(jax.numpy.stack([-x, x]), jax.numpy.stack([u, u]))
    for found in (eager, jit, {name: y[1] for name, y in batch.items()}):
        for name, (exact, scale) in expected.items():
            assert ulp_error(found[name], exact, dtype, scale=scale).max() <= budget(name, dtype)


def everything(x, u):
    import jax

    p, pullback = jax.vjp(sm.softmax, x)
    y, dy = jax.value_and_grad(sm.logsumexp)(x)
    return {
        "softmax": p,
        "softmax VJP": pullback(u)[0],
        "log_softmax": sm.log_softmax(x),
        "logsumexp": y,
        "logsumexp gradient": dy,
    }


@every_function
@pytest.mark.parametrize("size", [1, 1e9, 1e20])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.7}], ids=str)
def test_a_scale_inside_jit_changes_nothing(jax, function, options, size):
    options = {} if function is sm.logsumexp else options

    def scaled(x):
        return function(x * 3.3, axis=-1, **options)  # a quotient is not rounded by every version

    x = np.random.default_rng(9).normal(scale=size, size=(50, 20)).astype("float32")
    x[:, 7] = x.max(axis=1)  # met twice, it must be found twice
    expected, actual = scaled(jax.numpy.asarray(x)), jax.jit(scaled)(jax.numpy.asarray(x))
    assert np.isfinite(expected).all()
    assert_same(np.asarray(expected), np.asarray(actual))


# On PyTorch, in batches and compiled ----------------------------------------------------------------------------------


def compiled(torch, f):
    torch.compiler.reset()
    return torch.compile(f, fullgraph=True, backend="aot_eager")


@every_function
@pytest.mark.parametrize(
    "manner",
    [
        pytest.param(lambda torch, f: torch.func.vmap(f), id="vmap"),
        seldom(compiled, id="compiled"),
    ],
)
def test_the_contract_holds_for_a_batch_of_slices(torch, function, manner):
    backend = backend_named("torch")
    taken = [row for row in CONTRACT.values() if getattr(row, function.__name__) is not None]
    for _, group in itertools.groupby(sorted(taken, key=of_one_kind), of_one_kind):
        f = manner(torch, partial(pulled_and_pushed, torch, function))
        rows = list(group)
        expected = [getattr(row, function.__name__) for row in rows]
        x, options = arguments(backend, in_batches(rows), "float64")
        v, u = (direction(shape) for shape in (x.shape[1:], np.shape(expected[0].value)))
        moving = (backend.asarray(np.stack([a] * len(rows))) for a in (v, u))
        y, dx, h = f(x, *moving, options)
        for i, row in enumerate(expected):
            assert_is(row.value, y[i], backend, "value")
            assert_is(product(u, row.jacobian), dx[i], backend, "vjp")
            assert_is(product(row.hessian, v), h[i], backend, "hvp")


def of_one_kind(row):
    """Return what makes the arrays of rows stack."""
    return len(row.x), tuple(row.options)


def in_batches(rows):
    """Return rows of one kind as one of arrays with an axis in front; each keeps one temperature."""
    n = len(rows[0].x)
    options = {
        name: np.stack(
            [np.broadcast_to(row.options[name], 1 if name == "temperature" else n) for row in rows]
        )
        for name in rows[0].options
    }
    return Row(np.array([row.x for row in rows], float), options=options)


def pulled_and_pushed(torch, function, x, v, u, options):
    """Return the value, uᵀ J and H v of every slice."""
    f = partial(function, axis=-1, **options)
    y, pullback = torch.func.vjp(f, x)
    h = torch.func.jvp(torch.func.grad(lambda x: f(x).sum()), (x,), (v,))[1]
    return y, pullback(u)[0], h


# The tools ------------------------------------------------------------------------------------------------------------


def arguments(backend, row, dtype):
    """Return the scores and the options of a row as arrays of the backend."""
    with np.errstate(over="ignore"):  # 1e300 is inf in float32, and as good
        x = backend.asarray(row.x, dtype)
        options = {
            name: backend.asarray(value, None if name == "where" else dtype)
            for name, value in row.options.items()
        }
    return x, options


def direction(shape):
    return np.arange(3.0, 3 + np.prod(shape)).reshape(shape)


def product(a, b):
    """Return the tensor product a b, where what the contract leaves open counts as 0."""
    if a is None or b is None:
        return None
    a, b = known(a), known(b)
    return np.tensordot(a, b, min(a.ndim, b.ndim) if a.ndim != 1 or b.ndim != 2 else 1)


def known(expected):
    return np.where(np.equal(expected, None), 0.0, expected).astype(float)


def assert_each(found, backend, **expected):
    for road, actual in found.items():
        assert_is(expected[road.partition(" ")[0]], actual, backend, road)


def assert_is(expected, actual, backend, name="value"):
    if expected is None:
        return
    actual, free = backend.to_numpy(actual), np.equal(expected, None)
    with np.errstate(over="ignore", under="ignore"):
        expected = known(expected).astype(actual.dtype)
    assert actual.shape == expected.shape
    with np.errstate(invalid="ignore", over="ignore"):
        same = np.abs(actual - expected) <= ULPS * np.spacing(np.abs(expected))
    same |= (actual == expected) | (np.isnan(actual) & np.isnan(expected)) | free
    assert same.all(), f"{name}: expected {expected}, got {actual}"


def assert_same(expected, actual):
    """Assert that dtype, shape and bits agree; a NaN is a NaN, and 0 is 0."""
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected, strict=True)
