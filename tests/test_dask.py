"""Dask stays lazy, keeps its chunks, computes in one pass, and in silence."""

import operator
from functools import partial, reduce

import numpy as np
import pytest
from cases import CASES, direction, every_function
from foreign import ForeignArray
from regimes import REGIMES, regime, seeded
from ulps import ulp_error

import softmaxes as sm
from softmaxes import online
from softmaxes._arrays import namespace_of

dask = pytest.importorskip("dask", reason="dask is not installed")
da = pytest.importorskip("dask.array", reason="dask is not installed")

INF, NAN = np.inf, np.nan
X = np.array(
    [
        [1.0, -INF, -INF, 3.0, 2.0, 0.5, -4.0, 1000.0],
        [-INF, -INF, -INF, -INF, -INF, -INF, -INF, -INF],
        [0.0, 1.0, INF, 2.0, 3.0, 1.0, -INF, 0.0],
        [INF, 1.0, 2.0, 3.0, INF, 1.0, -INF, 0.0],
        [1.0, 2.0, 3.0, 4.0, NAN, 1.0, -INF, 5.0],
        [-3.0, -2.0, -800.0, -1.0, -1.0, -1.0, -1.0, -1.0],
    ]
)
MASK = np.array([[True, True, False, False, True, True, True, False]] * 6)
POSITIVE = np.linspace(0.5, 2.0, X.size).reshape(X.shape)

# What may stand beside the scores, and the functions that take it.
NORMALISERS = (sm.softmax, sm.log_softmax)
CALLS = {
    "alone": ({}, (*NORMALISERS, sm.logsumexp)),
    "mask": ({"where": MASK}, (*NORMALISERS, sm.logsumexp)),
    "a chunk masked": ({"where": np.arange(8) > 2}, (*NORMALISERS, sm.logsumexp)),
    "temperature": ({"temperature": 0.7}, NORMALISERS),
    "temperature of each entry": ({"temperature": POSITIVE}, NORMALISERS),
    "weights": ({"weights": POSITIVE}, (sm.logsumexp,)),
}
every_call = pytest.mark.parametrize(
    ("f", "options"),
    [
        pytest.param(f, options, id=f"{f.__name__}, {label}")
        for label, (options, functions) in CALLS.items()
        for f in functions
    ],
)
CHUNKS = {
    "rows": (2, 8),
    "columns": (6, 3),
    "both": (2, 3),
    "empty ones": ((0, 4, 0, 2), (0, 3, 0, 5)),
}
every_chunking = pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)


@pytest.fixture(autouse=True)
def in_threads():
    """Compute in threads, where no setting of NumPy made here holds."""
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


def lazy(a, chunks=(2, 3)):
    """Return an array of Dask in chunks, of anything but an array the thing itself."""
    if not isinstance(a, np.ndarray):
        return a
    return da.from_array(a, chunks=chunks if a.ndim == 2 else -1)


def with_lazy(options, chunks=(2, 3)):
    return {name: lazy(option, chunks) for name, option in options.items()}


def layers(y):
    """Return what the layers of a graph do, from their names."""
    return [name.rpartition("-")[0] for name in y.dask.layers]


def chunk_tasks(y):
    """Return the number of tasks, the chunks of the input among them."""
    return len(y.dask.to_dict())


def largest(y):
    """Return the number of entries of the largest array that is at hand while y is computed."""
    sizes = []

    def note(key, result, *state):
        sizes.append(getattr(result, "size", 0))

    with dask.callbacks.Callback(posttask=note):
        for block in y.to_delayed().ravel():
            block.compute(scheduler="synchronous", optimize_graph=False)
    return max(sizes)


def refuse(*arguments, **options):
    raise AssertionError("something was computed while the graph was built")


# Values ---------------------------------------------------------------------------------------------------------------


@every_call
@every_chunking
@pytest.mark.parametrize("axis", [-1, 0, None])
def test_chunks_change_no_value_and_warn_of_nothing(f, options, chunks, axis):
    expected = f(X, axis, **options)
    y = f(lazy(X, chunks), axis, **with_lazy(options, chunks))
    assert (y.shape, y.dtype, type(y._meta)) == (expected.shape, expected.dtype, np.ndarray)
    np.testing.assert_array_max_ulp(*map(finite, (y.compute(), expected)), maxulp=6)


def finite(a):
    """Return a with what is not finite as numbers of its own."""
    return np.nan_to_num(np.asarray(a), nan=1e308, posinf=1e307, neginf=-1e307)


@pytest.mark.parametrize("name", REGIMES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_entry_of_a_slice_in_chunks_keeps_its_budget(name, dtype):
    x = regime(name, 203, dtype, seeded(name, 203))
    for case in CASES.values():
        y = case.function(da.from_array(x, chunks=50), -1).compute()
        error = ulp_error(np.asarray(y), case.exact(x), dtype, scale=case.scale(x)).max()
        assert error <= case.budget(dtype), case.function.__name__


@every_function
@pytest.mark.parametrize("columns", [100, 5_000])
def test_a_long_slice_in_many_chunks_keeps_its_budget(function, columns):
    (case,) = (case for case in CASES.values() if case.function is function)
    x = regime("scale_10", 20_000, "float32", seeded("scale_10", 20_000))
    y = case.function(da.from_array(x, chunks=columns), -1).compute()
    error = ulp_error(np.asarray(y), case.exact(x), "float32", scale=case.scale(x)).max()
    assert error <= case.budget("float32")


every_width = pytest.mark.parametrize("columns", [8, 3], ids=["whole slices", "slices in chunks"])


@every_call
@every_width
def test_lengths_need_not_be_known(f, options, columns):
    rows = np.array([True, True, False, False, True, True])  # none of the second chunk

    def some(a):
        return a[da.from_array(rows, chunks=2)] if getattr(a, "ndim", 0) == 2 else a

    x, unknown = some(lazy(X, (2, columns))), with_lazy(options, (2, columns))
    y = f(x, -1, **{name: some(option) for name, option in unknown.items()})
    known = {name: a[rows] if np.ndim(a) == 2 else a for name, a in options.items()}
    np.testing.assert_array_max_ulp(*map(finite, (y.compute(), f(X[rows], -1, **known))), maxulp=6)


@every_function
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_nothing_comes_of_nothing_in_any_chunks(function, shape):
    expected = function(np.ones(shape), -1)
    chunks = tuple((0, n // 2, n - n // 2) for n in shape)
    np.testing.assert_array_equal(function(da.ones(shape, chunks=chunks), -1).compute(), expected)


@every_function
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_the_derivatives_of_nothing_are_nothing_in_any_chunks(function, shape):
    x = da.ones(shape, chunks=tuple((0, n // 2, n - n // 2) for n in shape))
    y, pullback = sm.vjp(function, x, axis=-1)
    j = sm.jacobian(function, x, axis=-1)
    assert (pullback(y).compute().shape, j.compute().shape) == (shape, y.shape + shape)


@pytest.mark.parametrize("f", [sm.softmax, sm.log_softmax, sm.logsumexp])
@every_width
def test_derivatives_are_those_of_numpy(f, columns):
    x, v = X[5:], direction((1, 8), "float64")
    chunked, moving = (lazy(a, (1, columns)) for a in (x, v))
    (y, pullback), (same, pull) = sm.vjp(f, chunked, axis=-1), sm.vjp(f, x, axis=-1)
    np.testing.assert_allclose(pullback(y), pull(same), rtol=1e-14)
    for derivative in (sm.jvp, lambda *a, **o: (sm.hvp(*a, **o),)):
        found, expected = (derivative(f, *a, axis=-1)[-1] for a in ((chunked, moving), (x, v)))
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-16)


@every_function
@every_width
def test_lengths_need_not_be_known_for_a_derivative(function, columns):
    x, v = X[::5], X[[5, 5]]
    chunked, moving = (some(lazy(a[[0, 0, 1]], (1, columns))) for a in (x, v))
    (y, pullback), (same, pull) = sm.vjp(function, chunked, axis=-1), sm.vjp(function, x, axis=-1)
    np.testing.assert_allclose(pullback(y), pull(same), rtol=1e-14)
    for derivative in (sm.jvp, lambda *a, **o: (sm.hvp(*a, **o),)):
        found, expected = (
            derivative(function, *a, axis=-1)[-1] for a in ((chunked, moving), (x, v))
        )
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-16)


def some(a):
    """Return the array without its first entry or row, in chunks whose lengths are not known."""
    return a[da.from_array(np.arange(len(a)) > 0, chunks=a.chunks[0])]


# The losses, with what they take beside the scores.
LOSSES = {
    "numbers": (sm.cross_entropy, np.array([3, 0, 2, 4, 7, 5]), {}),
    "numbers, smooth": (sm.cross_entropy, np.array([3, 0, 2, 4, 7, 5]), {"label_smoothing": 0.1}),
    "soft labels": (sm.cross_entropy, POSITIVE, {}),
    "a mask": (sm.cross_entropy, np.array([0, 0, 4, 0, 4, 5]), {"where": MASK}),
    "divergence": (sm.kl_divergence, X[::-1].copy(), {}),
    "entropy": (sm.entropy, None, {}),
}
every_loss = pytest.mark.parametrize(("loss", "beside", "options"), LOSSES.values(), ids=LOSSES)


@every_loss
@every_chunking
def test_a_loss_is_lazy_and_that_of_numpy(loss, beside, options, chunks):
    rest = () if beside is None else (beside,)
    with dask.config.set(scheduler=refuse):
        y = loss(lazy(X, chunks), *(lazy(a, chunks) for a in rest), **with_lazy(options, chunks))
        sm.vjp(
            loss, lazy(X, chunks), *(lazy(a, chunks) for a in rest), **with_lazy(options, chunks)
        )
    expected = finite(loss(X, *rest, **options))
    np.testing.assert_array_max_ulp(finite(y.compute()), expected, maxulp=6)


@every_loss
@every_width
def test_lengths_need_not_be_known_for_a_loss(loss, beside, options, columns):
    rest = () if beside is None else (beside,)

    def unknown(a):
        return some(da.from_array(a, chunks=(2, columns)[: a.ndim]))

    options_unknown = {n: unknown(a) if np.ndim(a) == 2 else a for n, a in options.items()}
    y = loss(unknown(X), *(unknown(a) for a in rest), **options_unknown)
    known = {n: a[1:] if np.ndim(a) == 2 else a for n, a in options.items()}
    expected = loss(X[1:], *(a[1:] for a in rest), **known)
    np.testing.assert_array_max_ulp(finite(y.compute()), finite(expected), maxulp=6)


def test_the_loss_of_a_product_is_lazy_and_that_of_numpy():
    weights, labels = POSITIVE[:5], np.arange(6) % 5
    features = POSITIVE[::-1].copy()
    with dask.config.set(scheduler=refuse):
        arrays = (lazy(features), lazy(weights), da.from_array(labels, chunks=2))
        y, pullback = sm.vjp(sm.linear_cross_entropy, *arrays)
        gradient = pullback(y)
    expected, pull = sm.vjp(sm.linear_cross_entropy, features, weights, labels)
    np.testing.assert_allclose(y, expected, rtol=1e-14)
    np.testing.assert_allclose(gradient, pull(expected), rtol=1e-13)


UNKNOWN = {
    "a jacobian": (lambda a: sm.jacobian(sm.softmax, a), "x"),
    "features": (lambda a: sm.linear_cross_entropy(a, lazy(X[:3]), [0, 1]), "features"),
    "weights": (lambda a: sm.linear_cross_entropy(lazy(X), a, [0] * 6), "weights"),
    "classes": (lambda a: sm.cross_entropy(a, [0] * 8, axis=0), "logits"),
}


@pytest.mark.parametrize(("call", "name"), UNKNOWN.values(), ids=UNKNOWN)
def test_where_a_length_must_be_known_the_error_says_how(call, name):
    message = rf"{name} must have known lengths, got shape \(nan, 8\): .*compute_chunk_sizes"
    with pytest.raises(ValueError, match=message):
        call(some(lazy(X)))


def test_states_of_dask_merge_in_silence():
    pieces = [lazy(X[:, :3]), lazy(X[:, 3:])]
    state = reduce(online.update, pieces, online.empty(xp=da))
    np.testing.assert_allclose(online.logsumexp(state), sm.logsumexp(X, -1), rtol=1e-15)


@every_function
def test_chunks_of_another_library_stay_there(function):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for columns in (8, 3):
        x = lazy(X, (6, columns)).map_blocks(torch.from_numpy, meta=np.empty((0, 0)))
        blocks = dask.compute(*function(x, -1).to_delayed().ravel())
        assert {type(block) for block in blocks} == {torch.Tensor}
        y = np.concatenate(blocks, axis=-1)
        np.testing.assert_allclose(y, function(X, -1), rtol=1e-14)


def seen(x):
    return online.update(online.empty(xp=namespace_of(x)), x)


BY_ROWS = partial(sm.logsumexp, axis=-1)
IN_CHUNKS = {
    "softmax": (sm.softmax, (), {}),
    "a mask": (sm.log_softmax, (), {"where": MASK}),
    "a mask from a list": (sm.log_softmax, (), {"where": MASK[0].tolist()}),
    "a temperature": (sm.softmax, (), {"temperature": 0.7}),
    "logsumexp": (BY_ROWS, (), {}),
    "weights": (BY_ROWS, (), {"weights": POSITIVE}),
    "a weight": (BY_ROWS, (), {"weights": 2.0}),
    "class numbers": (sm.cross_entropy, LOSSES["numbers"][1:2], {}),
    "class numbers, smooth": (sm.cross_entropy, LOSSES["numbers"][1:2], {"label_smoothing": 0.1}),
    "soft labels": (sm.cross_entropy, (POSITIVE,), {}),
    "divergence": (sm.kl_divergence, (POSITIVE,), {}),
    "entropy": (sm.entropy, (), {}),
    "gradient": (lambda x, u: sm.vjp(sm.softmax, x)[1](u), (POSITIVE,), {}),
    "tangent": (lambda x, v: sm.jvp(sm.log_softmax, x, v)[1], (POSITIVE,), {}),
    "curvature": (lambda x, v: sm.hvp(sm.logsumexp, x, v, axis=-1), (POSITIVE,), {}),
    "state": (lambda x: online.logsumexp(seen(x)), (), {}),
}
every_call_in_chunks = pytest.mark.parametrize(
    ("f", "beside", "options"), IN_CHUNKS.values(), ids=IN_CHUNKS
)


@every_call_in_chunks
@every_width
def test_chunks_like_those_of_cupy_never_meet_an_array_of_numpy(f, beside, options, columns):
    def there(a):
        if not isinstance(a, np.ndarray):
            return a
        return da.from_array(ForeignArray(a), chunks=(2, columns)[: a.ndim], asarray=False)

    x = X[[0, 2, 5, 0, 2, 5]]
    given = {name: there(option) for name, option in options.items()}
    y = f(there(x), *map(there, beside), **given)
    expected = f(x, *beside, **options)
    assert isinstance(y._meta, ForeignArray)
    np.testing.assert_allclose(y.compute().a, expected, rtol=1e-13, atol=1e-15)


# States are merged by operations of Dask, which knows PyTorch's arrays as little as their reductions.
@pytest.mark.parametrize(
    ("f", "beside", "options"),
    [pytest.param(*call, id=name) for name, call in IN_CHUNKS.items() if name != "state"],
)
def test_chunks_of_pytorch_stay_there_where_slices_are_whole(f, beside, options):
    torch = pytest.importorskip("torch", reason="torch is not installed")

    def there(a):
        if not isinstance(a, np.ndarray):
            return a
        chunked = da.from_array(a, chunks=(2, 8)[: a.ndim])
        return chunked.map_blocks(torch.from_numpy, meta=np.empty((0,) * a.ndim, a.dtype))

    options = {n: a for n, a in options.items() if not isinstance(a, list)}
    y = f(there(X), *map(there, beside), **{n: there(a) for n, a in options.items()})
    blocks = dask.compute(*y.to_delayed().ravel())
    assert {type(block) for block in blocks} == {torch.Tensor}


# Graphs ---------------------------------------------------------------------------------------------------------------


@every_call
@every_chunking
def test_building_the_graph_computes_nothing(f, options, chunks):
    with dask.config.set(scheduler=refuse):
        x, options = lazy(X, chunks), with_lazy(options, chunks)
        f(x, -1, **options)
        sm.vjp(f, x, axis=-1, **options)


def test_a_temperature_of_dask_is_not_looked_at():
    with dask.config.set(scheduler=refuse):
        y = sm.softmax(lazy(X), temperature=da.from_array(np.array(-1.0)))
    assert np.isnan(y[5]).all().compute()


@every_function
def test_whole_slices_are_one_task_per_chunk(function):
    x = da.ones((6, 8), chunks=(2, 8))
    y = function(x, -1, keepdims=True) if function is sm.logsumexp else function(x)
    assert chunk_tasks(y) - chunk_tasks(x) == y.npartitions == 3


@every_call
def test_no_chunk_is_ever_made_larger(f, options):
    x = lazy(np.tile(X, 4), (2, 4))
    options = {name: np.tile(a, 4) if np.ndim(a) == 2 else a for name, a in options.items()}
    options = {name: a for name, a in options.items() if np.shape(a) != (8,)}
    assert largest(f(x, -1, **with_lazy(options, (2, 4)))) <= 8


@every_function
def test_slices_in_chunks_meet_at_one_barrier(function):
    y = function(lazy(X), -1)
    assert [name for name in layers(y) if "aggregate" in name] == ["_merged-aggregate"]
    assert not any("rechunk" in name for name in layers(y))


class Store:
    """What `da.from_array` reads from, and how often it did."""

    def __init__(self, a):
        self.a, self.shape, self.dtype, self.ndim = a, a.shape, a.dtype, a.ndim
        self.reads = 0

    def __getitem__(self, part):
        self.reads += 1
        return self.a[part]


def entries_between_tasks(y):
    """Return the number of entries of the results of tasks, but for those of y itself."""
    sizes, last = [0], set(dask.core.flatten(y.__dask_keys__()))

    def note(key, result, *state):
        if key not in last:
            sizes.append(getattr(result, "size", 0))

    with dask.callbacks.Callback(posttask=note):
        dask.get(dask.optimize(y)[0].dask, y.__dask_keys__())
    return sum(sizes)


@pytest.mark.parametrize("f", NORMALISERS)
@pytest.mark.parametrize("masked", [False, True])
def test_what_is_read_from_a_store_is_read_again_and_not_kept(f, masked):
    stores = [Store(X), Store(MASK)][: 1 + masked]
    scores, *mask = (da.from_array(store, chunks=(2, 3)) for store in stores)
    y = f(scores, -1, where=mask[0] if masked else None)
    for store in stores:
        store.reads = 0
    assert entries_between_tasks(y) == 0
    assert sum(name.startswith("original") for name in y.dask.layers) == len(stores)
    assert [store.reads for store in stores] == [2 * scores.npartitions] * len(stores)
    expected = f(X, -1, where=MASK if masked else None)
    np.testing.assert_array_max_ulp(*map(finite, (y.compute(), expected)), maxulp=6)


@pytest.mark.parametrize("f", NORMALISERS)
def test_what_is_computed_is_computed_once(f):
    made = []
    x = da.from_array(Store(X), chunks=(2, 3)).map_blocks(
        lambda chunk: made.append(chunk) or chunk, meta=X[:0, :0]
    )
    assert entries_between_tasks(f(x, -1)) == X.size
    assert len(made) == x.npartitions


def test_what_is_persisted_is_not_read_again():
    store = Store(X)
    x = da.from_array(store, chunks=(2, 3)).persist()
    store.reads = 0
    sm.softmax(x, -1).compute()
    assert store.reads == 0


def test_a_piece_in_chunks_meets_at_one_barrier_and_may_be_made_again():
    from dask.graph_manipulation import bind

    x = lazy(X)
    state = online.update(online.empty(xp=da), x)
    assert sum("aggregate" in name for name in layers(online.logsumexp(state))) == 1
    again = bind(x, list(state[:3]))
    p = online.softmax(again, state)
    np.testing.assert_array_max_ulp(finite(p.compute()), finite(sm.softmax(X)), maxulp=6)


def test_the_states_are_merged_in_a_tree():
    x = da.zeros((1, 64), chunks=(1, 1))
    with dask.config.set(split_every=2):
        y = sm.logsumexp(x, -1)
    partial_merges = sum(name.startswith("_merged-partial") for name in y.dask.layers)
    assert partial_merges == 5  # and the last of log2(64) merges is the aggregation
    np.testing.assert_array_equal(y, np.log([64.0]))


def test_the_same_call_has_the_same_name():
    x = lazy(X)
    assert sm.softmax(x).name == sm.softmax(x).name != sm.softmax(x, 0).name


def test_a_graph_can_be_sent_to_another_process():
    y = operator.methodcaller("compute", scheduler="processes", num_workers=1)(
        partial(sm.softmax, axis=-1)(lazy(X))
    )
    np.testing.assert_allclose(y, sm.softmax(X), rtol=1e-15)
