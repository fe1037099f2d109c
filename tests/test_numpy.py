"""What is NumPy's own: ordinary rows in place, and threads."""

import threading

import numpy as np
import pytest
from cases import CASES, every_function
from regimes import REGIMES, regime, seeded

from softmaxes._backends import _numpy, _ordinary

LARGE = (700, 1500)  # enough tiles for threads


@pytest.fixture
def scores():
    """Scores of which some rows are not ordinary."""
    x = 5 * np.random.default_rng(3).standard_normal(LARGE, dtype="float32")
    x[::7, 0], x[3::50], x[5::90, :9] = np.inf, -np.inf, np.nan
    return x


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", REGIMES)
def test_ordinary_rows_are_within_the_budget_of_any_row(name, dtype, monkeypatch):
    x = np.stack([regime(name, 300, dtype, seeded(name, 300, seed)) for seed in range(3)])
    in_place = [case.function(x, axis=-1) for case in CASES.values()]
    monkeypatch.setattr(_numpy, "FORMULAS", {})
    for (function_name, case), y in zip(CASES.items(), in_place, strict=True):
        expected = case.function(x, axis=-1)
        scale = np.maximum(np.abs(expected), np.abs(x.max(-1))) if y.ndim == 1 else expected
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(y[~finite], expected[~finite])
        ulps = np.abs(y[finite] - expected[finite]) / np.spacing(np.abs(scale[finite] / 2)) / 2
        assert ulps.max(initial=0.0) <= case.budget(dtype), function_name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_function
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


@every_function
def test_the_number_of_threads_changes_no_bit(function, scores, monkeypatch):
    used = threads_used(monkeypatch)
    results = {}
    for threads in (1, 2, 5):
        monkeypatch.setenv("SOFTMAXES_NUM_THREADS", str(threads))
        used.clear()
        mask = np.random.default_rng(4).random(LARGE) < 0.7
        results[threads] = function(scores, axis=-1), function(scores.T, axis=0, where=mask.T)
        assert (threading.get_ident() in used) == (threads == 1)
    for threads in (2, 5):
        for one, several in zip(results[1], results[threads], strict=True):
            np.testing.assert_array_equal(one, several)


@every_function
def test_rows_that_are_not_ordinary_have_the_same_bits_in_every_batch(function, scores):
    alone = np.concatenate([np.atleast_1d(function(row, axis=-1)) for row in scores])
    np.testing.assert_array_equal(function(scores, axis=-1).reshape(-1), alone)


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
    assert threading.get_ident() not in used


@pytest.mark.parametrize("value", ["0", "-1", "two", ""])
def test_a_bad_number_of_threads_is_an_error(value, scores, monkeypatch):
    monkeypatch.setenv("SOFTMAXES_NUM_THREADS", value)
    with pytest.raises(ValueError, match=r"SOFTMAXES_NUM_THREADS must be a positive integer, got"):
        CASES["softmax"].function(scores)


def threads_used(monkeypatch):
    """Return a set to which every thread adds itself when it computes a tile."""
    used, top = set(), _ordinary.top
    monkeypatch.setattr(_ordinary, "top", lambda x: used.add(threading.get_ident()) or top(x))
    return used
