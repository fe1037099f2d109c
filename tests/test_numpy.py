"""What is NumPy's own: moderate and ordinary rows in place, and threads."""

import math
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from functools import partial

import numpy as np
import pytest
from cases import CASES, every_function
from regimes import REGIMES, regime, seeded

import softmaxes as sm
from softmaxes import _primals, _rules
from softmaxes._arrays import Arrays
from softmaxes._backends import _columns, _moderate, _numpy, _ordinary, _sums, _threads
from softmaxes._backends._compiled import loops

on_our_threads = pytest.mark.skipif(loops() is not None, reason="their threads are not ours")

LARGE = (700, 1500)  # several tiles
LONG = 3 * _sums.TILE + 5


@pytest.fixture(autouse=True)
def several_parts_are_worked_in_threads(monkeypatch):
    monkeypatch.setattr(_threads, "FEW", 3)
    monkeypatch.setattr(_threads, "FEW_HEAVY", 3)


@pytest.fixture
def no_row_is_moderate(monkeypatch):
    monkeypatch.setattr(_moderate, "BOUNDS", dict.fromkeys(_moderate.BOUNDS, -1.0))


@pytest.fixture
def scores():
    """Scores of which some rows are not ordinary."""
    x = 5 * np.random.default_rng(3).standard_normal(LARGE, dtype="float32")
    x[::7, 0], x[3::50], x[5::90, :9] = np.inf, -np.inf, np.nan
    x[1::9, 5], x[2::9, 6] = -np.inf, -500.0
    return x


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", REGIMES)
def test_moderate_rows_are_within_the_budget_of_any_row(name, dtype, monkeypatch):
    rows = [regime(name, 300, dtype, seeded(name, 300, seed)) for seed in range(3)]
    assert_within_the_budget_of_any_row(np.stack(rows), monkeypatch)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", REGIMES)
@pytest.mark.usefixtures("no_row_is_moderate")
def test_ordinary_rows_are_within_the_budget_of_any_row(name, dtype, monkeypatch):
    rows = [regime(name, 300, dtype, seeded(name, 300, seed)) for seed in range(3)]
    assert_within_the_budget_of_any_row(np.stack(rows), monkeypatch)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_at_the_bounds_of_moderate_ones_are_within_the_budget(dtype, monkeypatch):
    bound = _moderate.BOUNDS[np.dtype(dtype)]
    rng = np.random.default_rng(6)
    x = rng.uniform(-bound, bound, (40, 300)).astype(dtype)
    x[::2, 0] = np.nextafter(x.dtype.type(bound), np.inf)
    x[10:20] = bound - np.abs(x[10:20]) * 1e-3
    x[20:30] = np.abs(x[20:30]) * 1e-3 - bound
    assert_within_the_budget_of_any_row(x, monkeypatch)


def assert_within_the_budget_of_any_row(x, monkeypatch):
    in_place = [case.function(x, axis=-1) for case in CASES.values()]
    monkeypatch.setattr(_numpy, "FORMULAS", {})
    for (name, case), y in zip(CASES.items(), in_place, strict=True):
        expected = case.function(x, axis=-1)
        scale = np.maximum(np.abs(expected), np.abs(x.max(-1))) if y.ndim == 1 else expected
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(y[~finite], expected[~finite])
        ulps = np.abs(y[finite] - expected[finite]) / np.spacing(np.abs(scale[finite] / 2)) / 2
        assert ulps.max(initial=0.0) <= case.budget(x.dtype.name), name


@pytest.mark.parametrize("spread", [0.5, 5.0])
@pytest.mark.parametrize("n", [2, 10])
def test_of_many_rows_in_float32_none_is_beyond_the_budget(n, spread):
    x = np.random.default_rng(0).normal(scale=spread, size=(200_000, n)).astype("float32")
    for name, case in CASES.items():
        exact = case.function(x.astype("float64"), axis=-1)  # to 29 more bits
        scale = np.maximum(np.abs(exact), np.abs(x.max(-1))) if exact.ndim == 1 else np.abs(exact)
        ulps = np.abs(case.function(x, axis=-1) - exact) / np.spacing(scale.astype("float32"))
        assert ulps.max() <= case.budget("float32"), name


@every_function
def test_numbers_longer_than_double_stay_as_long(function):
    x = np.array([[1, 2, 4], [1000, -np.inf, 999]], "longdouble")
    y = function(x, axis=-1)
    assert y.dtype == x.dtype
    np.testing.assert_allclose(y, function(x.astype(float), axis=-1), rtol=1e-15)
    if function is not sm.logsumexp:
        _, pullback = sm.vjp(function, x)
        assert pullback(x**0).dtype == x.dtype


def test_the_largest_score_has_the_largest_probability_though_exp_errs():
    low = np.random.default_rng(0).uniform(-3, 3, 200_000).astype("float32")
    x = np.stack([low, np.nextafter(low, np.float32(np.inf))], axis=1)
    assert (np.diff(np.exp(x)) < 0).any()
    assert (np.diff(sm.softmax(x)) >= 0).all()


@pytest.mark.skipif(loops() is not None, reason="the error is found in one loop")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_function
@pytest.mark.usefixtures("no_row_is_moderate")
def test_the_error_in_fewer_passes_has_the_same_bits(function, dtype, monkeypatch):
    is_no_larger, answers = _ordinary._is_no_larger, set()
    rng = np.random.default_rng(5)
    for scale, shift in [(1, 0), (3, 5), (30, 0), (30, -50), (1e4, 0)]:
        x = (scale * rng.standard_normal((30, 2000)) + shift).astype(dtype)
        monkeypatch.setattr(
            _ordinary, "_is_no_larger", lambda *a: answers.add(is_no_larger(*a)) or is_no_larger(*a)
        )
        fewer = function(x, axis=-1)
        monkeypatch.setattr(_ordinary, "_is_no_larger", lambda *_: False)
        np.testing.assert_array_equal(fewer, function(x, axis=-1))
    assert answers == {True, False}


TEMPERED = [case for case in CASES.values() if case.function is not sm.logsumexp]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("temperature", [0.7, 2.5, 4.0, 1e-3, 1e4, 2.0**-60, 2.0**-61, 2.0**61])
@pytest.mark.parametrize("case", TEMPERED, ids=lambda case: case.function.__name__)
def test_tempered_rows_are_within_the_budget_of_any_row(case, temperature, dtype, monkeypatch):
    rows = [
        regime(name, 300, dtype, seeded(name, 300))
        for name in REGIMES
        if name != "alternating_huge" or temperature > 1
    ]
    x, t = np.stack(rows), np.dtype(dtype).type(temperature)
    in_place = case.function(x, axis=-1, temperature=t)
    monkeypatch.setattr(_numpy, "FORMULAS", {})
    expected = case.function(x, axis=-1, temperature=t)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(in_place[~finite], expected[~finite])
    y, e = in_place[finite], expected[finite]
    assert (np.abs(y - e) <= case.budget(dtype) * np.spacing(np.abs(e))).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", TEMPERED, ids=lambda case: case.function.__name__)
def test_tempered_rows_of_any_kind_have_the_bits_of_each_alone(case, dtype, scores):
    x, n = scores[:60, :300].astype(dtype), 60
    rng = np.random.default_rng(30)
    t = rng.choice([0.0, 0.25, 0.7, 1.0, 3.0, 1e30, np.inf], (n, 1)).astype(dtype)
    x[3, 4], x[4, 5], x[7] = 3e38, -3e38, -1e4
    mask = rng.random(x.shape) < 0.7
    mask[5] = False
    for where in (None, mask):
        with np.errstate(all="raise"):
            y = case.function(x, axis=-1, temperature=t, where=where)
        for i in range(n):
            of_row = None if where is None else where[i]
            alone = case.function(x[i], temperature=t[i, 0], where=of_row)
            np.testing.assert_array_equal(y[i], alone)
        turned = None if where is None else where.T
        z = case.function(np.asfortranarray(x).T, axis=0, temperature=t.T, where=turned)
        np.testing.assert_array_equal(z.T, y)


@pytest.mark.parametrize("case", TEMPERED, ids=lambda case: case.function.__name__)
def test_a_number_1_as_temperature_is_none(case):
    x = np.random.default_rng(31).normal(size=(30, 70))
    for one in (1, 1.0):
        np.testing.assert_array_equal(case.function(x, temperature=one), case.function(x))


@pytest.mark.parametrize("case", TEMPERED, ids=lambda case: case.function.__name__)
def test_a_long_tempered_row_is_computed_in_threads_to_the_same_bits(case, monkeypatch):
    x = np.random.default_rng(32).normal(size=(2, LONG)).astype("float32")
    found = []
    for threads in (1, 2, 5):
        monkeypatch.setenv("SOFTMAXES_NUM_THREADS", str(threads))
        found.append(case.function(x, temperature=0.7))
    np.testing.assert_array_equal(found, [found[0]] * 3)
    exact = case.function(x.astype("float64"), temperature=np.float32(0.7).astype("float64"))
    np.testing.assert_allclose(found[0], exact, case.budget("float32") * np.finfo("float32").eps)


@every_function
def test_the_number_of_threads_changes_no_bit(function, scores, monkeypatch):
    used = threads_used(monkeypatch)
    results = {}
    for threads in (1, 2, 5):
        monkeypatch.setenv("SOFTMAXES_NUM_THREADS", str(threads))
        used.clear()
        mask = np.random.default_rng(4).random(LARGE) < 0.7
        results[threads] = function(scores, axis=-1), function(scores.T, axis=0, where=mask.T)
        assert (len(used) > 1) == (threads > 1)
    for threads in (2, 5):
        for one, several in zip(results[1], results[threads], strict=True):
            np.testing.assert_array_equal(one, several)


@every_function
def test_a_long_row_is_computed_in_threads_to_the_same_bits(function, monkeypatch):
    used, results = threads_used(monkeypatch), []
    x = np.random.default_rng(8).normal(size=LONG)
    for spread in (1, 1e3):
        for threads in (1, 2):
            monkeypatch.setenv("SOFTMAXES_NUM_THREADS", str(threads))
            used.clear()
            results.append((function(spread * x, axis=-1), function(spread * x, -1, where=x > -1)))
            assert (len(used) > 1) == (threads > 1)
    for one, several in (results[:2], results[2:]):
        np.testing.assert_array_equal(one[0], several[0])
        np.testing.assert_array_equal(one[1], several[1])


@pytest.mark.skipif(loops() is None, reason="a row is not computed in parts")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("of_scores", [False, True], ids=["probabilities", "scores"])
@pytest.mark.parametrize("rule", [_rules.softmax, _rules.log_softmax], ids=["softmax", "log"])
def test_cotangents_of_a_long_row_are_computed_in_threads_to_the_same_bits(
    rule, of_scores, dtype, monkeypatch
):
    used, x = threads_used(monkeypatch), np.random.default_rng(8).normal(size=(1, LONG))
    x, u = x.astype(dtype), x[:, ::-1].astype(dtype)
    for top in (0.0, 15.0, 40.0):  # of which one has half of the sum, and one nearly all
        x[0, LONG // 2], found = top, np.empty((2, 1, LONG), dtype)
        p = sm.softmax(x)
        for g, threads in zip(found, (1, 2), strict=True):
            monkeypatch.setenv("SOFTMAXES_NUM_THREADS", str(threads))
            used.clear()
            if of_scores:
                loops().pulled(rule.pull, Arrays(x), u, g)
            else:
                loops().cotangents(rule.vjp, p, Arrays(None), u, g)
            assert (len(used) > 1) == (threads > 1)
        np.testing.assert_array_equal(*found)
        p, exact = p.astype("longdouble"), u.astype("longdouble")
        expected = rule.vjp(p, Arrays(None), exact, axis=(-1,), xp=np)
        scale = np.sum(p * np.abs(exact)) + np.abs(exact) + p * np.abs(np.sum(exact))
        assert (np.abs(found[0] - expected) <= 9 * np.finfo(dtype).eps * scale).all()


@every_function
def test_rows_that_are_not_ordinary_have_the_same_bits_in_every_batch(function, scores):
    alone = np.concatenate([np.atleast_1d(function(row, axis=-1)) for row in scores])
    np.testing.assert_array_equal(function(scores, axis=-1).reshape(-1), alone)


@every_function
def test_cotangents_of_any_rows_have_the_same_bits_in_every_batch(function, scores):
    u = np.random.default_rng(9).standard_normal(LARGE, dtype="float32")
    scores[::11, 3], u[::11, 3] = -500.0, np.inf  # where p is 0
    u = u[:, 0] if function is sm.logsumexp else u
    together = sm.vjp(function, scores, axis=-1)[1](u)
    alone = [sm.vjp(function, x, axis=-1)[1](v) for x, v in zip(scores, u, strict=True)]
    np.testing.assert_array_equal(together, np.stack(alone))
    assert np.isfinite(together).all(axis=1).any()


@every_function
def test_no_threads_are_started_where_others_share_the_work(function, scores, monkeypatch):
    used = threads_used(monkeypatch)
    monkeypatch.delenv("SOFTMAXES_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1,4")
    function(scores, axis=-1)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    worker = threading.Thread(target=function, args=(scores, -1))
    worker.start()
    worker.join()
    assert used == {threading.get_ident(), worker.ident}
    used.clear()
    function(scores, axis=-1)
    assert len(used) > 1


@on_our_threads
@pytest.mark.parametrize("function", [sm.softmax, sm.logsumexp])
def test_a_row_of_many_is_not_shared_again(function, monkeypatch):
    monkeypatch.setenv("SOFTMAXES_NUM_THREADS", "2")
    started, together = [], _threads.together
    monkeypatch.setattr(_threads, "together", lambda *call: started.append(1) or together(*call))
    x = np.random.default_rng(9).normal(size=(3, LONG)).astype("float32")
    function(x, axis=-1)
    assert len(started) == 1
    function(x[0])
    assert len(started) > 1


@on_our_threads
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("function", [sm.softmax, sm.logsumexp])
def test_all_threads_work_on_fewer_long_slices(function, axis, monkeypatch):
    used, shape = threads_used(monkeypatch), (3, LONG) if axis else (3, _sums.TILE // 16, 64)
    monkeypatch.setenv("SOFTMAXES_NUM_THREADS", "4")
    function(np.random.default_rng(9).normal(size=shape), axis=1)
    assert len(used) == 4


def test_subnormal_scores_raise_no_error_state():
    for shape in (3,), (4, 5), (300, 300):
        x = np.full(shape, 1e-40, "float32")
        for axis in 0, -1:
            with np.errstate(all="raise"):
                p = sm.softmax(x, axis=axis)
            np.testing.assert_allclose(p, 1 / shape[axis], 1e-6)


@on_our_threads
@pytest.mark.parametrize("function", [sm.softmax, sm.logsumexp])
def test_the_threads_of_a_pass_stay_for_the_next_and_end_with_the_call(function, monkeypatch):
    monkeypatch.setenv("SOFTMAXES_NUM_THREADS", "3")
    made, new_threads, before = [], _threads._new_threads, threading.active_count()
    monkeypatch.setattr(_threads, "_new_threads", lambda n: made.append(n) or new_threads(n))
    function(np.random.default_rng(9).normal(size=LONG))
    assert made == [2]
    assert threading.active_count() == before


@pytest.mark.parametrize("value", ["0", "-1", "two", ""])
def test_a_bad_number_of_threads_is_an_error(value, scores, monkeypatch):
    monkeypatch.setenv("SOFTMAXES_NUM_THREADS", value)
    with pytest.raises(ValueError, match=r"SOFTMAXES_NUM_THREADS must be a positive integer, got"):
        CASES["softmax"].function(scores)


def threads_used(monkeypatch):
    """Return a set to which every thread adds itself when it works on a part, in no haste."""
    used = set()

    def noted(share):
        def of_noting(work, *arguments, **options):
            def noting(*part):
                used.add(threading.get_ident())
                time.sleep(1e-4)
                return work(*part)

            return share(noting, *arguments, **options)

        return of_noting

    for module in (_columns, _numpy, _sums):
        monkeypatch.setattr(module, "each", noted(_threads.each))
    if loops() is not None:
        monkeypatch.setattr(loops(), "on_threads", noted(loops().on_threads))
        parts = loops()._parts
        monkeypatch.setattr(parts, "in_phases", noted(parts.in_phases))
    return used


@pytest.fixture
def all_columns_stay_where_they_lie(monkeypatch):
    monkeypatch.setattr(_numpy, "FEW", 0)
    monkeypatch.setattr(_columns, "WIDE", 16)


COLUMNS = {
    "moderate": lambda x: x,
    "wide": lambda x: 100 * x,
    "far off": lambda x: x - 1e4,
    "of many kinds": lambda x: x * np.where(np.arange(x.shape[-1]) % 3, 1, 100),
    "with ties": np.round,
    "with infinities": lambda x: np.where(x > 2, np.inf, np.where(x < -2, -np.inf, x)),
    "with NaN": lambda x: np.where(x > 3, np.nan, x),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", COLUMNS)
@every_function
@pytest.mark.usefixtures("all_columns_stay_where_they_lie")
def test_columns_have_the_same_bits_as_rows(function, kind, dtype):
    rng = np.random.default_rng(10)
    for n in (2, 7, 8, 9, 127, 128, 129, 300, 1001, 8193):
        x = COLUMNS[kind](rng.normal(size=(2, n, 40))).astype(dtype)
        expected = function(np.ascontiguousarray(np.moveaxis(x, 1, -1)), axis=-1)
        found = function(x, axis=1)
        found = found if function is sm.logsumexp else np.moveaxis(found, 1, -1)
        np.testing.assert_array_equal(found, expected)
        turned = np.asfortranarray(np.moveaxis(x, 1, -1))
        np.testing.assert_array_equal(function(turned, axis=-1), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", COLUMNS)
@every_function
def test_masked_columns_have_the_same_bits_as_rows(function, kind, dtype):
    rng = np.random.default_rng(10)
    for n, width in ((2, 16), (9, 17), (129, 40), (1001, 70), (8193, 16)):
        x = COLUMNS[kind](rng.normal(size=(2, n, width))).astype(dtype)
        mask = rng.random(x.shape) < 0.6
        mask[0, :, 1], mask[1, :, 2], mask[1, 1:, 3] = False, True, False
        for where in (mask, mask[1], mask[:, :, :1]):
            turned = np.ascontiguousarray(np.moveaxis(x, 1, -1))
            expected = function(turned, axis=-1, where=np.moveaxis(where, -2, -1))
            found = function(x, axis=1, where=where)
            found = found if function is sm.logsumexp else np.moveaxis(found, 1, -1)
            np.testing.assert_array_equal(found, expected)
            y = function(x[0].T, axis=-1, where=where.reshape(-1, n, where.shape[-1])[0].T)
            np.testing.assert_array_equal(y, expected[0])


@pytest.mark.skipif(loops() is None, reason="no loops are compiled")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", COLUMNS)
@every_function
def test_cotangents_of_columns_have_the_same_bits_as_those_of_rows(function, kind, dtype):
    pull = getattr(_rules, function.__name__).pull
    rng = np.random.default_rng(19)
    for n, width in ((1, 1), (2, 2), (7, 3), (8, 16), (33, 17), (300, 70), (20_000, 3)):
        x = COLUMNS[kind](rng.normal(size=(2, n, width))).astype(dtype)
        x[:, n // 2, 0] += 40  # which is nearly all of its sum
        u = rng.normal(size=x.shape).astype(dtype)
        u[0, -1, -1] = np.inf
        u = u[:, :1] if function is sm.logsumexp else u
        mask = rng.random(x.shape) < 0.6
        mask[:, :, 0], mask[:, :, -1] = True, False
        for where in (None, mask):
            g, turned = np.empty_like(x), np.empty((2 * width, n), dtype)
            are_right = _told(loops().columns_pulled(pull, Arrays(x, where), u, g), x)
            arrays = (a if a is None else _turned(a) for a in (x, where, u))
            x_rows, where_rows, u_rows = arrays
            found = loops().pulled(pull, Arrays(x_rows, where_rows), u_rows, turned)
            rows_are_right = _told(found, x).reshape(-1)
            np.testing.assert_array_equal(are_right.reshape(-1), rows_are_right)
            np.testing.assert_array_equal(_turned(g)[rows_are_right], turned[rows_are_right])


def _told(are_right, x):
    """Return for which columns of matrices a loop is right, which tells nothing where it is for all."""
    return np.ones((len(x), x.shape[2]), bool) if are_right is None else are_right


@pytest.mark.skipif(loops() is None, reason="no loops are compiled")
@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_function
def test_matrices_of_few_columns_have_the_bits_of_each_alone(function, dtype, is_masked):
    rng, name = np.random.default_rng(21), function.__name__
    primal, pull = getattr(_primals, name), getattr(_rules, name).pull
    for shape in ((700, 2, 1), (500, 2, 2), (150, 7, 3), (90, 16, 8), (31, 17, 32), (20, 40, 5)):
        x = rng.normal(scale=4, size=shape).astype(dtype)
        x[3::50] *= 100
        x[::40, 0, 0], x[7::40, 1, -1], x[9::40, 0] = np.nan, np.inf, -np.inf
        where = rng.random(shape) < 0.7 if is_masked else None
        u = rng.normal(size=shape).astype(dtype)
        u = u[:, :1] if function is sm.logsumexp else u
        for loop, f, others, like in (
            (loops().columns, primal, (), u),
            (loops().columns_pulled, pull, (u,), x),
        ):
            found, alone = np.empty_like(like), np.empty_like(like)
            are_right = _told(loop(f, Arrays(x, where), *others, found), x)
            for i in range(len(x)):
                one = slice(i, i + 1)
                arrays = Arrays(x[one], None if where is None else where[one])
                told = loop(f, arrays, *(a[one] for a in others), alone[one])
                np.testing.assert_array_equal(are_right[one], _told(told, x[one]))
            kept = np.broadcast_to(are_right[:, None], like.shape)
            np.testing.assert_array_equal(found[kept], alone[kept])
            assert not are_right[::40, 0].all() or is_masked


@pytest.mark.skipif(loops() is None, reason="no loops are compiled")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_function
def test_results_of_columns_may_begin_anywhere_in_a_line_of_cache(function, dtype):
    name, rng = function.__name__, np.random.default_rng(20)
    x, u = rng.normal(size=(2, 2, 9, 160)).astype(dtype)
    u = u[:, :1] if function is sm.logsumexp else u
    primal, pull = getattr(_primals, name), getattr(_rules, name).pull
    works = (
        (partial(loops().columns, primal, Arrays(x)), u.shape),
        (partial(loops().columns_pulled, pull, Arrays(x), u), x.shape),
    )
    for work, shape in works:
        found = []
        for before in range(64 // x.itemsize):
            size, begin = math.prod(shape), 8 + before
            memory = np.full(size + 64, np.nan, dtype)
            out = memory[begin : begin + size].reshape(shape)
            assert work(out) is None
            found.append(out.copy())
            out[...] = np.nan
            assert np.isnan(memory).all()
        np.testing.assert_array_equal(found, [found[0]] * len(found))


def _turned(a):
    """Return the columns of matrices as rows."""
    return np.ascontiguousarray(np.moveaxis(a, 1, -1)).reshape(-1, a.shape[1])


@every_function
@pytest.mark.usefixtures("all_columns_stay_where_they_lie")
def test_long_columns_have_the_same_bits_as_rows_for_every_number_of_threads(function, monkeypatch):
    x = np.random.default_rng(11).normal(size=(_sums.TILE + 5, 16)).astype("float32")
    x[::2, 3] = np.inf
    expected = function(np.ascontiguousarray(x.T), axis=-1).T
    for threads in (1, 2, 5):
        monkeypatch.setenv("SOFTMAXES_NUM_THREADS", str(threads))
        np.testing.assert_array_equal(function(x, axis=0), expected)


@pytest.mark.parametrize("scale", [1, 100, 300])
@every_function
def test_a_long_row_is_that_of_double_precision(function, scale):
    x = np.random.default_rng(14).normal(scale=scale, size=2 * _sums.TILE + 7).astype("float32")
    expected = function(x.astype("float64"), axis=-1)
    info = np.finfo("float32")
    np.testing.assert_allclose(function(x, axis=-1), expected, 6 * info.eps, info.tiny)


@pytest.mark.parametrize(
    "shape", [(2, 1001, 70), (300, 3, 80), (2, 3, 30_000), (1, 300, 3000), (9, 700, 16)]
)
@every_function
@pytest.mark.usefixtures("all_columns_stay_where_they_lie")
def test_no_column_with_one_maximum_is_left_to_the_rows(function, shape, monkeypatch):
    x = np.random.default_rng(25).permutation(math.prod(shape)).reshape(shape)
    monkeypatch.setattr(_numpy, "_write_columns_left", None)
    for shift in 0, 1000:
        function(x / x.size - shift, axis=1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_function
def test_few_slices_along_any_axis_have_the_bits_of_rows(function, dtype):
    for shape, axis in ((10, 100), 0), ((4, 10, 16), 1), ((5, 6, 7), (0, 2)), ((3000, 3, 2), 1):
        for scale in 1, 1000:
            x = np.random.default_rng(26).normal(scale=scale, size=shape).astype(dtype)
            assert_bits_of_rows(function, x, axis)


def assert_bits_of_rows(function, x, axis):
    """Check that slices of an array have the bits of contiguous rows, in either order of memory."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    last = tuple(range(-len(axes), 0))
    expected = function(np.ascontiguousarray(np.moveaxis(x, axes, last)), axis=last)
    for order in "CF":
        found = function(np.asarray(x, order=order), axis=axis)
        found = found if function is sm.logsumexp else np.moveaxis(found, axes, last)
        np.testing.assert_array_equal(found, expected)


def test_probabilities_of_few_slices_lie_in_memory_as_the_scores_do():
    x = np.random.default_rng(27).normal(size=(10, 100))
    for order in "CF":
        scores = np.asarray(x, order=order)
        for axis in 0, 1:
            assert sm.softmax(scores, axis=axis).strides == scores.strides


@every_function
def test_columns_of_adjacent_axes_have_the_same_bits_as_rows(function):
    x = np.random.default_rng(12).normal(size=(16, 4, 5, 6, 7))
    for axis in (1, 2), (2, 1), (1, 3), (1,):
        assert_bits_of_rows(function, x, axis)
    wide = np.random.default_rng(13).normal(size=(3, 20000)).astype("float32")
    np.testing.assert_array_equal(function(wide, axis=0).T, function(wide.T.copy(), axis=-1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_function
def test_a_few_entries_have_the_same_bits_as_many(function, dtype):
    for scale in (1, 5, 30, 300, 1e4):
        x = np.random.default_rng(14).normal(scale=scale, size=(3, 8)).astype(dtype)
        with np.errstate(all="raise"):
            few = function(x, axis=-1)
        np.testing.assert_array_equal(few, function(np.tile(x, (many(x), 1)), axis=-1)[:3])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", COLUMNS)
@every_function
def test_a_few_masked_entries_have_the_same_bits_as_many(function, kind, dtype):
    rng = np.random.default_rng(28)
    for n in (1, 9, 300):
        x = COLUMNS[kind](rng.normal(size=(20, n))).astype(dtype)
        where = rng.random(x.shape) < 0.7
        where[3] = False
        for scores in x, np.where(where, x, np.nan).astype(dtype), -np.abs(x):
            times = many(x), 1
            expected = function(np.tile(scores, times), axis=-1, where=np.tile(where, times))
            with np.errstate(all="raise"):
                for few in scores, np.asfortranarray(scores), scores.astype(x.dtype.newbyteorder()):
                    found = function(few, axis=-1, where=where)
                    np.testing.assert_array_equal(found, expected[:20])
                alone = [function(x, where=kept) for x, kept in zip(scores, where, strict=True)]
            np.testing.assert_array_equal(alone, expected[:20])


@every_function
def test_a_few_rows_of_any_byte_order_and_layout_have_the_bits_of_others(function):
    x = np.random.default_rng(24).normal(size=(4, 10))
    expected = function(x, axis=-1)
    for other in (x.astype(">f8"), np.asfortranarray(x), np.repeat(x, 2, -1)[:, ::2]):
        y = function(other, axis=-1)
        assert y.dtype == "=f8"
        np.testing.assert_array_equal(y, expected)


@every_function
def test_lists_and_integers_have_the_bits_of_the_numbers_they_stand_for(function):
    for x in ([0.5, -3.25, 7.0], [[1, 2], [3, 200]], (1, 2, 3), [True, False], [2**70, 1]):
        expected = function(np.asarray(x, dtype="float64"), axis=-1)
        for dtype in "uint8", "int8", "int64", "bool", ">i4":
            if np.can_cast(np.min_scalar_type(x), dtype):
                others = np.asarray(x).astype(dtype)
                np.testing.assert_array_equal(function(others, axis=-1), expected)
        found = function(x, axis=-1)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype == "float64"
        assert type(found) is type(expected)


def many(x):
    """Return how many times x is no longer few entries."""
    return _moderate.FEW // x.size + 1


@every_function
def test_the_longest_row_of_few_entries_and_the_next_have_the_bits_of_many(function):
    for n in (_moderate.FEW, _moderate.FEW + 1):
        x = np.random.default_rng(18).normal(size=(3, n)).astype("float32")
        np.testing.assert_array_equal(function(x[0], axis=-1), function(x, axis=-1)[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", COLUMNS)
@every_function
def test_one_row_alone_has_the_same_bits_as_among_many(function, kind, dtype):
    rng = np.random.default_rng(17)
    for n in (1, 2, 8, 9, 127, 300, 2048, 2049, 20_000):
        x = COLUMNS[kind](rng.normal(scale=4, size=(20, n))).astype(dtype)
        x[:2] = np.array([[0.25], [31]]) * _moderate.BOUNDS[x.dtype] * rng.choice([-1, 1, 0.5], n)
        expected = function(np.tile(x, (many(x), 1)), axis=-1)[: len(x)]
        with np.errstate(all="raise"):
            for row, y in zip(x, expected, strict=True):
                for alone in row, row[::-1].copy()[::-1], row.astype(row.dtype.newbyteorder()):
                    found = function(alone, axis=0)
                    np.testing.assert_array_equal(found, y)
                    zero = y == 0
                    np.testing.assert_array_equal(np.signbit(found)[zero], np.signbit(y)[zero])
                    assert type(found) is type(y)
                    assert found.dtype == row.dtype


def test_one_row_alone_keeps_the_largest_probability_though_exp_errs():
    low = np.random.default_rng(0).uniform(-3, 3, 20_000).astype("float32")
    x = np.stack([low, np.nextafter(low, np.float32(np.inf))], axis=1)
    rows = x[np.diff(np.exp(x))[:, 0] < 0]
    assert len(rows) > 0
    for row in rows:
        low, high = sm.softmax(row)
        assert low <= high


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", COLUMNS)
@every_function
def test_masked_entries_count_as_minus_infinity_to_the_last_bit(function, kind, dtype):
    rng = np.random.default_rng(15)
    x = COLUMNS[kind](rng.normal(size=(60, 700))).astype(dtype)
    x[7], x[9, ::2] = -np.abs(x[7]), 0
    for where in (rng.random(x.shape) < 0.7, rng.random((60, 1)) < 0.7, rng.random(700) < 0.7):
        rows = np.where(where, x, -np.inf).astype(dtype)
        for scores in x, np.where(where, x, np.nan).astype(dtype):
            found = function(scores, axis=-1, where=where)
            np.testing.assert_array_equal(found, function(rows, axis=-1))
            np.testing.assert_array_equal(np.signbit(found), np.signbit(function(rows, axis=-1)))


@pytest.mark.parametrize(
    "shape", [(1, 16 * _sums.TILE), (16, _sums.TILE), (_sums.TILE // 64, 1024)]
)
def test_logsumexp_needs_little_memory_beside_its_input(shape, monkeypatch):
    monkeypatch.setenv("SOFTMAXES_NUM_THREADS", "2")
    x = np.random.default_rng(16).normal(size=shape).astype("float32")
    for scores, most in (x, 0.15), (100 * x, 0.8):
        sm.logsumexp(scores, axis=-1)  # in which code may be compiled
        tracemalloc.start()
        sm.logsumexp(scores, axis=-1)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < most * x.nbytes


@pytest.mark.parametrize("value", [np.nan, np.copysign(np.nan, -1.0)], ids=["positive", "negative"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_function
def test_a_nan_of_either_sign_makes_its_own_slice_nan(function, dtype, value):
    x = np.random.default_rng(11).standard_normal((40, 50)).astype(dtype)
    x[7, 3] = value
    for y in (function(x, axis=-1), function(np.ascontiguousarray(x.T), axis=0).T):
        is_nan = np.isnan(y).reshape(40, -1).any(axis=1)
        assert np.flatnonzero(is_nan).tolist() == [7]


@pytest.mark.parametrize("value", ["", "2", "yes"])
def test_a_bad_choice_of_loops_is_an_error(value, monkeypatch):
    monkeypatch.setenv("SOFTMAXES_NUMBA", value)
    with pytest.raises(ValueError, match=f"SOFTMAXES_NUMBA must be 0 or 1, got '{value}'"):
        loops.__wrapped__()


@pytest.mark.skipif(loops() is None, reason="no loops are compiled")
def test_a_second_process_finds_what_was_compiled(tmp_path):
    lines = [
        "import numpy as np",
        "import softmaxes as sm",
        "from softmaxes._backends._numba._rows import ROWS",
        "sm.logsumexp(np.ones((4, 19)), axis=-1, where=np.ones(19, bool))",
        "print(sum(loop.stats.cache_hits.total() for loop in ROWS.values()))",
    ]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", "\n".join(lines)]
    found = [
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    ]
    assert [int(hits) for hits in found] == [0, 1]


@pytest.mark.skipif(loops() is None, reason="no loops are compiled")
def test_every_loop_is_kept_under_a_name_of_its_own():
    from softmaxes._backends._numba import (
        _cache,
        _columns_pulled,
        _columns_valued,
        _cotangents,
        _parts,
        _rows,
    )

    tables = (
        _rows.ROWS,
        _columns_valued.COLUMNS,
        _columns_pulled.PULLS_OF_COLUMNS,
        _cotangents.COTANGENTS,
        _cotangents.PULLS,
        _parts.VALUES,
        _parts.PULLED,
    )
    made = [loop for table in tables for loop in table.values()]
    names = [_cache._described(loop) for loop in made]
    assert len(set(names)) == len(made)
    assert not any(" at 0x" in name for name in names)  # an address, of this process alone


@pytest.mark.skipif(loops() is None, reason="no loops are compiled")
def test_code_that_is_kept_at_once_is_never_taken_for_another(tmp_path, monkeypatch):
    from softmaxes._backends._numba._cache import _Files

    one, other = (_Files(str(tmp_path), "loop", "stamp") for _ in range(2))
    save = one._save_index

    def save_as_the_other_does(index):
        save(index)
        with monkeypatch.context() as before:
            before.setattr(other, "_load_index", dict)
            other.save("its kind", "its code")

    monkeypatch.setattr(one, "_save_index", save_as_the_other_does)
    one.save("a kind", "code")
    assert one.load("a kind") in (None, "code")
    assert other.load("its kind") == "its code"
    _Files(str(tmp_path), "loop", "another stamp").save("a kind", "newer code")
    assert len(list(tmp_path.iterdir())) == 2  # of which one is the index


@pytest.mark.skipif(loops() is not None, reason="Numba is there")
def test_numba_that_is_asked_for_and_missing_is_an_error(monkeypatch):
    monkeypatch.setenv("SOFTMAXES_NUMBA", "1")
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "softmaxes._backends._numba", raising=False)
    with pytest.raises(
        ModuleNotFoundError, match=r"SOFTMAXES_NUMBA=1 asks for Numba: .*softmaxes\[numba\]"
    ):
        loops.__wrapped__()
