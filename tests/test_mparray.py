"""
The formulas and the rules are right in exact arithmetic.

mparray is an array library of numbers with as many digits as are wanted. With 60 digits a term that
is missing, or wrong by 1e-50, cannot hide behind the rounding of a double. The truth is the formula
of the textbook, by mpmath, with 200.

It is not a backend of the other tests, which count in ulp: its numbers have no fixed precision.
"""

import mpmath
import numpy as np
import pytest

import softmaxes as sm

mparray = pytest.importorskip("mparray", reason="mparray is not installed")

DIGITS = 60
TOLERANCE = mpmath.mpf(10) ** (5 - DIGITS)

X = {
    "spread": [0.25, -3.5, 2.0, 1.75, -40.0],
    "ties": [1.5, 1.5, -2.0, 1.5, 0.0],
    "a dominant entry": [120.0, 0.0, -3.0, 2.5, 1.0],
    "far apart": [0.0, -800.0, -1e4, -0.5, -30.0],
}
every_x = pytest.mark.parametrize("x", X.values(), ids=X)
V = [0.5, -1.0, 0.25, 2.0, -0.75]
Q = [0.1, 0.2, 0.0, 0.4, 0.3]
WEIGHTS = [0.5, 2.0, 1.0, 0.125, 3.0]
KEPT = [True, True, False, True, True]
TEMPERATURE = 0.375


@pytest.fixture(autouse=True)
def precisely():
    with mpmath.workdps(DIGITS):
        yield


def array(values):
    return mparray.asarray(values)


def numbers(a):
    """Return the numbers of an array of mparray, in a flat list."""
    return list(np.ravel(a._data))  # mparray has no other way out that does not round


def assert_precise(actual, expected, tolerance=TOLERANCE):
    expected = expected if isinstance(expected, list) else [expected]
    wrong = [
        abs(a - e) / abs(e) if e else abs(a) for a, e in zip(numbers(actual), expected, strict=True)
    ]
    assert max(wrong) < tolerance


def textbook(f):
    """Let mpmath compute a truth, with more digits."""

    def precise(*arguments):
        with mpmath.workdps(200):
            return f(*arguments)

    return precise


@textbook
def softmax(x, temperature=1.0, weights=None):
    weights = weights or [1] * len(x)
    e = [w * mpmath.exp(mpmath.mpf(a) / temperature) for a, w in zip(x, weights, strict=True)]
    return [a / sum(e) for a in e]


@textbook
def log_softmax(x, temperature=1.0):
    # In terms below the largest, as 200 digits do not hold 1 - 1e-400.
    top = x.index(max(x))
    gaps = [(mpmath.mpf(a) - x[top]) / temperature for a in x]
    excess = sum(mpmath.exp(gap) for i, gap in enumerate(gaps) if i != top)
    return [gap - mpmath.log1p(excess) for gap in gaps]


@textbook
def logsumexp(x, weights=None):
    weights = weights or [1] * len(x)
    return mpmath.log(sum(w * mpmath.exp(a) for a, w in zip(x, weights, strict=True)))


@textbook
def covariance(x, v):
    p = softmax(x)
    mean = sum(a * b for a, b in zip(p, v, strict=True))
    return [a * (b - mean) for a, b in zip(p, v, strict=True)]


@textbook
def dot(a, b):
    return sum(s * t for s, t in zip(a, b, strict=True) if s)


@every_x
def test_the_normalisers(x):
    assert_precise(sm.softmax(array(x)), softmax(x))
    assert_precise(sm.log_softmax(array(x)), log_softmax(x))
    assert_precise(sm.logsumexp(array(x)), logsumexp(x))


@every_x
def test_temperature_and_weights(x):
    hot = {"temperature": TEMPERATURE}
    assert_precise(sm.softmax(array(x), **hot), softmax(x, TEMPERATURE))
    assert_precise(sm.log_softmax(array(x), **hot), log_softmax(x, TEMPERATURE))
    assert_precise(sm.logsumexp(array(x), weights=array(WEIGHTS)), logsumexp(x, WEIGHTS))


@every_x
def test_a_mask(x):
    kept = [a for a, is_kept in zip(x, KEPT, strict=True) if is_kept]
    p = softmax(kept)
    p.insert(2, mpmath.mpf(0))
    assert_precise(sm.softmax(array(x), where=array(KEPT)), p)
    assert_precise(sm.logsumexp(array(x), where=array(KEPT)), logsumexp(kept))


@every_x
def test_the_losses(x):
    log_p = log_softmax(x)
    assert_precise(sm.cross_entropy(array(x), array(2)), -log_p[2])
    assert_precise(sm.cross_entropy(array(x), array(Q)), -dot(Q, log_p))
    assert_precise(sm.entropy(array(x)), -dot(softmax(x), log_p))


@every_x
def test_the_derivatives(x):
    p, u = softmax(x), array(V)
    a = array(x)
    assert_precise(sm.jvp(sm.softmax, a, u)[1], covariance(x, V))
    assert_precise(sm.vjp(sm.softmax, a)[1](u), covariance(x, V))
    assert_precise(sm.hvp(sm.logsumexp, a, u), covariance(x, V))
    assert_precise(sm.vjp(sm.logsumexp, a)[1](array(1.0)), p)
    assert_precise(sm.jvp(sm.logsumexp, a, u)[1], dot(p, V))
    assert_precise(sm.jvp(sm.log_softmax, a, u)[1], [v - dot(p, V) for v in V])


@every_x
def test_the_gradient_of_the_entropy(x):
    # -p (log p + H)
    p, log_p = softmax(x), log_softmax(x)
    h = -dot(p, log_p)
    expected = [-a * (b + h) for a, b in zip(p, log_p, strict=True)]
    assert_precise(sm.vjp(sm.entropy, array(x))[1](array(1.0)), expected)


@every_x
def test_the_divergence_and_its_gradient(x):
    # Σ p r and p (r - KL) for r = log (p / q)
    p = softmax(x)
    r = [a - b for a, b in zip(log_softmax(x), log_softmax(V), strict=True)]
    divergence = dot(p, r)
    value, pullback = sm.vjp(sm.kl_divergence, array(x), array(V))
    assert_precise(value, divergence, tolerance=1e-16)  # a series, cut for double precision
    expected = [a * (b - divergence) for a, b in zip(p, r, strict=True)]
    assert_precise(pullback(array(1.0)), expected)
