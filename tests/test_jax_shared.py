"""JAX's arrays in compiled loops: what XLA hands over, and what it is spared."""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from cases import every_function

import softmaxes as sm
from softmaxes._backends import _sums
from softmaxes._backends._compiled import loops

pytestmark = pytest.mark.skipif(loops() is None, reason="no loops are compiled")

MANY = 1 << 17  # entries, of which all are handed over whatever the rest of the suite asks for


@pytest.mark.parametrize("dtype", ["bool", "float32", "float64", "bfloat16"])
def test_xla_hands_over_its_memory(jax, dtype):
    from softmaxes._backends._xla import HANDLER, arrays_of, numbered, registered

    def work(frame):
        a, b, result = arrays_of(frame)
        assert a.dtype == b.dtype == result.dtype == dtype
        result[...] = np.concatenate([a, b], axis=-1)

    number = np.array([numbered(work)])
    a, b = (
        jax.numpy.asarray(np.random.default_rng(i).normal(size=(2, 3, i)), dtype) for i in (1, 4)
    )
    result = jax.ShapeDtypeStruct((2, 3, 5), dtype)
    f = jax.ffi.ffi_call(registered(HANDLER), result)
    found = jax.jit(lambda a, b: f(a, b, call=number))(a, b)
    np.testing.assert_array_equal(found, np.concatenate([a, b], axis=-1))


def test_an_error_in_what_xla_calls_is_one_of_jax(jax):
    from softmaxes._backends._xla import HANDLER, numbered, registered

    def work(frame):
        raise ValueError("nothing works")

    f = jax.ffi.ffi_call(registered(HANDLER), jax.ShapeDtypeStruct((2,), "float32"))
    with pytest.raises(jax.errors.JaxRuntimeError, match="ValueError: nothing works"):
        jax.block_until_ready(
            jax.jit(lambda x: f(x, call=np.array([numbered(work)])))(jax.numpy.ones(2, "float32"))
        )


@every_function
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bits_are_those_of_numpy(jax, function, dtype):
    x = np.random.default_rng(0).normal(scale=4, size=(MANY // 64, 64)).astype(dtype)
    mask = np.random.default_rng(1).random(x.shape) < 0.5
    for options in ({}, {"where": mask}):
        expected = function(x, axis=-1, **options)
        given = jax.tree.map(jax.numpy.asarray, (x, options))
        np.testing.assert_array_equal(function(given[0], axis=-1, **given[1]), expected)


def rows_of_all_kinds(shape):
    """Return rows near 0, far from it, with a dominant entry, with each special value, and without any."""
    rng = np.random.default_rng(0)
    x = rng.normal(scale=4, size=shape)
    x[::4] *= 30
    x[1::4, 5] = 20
    x[2::16, 7], x[6::16, 8], x[10::16, 9], x[14::16] = np.nan, np.inf, -np.inf, -np.inf
    return x, rng.normal(size=shape), rng.random(shape) < 0.5


@every_function
@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("shape", [(MANY // 64, 64), (MANY // 100, 103), (3, _sums.TILE + 5)])
def test_bfloat16_is_computed_in_single_precision_and_rounded_once(
    jax, function, shape, axis, is_masked
):
    x, u, where = (a if axis else a.T for a in rows_of_all_kinds(shape))
    half, mask = jax.numpy.asarray(x, "bfloat16"), jax.numpy.asarray(where) if is_masked else None
    y, pullback = jax.vjp(lambda x: function(x, axis=axis, where=mask), half)
    u = jax.numpy.asarray(u if y.shape == x.shape else u.take(0, axis), "bfloat16")
    single, pullback_of_single = jax.vjp(
        lambda x: function(x, axis=axis, where=mask), half.astype("float32")
    )
    for found, expected in (
        (y, single),
        (pullback(u)[0], pullback_of_single(u.astype("float32"))[0]),
    ):
        assert found.dtype == "bfloat16"
        narrow, rounded = (
            np.asarray(a.astype("float32")) for a in (found, expected.astype("bfloat16"))
        )
        np.testing.assert_array_equal(narrow, rounded)


def test_bfloat16_is_rounded_to_the_nearest_and_of_two_to_the_even():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    from softmaxes._backends._numba._parts import copied

    halves = np.arange(1 << 16, dtype=np.uint16)[None]
    read = np.empty(halves.shape, np.float32)
    copied(halves, read)
    np.testing.assert_array_equal(read, halves.view(ml_dtypes.bfloat16).astype(np.float32))
    around = [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF]
    singles = np.add.outer(np.uint32(around), np.uint32(halves[0]) << 16).view(np.float32)
    for a in (singles, singles[:, :-5]):
        written = np.empty(a.shape, np.uint16)
        for i in range(len(a)):
            copied(np.ascontiguousarray(a[i : i + 1]), written[i : i + 1])
        with np.errstate(invalid="ignore"):
            expected = a.astype(ml_dtypes.bfloat16)
        found = written.view(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(np.float32(found), np.float32(expected))


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("highest", [0.0, 30.0, 300.0])
@every_function
def test_the_cotangents_of_a_long_row_are_those_of_double_precision(
    jax, function, highest, is_masked
):
    rng = np.random.default_rng(3)
    x, where = rng.normal(size=2 * _sums.TILE + 7), np.full(2 * _sums.TILE + 7, True)
    where[::3] = not is_masked
    x[_sums.TILE + 1] = highest
    x, mask = jax.numpy.asarray(x, "float32"), jax.numpy.asarray(where) if is_masked else None
    y, pullback = jax.vjp(lambda x: function(x, axis=-1, where=mask), x)
    u = jax.numpy.asarray(rng.normal(size=y.shape), "float32")
    p = np.where(
        where, np.exp(np.float64(x) - np.float64(x).max(where=where, initial=-np.inf)), 0.0
    )
    p, v = p / p.sum(), np.where(where, np.float64(u), 0.0)
    mean = v.sum() if function is sm.log_softmax else p @ v
    expected = {
        sm.softmax: p * (v - mean),
        sm.log_softmax: v - p * mean,
        sm.logsumexp: p * v,
    }[function]
    found, eps = np.float64(pullback(u)[0]), np.finfo("float32").eps
    size = p * (abs(v) + abs(mean)) + (abs(v) if function is sm.log_softmax else 0.0)
    np.testing.assert_array_less(abs(found - expected), 8 * eps * size + 1e-37)
    if function is not sm.logsumexp:
        assert abs(found.sum()) <= 8 * eps * abs(found).sum()


@every_function
def test_many_callers_at_once_share_the_threads(jax, function):
    rng = np.random.default_rng(7)
    shapes = (MANY // 16, 64), (1, 2 * _sums.TILE + 7)
    f = jax.jit(lambda x: jax.vjp(lambda x: function(x, axis=-1), x)[1](function(x, axis=-1))[0])
    scores = [jax.numpy.asarray(rng.normal(size=shape), "float32") for shape in shapes]
    expected = [np.asarray(f(x)) for x in scores]
    with ThreadPoolExecutor(4) as callers:
        found = list(callers.map(lambda i: np.asarray(f(scores[i % 2])), range(60)))
    for i, y in enumerate(found):
        np.testing.assert_array_equal(y, expected[i % 2])


@every_function
@pytest.mark.parametrize(
    ("shape", "axis"), [((5000, 13), -1), ((300, 500), -1), ((300, 500), 0), ((2, 16_280), 0)]
)
def test_the_bits_do_not_depend_on_the_number_of_threads(jax, monkeypatch, function, shape, axis):
    x, u, _ = (jax.numpy.asarray(a, "float32") for a in rows_of_all_kinds(shape))
    u = u.take(0, axis) if function is sm.logsumexp else u

    def both(x, u):
        y, pullback = jax.vjp(partial(function, axis=axis), x)
        return y, pullback(u)[0]

    found = []
    for threads in "123":
        monkeypatch.setenv("SOFTMAXES_NUM_THREADS", threads)
        jax.clear_caches()
        found.append([np.asarray(a) for a in jax.jit(both)(x, u)])
    for some in found[1:]:
        for a, b in zip(some, found[0], strict=True):
            np.testing.assert_array_equal(a, b)


@every_function
@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("shape", [(37, 2100), (130, 1500)])
def test_tall_columns_that_threads_share_have_the_bits_of_rows(
    jax, monkeypatch, function, shape, is_masked
):
    """Of 37 columns one block is shared, and of 130 one after the other, as there are more threads."""
    monkeypatch.setenv("SOFTMAXES_NUM_THREADS", "3")
    jax.clear_caches()
    x, u, where = (jax.numpy.asarray(a) for a in rows_of_all_kinds(shape))
    x, u, where = x.astype("float32"), u.astype("float32"), where if is_masked else None

    def both(x, u, where, axis):
        y, pullback = jax.vjp(partial(function, axis=axis, where=where), x)
        return y, pullback(u.take(0, axis) if function is sm.logsumexp else u)[0]

    turned = None if where is None else where.T
    for a, b in zip(both(x.T, u.T, turned, 0), both(x, u, where, -1), strict=True):
        np.testing.assert_array_equal(a.T, b)


@every_function
def test_xla_is_told_how_many_threads_are_allowed(jax, monkeypatch, function):
    x = jax.numpy.zeros((300, 500), "float32")
    for threads in "13":
        monkeypatch.setenv("SOFTMAXES_NUM_THREADS", threads)
        jax.clear_caches()
        text = jax.jit(partial(function, axis=-1)).lower(x).as_text()
        assert f", {threads}, 500, 0]>" in text


@every_function
def test_between_arguments_and_results_nothing_is_kept(jax, function):
    x = jax.numpy.asarray(np.random.default_rng(0).normal(size=(8, MANY // 8)), "bfloat16")
    u = function(x, axis=-1)
    value = jax.jit(lambda x: function(x, axis=-1))
    gradient = jax.jit(lambda x, u: jax.vjp(lambda x: function(x, axis=-1), x)[1](u)[0])
    for f, arguments in ((value, (x,)), (gradient, (x, u))):
        compiled = f.lower(*arguments).compile()
        assert "softmaxes_" in compiled.as_text()
        assert compiled.memory_analysis().temp_size_in_bytes < 0.01 * x.nbytes


@pytest.mark.parametrize("is_masked", [False, True])
@every_function
def test_columns_have_the_bits_of_rows(jax, function, is_masked):
    rng = np.random.default_rng(4)
    for shape in ((70, MANY // 64), (2, MANY // 64, 33)):
        x, u = rng.normal(scale=4, size=(2, *shape)).astype("float32")
        where = rng.random(shape) < 0.5 if is_masked else np.full(shape, True)
        x[..., 3, 1], x[..., 4, 2], x[..., 5, 3], x[..., 6] = np.nan, np.inf, 300, -np.inf
        where[..., 7] = not is_masked
        u = u[..., :1, :] if function is sm.logsumexp else u
        found = of_value_and_gradient(jax, function, -2, x, where, u)
        turned = (np.moveaxis(a, -1, -2).copy() for a in (x, where, u))
        expected = of_value_and_gradient(jax, function, -1, *turned)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, np.moveaxis(b, -1, -2))


def of_value_and_gradient(jax, function, axis, x, where, u):
    def f(x):
        y = function(x, axis=axis, where=where)
        return jax.numpy.expand_dims(y, axis) if y.ndim < x.ndim else y

    def both(x, u):
        y, pullback = jax.vjp(f, x)
        return y, pullback(u)[0]

    x, where, u = (jax.numpy.asarray(a) for a in (x, where, u))
    where = None if where.all() else where
    assert "softmaxes_" in jax.jit(both).lower(x, u).compile().as_text()
    return jax.jit(both)(x, u)


@every_function
@pytest.mark.parametrize("shape", [(MANY // 64, 64), (70, MANY // 64), (1, _sums.TILE + 5)])
def test_a_batch_has_the_bits_of_its_parts(jax, function, shape):
    x, u = np.random.default_rng(5).normal(scale=4, size=(2, 3, *shape)).astype("float32")
    x[1, -1, 2], x[2, -1, 3] = np.nan, np.inf
    axis = -2 if shape[0] == 70 else -1

    def both(x, u):
        y, pullback = jax.vjp(lambda x: function(x, axis=axis), x)
        return y, pullback(u if y.shape == x.shape else u.take(0, axis))[0]

    found = jax.jit(jax.vmap(both))(x, u)
    expected = [jax.jit(both)(*parts) for parts in zip(x, u, strict=True)]
    for a, *parts in zip(found, *expected, strict=True):
        np.testing.assert_array_equal(a, np.stack(parts))


class Pool:
    """Threads of XLA: what is asked for at once, later, or refused."""

    def __init__(self, answer):
        self.answer, self.tasks, self.calls = answer, [], []
        schedule = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.POINTER(Request))
        self.functions = schedule(self._schedule), TASK(self.calls.append)

    def _schedule(self, request):
        self.tasks.append((request.contents.task, request.contents.data))
        if self.answer == "at once":
            self.run()
        return self.answer == "refused"

    def run(self):
        task, data = self.tasks.pop()
        TASK(task)(data)

    def addresses(self):
        return [ctypes.cast(f, ctypes.c_void_p).value for f in self.functions]


TASK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Request(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_void_p) for name in ("size", "extension", "context", "task", "data")
    ]


@pytest.mark.parametrize(("answer", "calls"), [("at once", 3), ("later", 1), ("refused", 1)])
def test_who_comes_late_finds_a_call_closed(answer, calls):
    from softmaxes._backends._numba._pool import in_pool

    pool = Pool(answer)
    schedule, share = pool.addresses()
    in_pool(schedule, 0, 3, share, 7)
    assert pool.calls == [7] * calls
    while answer == "later" and pool.tasks:
        pool.run()
    assert pool.calls == [7] * calls


@every_function
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_few_entries_do_not_ask_for_the_interpreter(jax, monkeypatch, function, dtype):
    from softmaxes._backends import _xla

    x, u, where = (jax.numpy.asarray(a) for a in rows_of_all_kinds((16, 10)))
    x, u = x.astype(dtype), u.astype(dtype)

    @partial(jax.jit, static_argnames="axis")
    def both(x, u, where, axis):
        y, pullback = jax.vjp(lambda x: function(x, axis=axis, where=where), x)
        return y, pullback(u if y.shape == x.shape else u.take(0, axis))[0]

    plain = jax.numpy.where(x < np.inf, x, 1.0)
    where = where.at[3].set(False).at[:, 4].set(False)  # beside a row of -inf
    expected = {axis: both(plain, u, where, axis) for axis in (0, -1)}
    both(x, u, where, -1)[0].block_until_ready()
    monkeypatch.setattr(_xla, "_works", [])
    for axis, (y, g) in expected.items():
        for a, b in zip(both(plain, u, where, axis), (y, g), strict=True):
            np.testing.assert_array_equal(a, b)
    # Special values do.
    with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match="IndexError"):
        jax.block_until_ready(both(x, u, where, -1))


@every_function
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("n", [10, 40])
def test_few_slices_have_the_bits_of_many(jax, function, dtype, axis, is_masked, n):
    few, times = 16, MANY // (16 * n) + 1
    rows = rows_of_all_kinds((few, n))
    found, expected = (
        values_and_cotangents(
            jax,
            function,
            axis,
            *(np.tile(a, (k, 1)) if axis else np.tile(a, (k, 1)).T for a in rows),
            dtype,
            is_masked,
        )
        for k in (1, times)
    )
    for a, b in zip(found, expected, strict=True):
        first = b[:few] if axis or b.ndim == 1 else b[:, :few]
        np.testing.assert_array_equal(a, first)


def values_and_cotangents(jax, function, axis, x, u, where, dtype, is_masked):
    x, u = (jax.numpy.asarray(a, dtype) for a in (x, u))
    mask = jax.numpy.asarray(where) if is_masked else None

    def both(x, u):
        y, pullback = jax.vjp(lambda x: function(x, axis=axis, where=mask), x)
        return y, pullback(u if y.shape == x.shape else u[0] if axis == 0 else u[..., 0])[0]

    assert "softmaxes_" in jax.jit(both).lower(x, u).compile().as_text()
    return [np.asarray(a.astype("float32")) for a in jax.jit(both)(x, u)]


@every_function
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((300, 5), 0),
        ((4, 90), 0),
        ((200, 4), -1),
        ((20, 3, 4), 1),
        ((20, 3, 70), 1),
        ((7, 30, 9), (0, 2)),
        ((2, 30, 3), (0, 2)),
        ((5, 70, 2), (1,)),
    ],
)
def test_slices_along_any_axes_have_the_bits_of_numpy(jax, function, shape, axis):
    x, _, where = rows_of_all_kinds((np.prod(shape) // 10, 10))
    x, where = x.astype("float32").reshape(shape), where.reshape(shape)
    where[-1] = False
    f = jax.jit(lambda x, where: function(x, axis=axis, where=where))
    assert "softmaxes_" in f.lower(x, where).compile().as_text()
    expected = function(x, axis=axis, where=where)
    flushed = np.where(abs(expected) < np.finfo("float32").tiny, 0, expected)  # as XLA does
    np.testing.assert_array_equal(f(x, where), flushed)


@every_function
@pytest.mark.parametrize("mask_shape", [(11, 1), (13,), (3, 1, 13), ()])
def test_a_mask_of_another_shape_is_copied_to_that_of_few_scores(
    jax, monkeypatch, function, mask_shape
):
    from softmaxes._backends import _jax_shared

    monkeypatch.setattr(_jax_shared, "MANY", MANY)
    x = jax.numpy.asarray(np.random.default_rng(0).normal(size=(3, 11, 13)), "float32")
    mask = jax.numpy.asarray(np.random.default_rng(1).random(mask_shape) < 0.7)

    text = jax.jit(lambda x, mask: function(x, axis=-1, where=mask)).lower(x, mask).as_text()
    assert "tensor<3x11x13xi1>" in text.split("softmaxes_")[1]
    whole = jax.numpy.broadcast_to(mask, x.shape)
    f = jax.jit(lambda x, mask: function(x, axis=-1, where=mask))
    np.testing.assert_array_equal(f(x, mask), f(x, whole))


def test_what_has_no_loop_is_left_to_xla(jax):
    x = jax.numpy.ones((MANY // 8, 8), "float32")
    for of, options in ((x, {"temperature": 2.0}), (x.astype("float16"), {}), (x[:0], {})):
        text = jax.jit(lambda x, o=options: sm.softmax(x, **o)).lower(of).compile().as_text()
        assert "softmaxes_" not in text
