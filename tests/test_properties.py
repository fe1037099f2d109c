"""What holds for all scores: invariances, bounds and the laws between the functions."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import softmaxes as sm
from softmaxes._cli.budgets import BUDGETS

EPS = np.finfo(float).eps

scores = arrays(float, st.integers(1, 40), elements=st.floats(-1e3, 1e3))
any_scores = arrays(
    float,
    st.integers(1, 40),
    elements=st.floats(allow_nan=False, allow_infinity=False) | st.just(-np.inf),
)


@given(any_scores)
def test_probabilities_sum_to_one(x):
    total = sm.softmax(x).sum(dtype=np.longdouble)
    assert abs(total - np.isfinite(x).any()) <= BUDGETS["sum of softmax"] * EPS / 2


@given(any_scores)
def test_probabilities_lie_between_0_and_1(x):
    p = sm.softmax(x)
    assert (p >= 0).all()
    assert (p <= 1).all()
    assert (sm.log_softmax(x) <= 0).all()


@given(
    arrays(float, st.integers(1, 40), elements=st.integers(-1000, 1000)),
    st.integers(-(2**40), 2**40),
)
def test_a_constant_added_exactly_changes_nothing_beyond_the_budget(x, c):
    for name in ("softmax", "log_softmax"):
        f, budget = getattr(sm, name), BUDGETS[name]
        np.testing.assert_allclose(f(x + c), f(x), rtol=2 * budget * EPS, atol=0)


@given(scores, st.floats(-1e3, 1e3))
def test_logsumexp_moves_with_the_scores(x, c):
    scale = np.abs(x).max() + abs(c) + np.log(x.size)
    assert abs(sm.logsumexp(x + c) - (sm.logsumexp(x) + c)) <= 8 * EPS * max(scale, 1e-300)


@given(scores, st.randoms(use_true_random=False))
def test_a_permutation_permutes(x, random):
    order = random.sample(range(x.size), x.size)
    np.testing.assert_allclose(sm.softmax(x)[order], sm.softmax(x[order]), rtol=16 * EPS, atol=0)
    np.testing.assert_allclose(
        sm.log_softmax(x)[order], sm.log_softmax(x[order]), rtol=12 * EPS, atol=0
    )


@given(any_scores)
def test_the_order_stays(x):
    p = sm.softmax(x)[np.argsort(x, kind="stable")]
    assert (np.diff(p) >= -np.spacing(p[1:])).all()
    assert p[-1] == p.max()


@given(any_scores)
def test_logsumexp_lies_between_the_maximum_and_log_n_above_it(x):
    y, top = sm.logsumexp(x), x.max()
    assert y >= top
    if -1e300 < top < 1e300:
        assert y - top <= np.log(x.size) * (1 + 4 * EPS) + np.spacing(np.abs(top))


@given(scores)
def test_the_logarithm_is_that_of_the_probabilities(x):
    log_p = sm.log_softmax(x)
    p = sm.softmax(x)
    seen = p > 1e-300
    np.testing.assert_allclose(np.exp(log_p[seen]), p[seen], rtol=1e-12)


@given(any_scores, st.data())
def test_a_mask_removes_entries(x, data):
    mask = data.draw(arrays(bool, x.shape))
    for f in (sm.softmax, sm.log_softmax):
        np.testing.assert_allclose(f(x, where=mask)[mask], f(x[mask]), rtol=1e-13)
        masked = f(np.where(mask, x, -np.inf))
        assert (f(np.where(mask, x, np.nan), where=mask) == masked).all()
    np.testing.assert_allclose(
        sm.logsumexp(x, where=mask), sm.logsumexp(x[mask]), rtol=1e-13, atol=1e-13
    )


@given(scores)
def test_weights_are_exponentials_of_scores(x):
    weights = np.arange(1.0, x.size + 1)
    y = sm.logsumexp(x, weights=weights)
    np.testing.assert_allclose(y, sm.logsumexp(x + np.log(weights)), rtol=1e-12, atol=1e-12)
