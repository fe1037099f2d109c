"""The exact values of the softmax family on one finite slice, by ball arithmetic.

A slice is a 1-D array of any float dtype, already rounded; its entries are taken as the real numbers they
are. Each result is proved: its ball is checked to be narrower than 2^-37 ulp of a double (`NARROW`) before it
is handed out. Nothing here is shared with the package, save the mathematics.
"""

from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from flint import arb, ctx

__all__ = [
    "Derivative",
    "Exact",
    "cross_entropy",
    "cross_entropy_gradient_at_label",
    "entropy",
    "entropy_gradient",
    "kl_divergence",
    "kl_divergence_gradients",
    "log_softmax",
    "log_softmax_jvp",
    "log_softmax_vjp",
    "logsumexp",
    "logsumexp_hessian_row_at_top",
    "soft_cross_entropy",
    "soft_cross_entropy_gradient",
    "softmax",
    "softmax_jvp",
    "stack",
]

# Working precision. A sum of 2^20 terms costs 20 bits and exp at d > -2^14 costs 14, so at least 120 remain.
BITS = 160
# Relative accuracy in bits that every ball must prove.
NARROW = 90
# No format sees numbers this small (the smallest double is 2^-1074): the first need not be proved, the second are 0.
INVISIBLE = arb((1, -1200))
VANISHING = arb((1, -20000))
# A sum of doubles is exact in this many bits: they reach from 2^-1074 to 2^1024, and there are fewer than 2^60.
EXACT_SUM = 1074 + 1024 + 60


class Exact(NamedTuple):
    """Real numbers (hi + lo) · 2^exponent, good to 2^-90.

    hi is the nearest double, with 1/2 <= |hi| < 1; it is 0 for 0, and carries inf and NaN.
    """

    hi: np.ndarray
    lo: np.ndarray
    exponent: np.ndarray

    @property
    def double(self):
        """The values as doubles, rounded twice where subnormal: for looking at. `ulps` judges and rounds."""
        return np.ldexp(self.hi, self.exponent)

    @property
    def shape(self):
        return self.hi.shape

    def at(self, index):
        """The numbers at `index`, which is anything NumPy takes."""
        return Exact(*(part[index] for part in self))


class Derivative(NamedTuple):
    """A derivative and what its error is measured against: per entry, and one number for the row."""

    value: Exact
    entry_scale: Exact
    row_scale: Exact


def stack(exacts, axis=0):
    """Join results of equal shape, to judge a batch of rows (axis=0) or of columns (axis=1) at once."""
    return Exact(*(np.stack(parts, axis=axis) for parts in zip(*exacts, strict=True)))


# ---------------------------------------------------------------------------------------------------- values


@ctx.workprec(BITS)
def softmax(x, temperature=1.0):
    """exp(x_i/t) / sum exp(x/t), with x/t exact; also the gradient of logsumexp at t = 1."""
    row = _row(x, temperature)
    return _exact(row.p).at(row.index)


@ctx.workprec(BITS)
def log_softmax(x, temperature=1.0):
    """d_i - log1p(T): two terms of one sign, so no entry cancels."""
    row = _row(x, temperature)
    log_s = row.T.log1p()
    return _exact([d - log_s for d in row.d]).at(row.index)


def logsumexp(x, weights=None):
    """log sum b exp(x) as a 0-d `Exact`; -inf where the sum is 0 and NaN where it is negative."""
    scores, multiplicity = _distinct(x) if weights is None else _weighted(x, weights)
    if not scores:
        return Exact(np.asarray(-np.inf), np.asarray(0.0), np.asarray(0))
    # exp takes distinct rationals to numbers independent over the rationals (Lindemann and Weierstrass). So a
    # sum of them is 0 only when nothing is in it, and enough bits always tell its sign and its log from 0.
    bits = BITS
    while True:
        with ctx.workprec(bits):
            T = _shift(scores, multiplicity)[2]
            value = scores[-1] + T.log1p()
            if T < -1:
                return Exact(np.asarray(np.nan), np.asarray(0.0), np.asarray(0))
            if _is_narrow(value):
                return _exact([value]).at(0)
        bits *= 2


@ctx.workprec(BITS)
def cross_entropy(x, label):
    """-log p_label = -d_label + log1p(T)."""
    row = _row(x)
    return _exact([row.T.log1p() - row.d[row.index[label]]]).at(0)


@ctx.workprec(BITS)
def soft_cross_entropy(x, q):
    """-sum q_i log p_i = sum q_i (log1p(T) - d_i), for q >= 0 a sum of terms >= 0."""
    row = _row(x)
    log_s = row.T.log1p()
    return _exact([_dot(_balls(q), [log_s - d for d in row.each(row.d)])]).at(0)


@ctx.workprec(BITS)
def entropy(x):
    """-sum p_i log p_i = sum p_i (log1p(T) - d_i), a sum of terms >= 0."""
    row = _row(x)
    log_s = row.T.log1p()
    return _exact([_dot(row.each(row.p), [log_s - d for d in row.each(row.d)])]).at(0)


def kl_divergence(x, y):
    """sum p_i (log p_i - log q_i), in as many bits as its cancellation takes; 0 where p = q."""
    x, y = _finite(x), _finite(y)
    if _differ_by_a_constant(x, y):
        return _exact([arb(0)]).at(0)
    bits = BITS
    while True:
        with ctx.workprec(bits):
            p, _, r = _ratios(x, y)
            value = _dot(p, r)
            if _is_narrow(value):
                return _exact([value]).at(0)
        bits *= 2


# ----------------------------------------------------------------------------------------------- derivatives


@ctx.workprec(BITS)
def softmax_jvp(x, v, temperature=1.0):
    """J v = p (w - <p, w>) / t, which is Jᵀ v too. Scales: p (|w| + <p, |w|>) / t and <p, |w|> / t.

    For the derivative in the temperature multiply that of v = x by -1/t.
    """
    row = _row(x, temperature)
    p, w = row.each(row.p), _centred(row, v)
    mean, size = _dot(p, w), _dot(p, map(abs, w))
    t = arb(float(temperature))
    return _derivative(
        [p_i * (w_i - mean) / t for p_i, w_i in zip(p, w, strict=True)],
        [p_i * (abs(w_i) + size) / t for p_i, w_i in zip(p, w, strict=True)],
        size / t,
    )


@ctx.workprec(BITS)
def log_softmax_jvp(x, v):
    """(I - 1 pᵀ) v = w - <p, w>. Scales: |w| + <p, |w|> and <p, |w|>."""
    row = _row(x)
    p, w = row.each(row.p), _centred(row, v)
    mean, size = _dot(p, w), _dot(p, map(abs, w))
    return _derivative([w_i - mean for w_i in w], [abs(w_i) + size for w_i in w], size)


@ctx.workprec(BITS)
def log_softmax_vjp(x, u):
    """(I - p 1ᵀ) u = q_i u_i - p_i sum_{j≠i} u_j, q = 1 - p. Scales: q_i |u_i| + p_i sum_{j≠i} |u_j| and <q, |u|>.

    Written in q, which is T/(1 + T) at a single top entry: there 1 - p and sum(u) - u_i would lose what p lacks to 1.
    """
    row = _row(x)
    p, q = row.each(row.p), row.each(row.q)
    u = _balls(u)
    size = [abs(u_i) for u_i in u]
    rest, rest_size = _sums_of_others(u), _sums_of_others(size)
    return _derivative(
        [q_i * u_i - p_i * r_i for q_i, u_i, p_i, r_i in zip(q, u, p, rest, strict=True)],
        [q_i * s_i + p_i * r_i for q_i, s_i, p_i, r_i in zip(q, size, p, rest_size, strict=True)],
        _dot(q, size),
    )


@ctx.workprec(BITS)
def cross_entropy_gradient_at_label(x, label):
    """p_label - 1."""
    row = _row(x)
    return _exact([-row.q[row.index[label]]]).at(0)


@ctx.workprec(BITS)
def soft_cross_entropy_gradient(x, q):
    """Q p_i - q_i, Q = sum q. Scales: Q p_i + q_i, by the others where p exceeds 1/2."""
    row, q = _row(x), _balls(q)
    total, p = sum(q, arb(0)), row.each(row.p)
    value = [total * p_i - q_i for p_i, q_i in zip(p, q, strict=True)]
    scale = [total * p_i + q_i for p_i, q_i in zip(p, q, strict=True)]
    return _by_others(value, scale, int(np.argmax(row.index)), p)


@ctx.workprec(BITS)
def entropy_gradient(x):
    """-J log p. Scales as those of J v, v = log p."""
    row = _row(x)
    log_s = row.T.log1p()
    return _weighted_by(row.each(row.p), [log_s - d for d in row.each(row.d)], row)


def kl_divergence_gradients(x, y):
    """J r by x and q - p by y. Scales: p (|r| + <p, |r|>), |q - p| + p <p, |r|>, by the others where p exceeds 1/2."""
    x, y = _finite(x), _finite(y)
    if _differ_by_a_constant(x, y):
        zeros = [arb(0)] * x.size
        return (_derivative(zeros, zeros, arb(0)),) * 2
    with ctx.workprec(
        9 * BITS
    ):  # enough to tell a difference that no format sees from one that a double sees
        p, q, r = _ratios(x, y)
        mean, size = _dot(p, r), _dot(p, map(abs, r))
        by_x = [p_i * (r_i - mean) for p_i, r_i in zip(p, r, strict=True)]
        by_y = [b - a for a, b in zip(p, q, strict=True)]
        scale_x = [p_i * (abs(r_i) + size) for p_i, r_i in zip(p, r, strict=True)]
        scale_y = [abs(g) + p_i * size for g, p_i in zip(by_y, p, strict=True)]
        top = int(np.argmax([float(p_i) for p_i in p]))
        return _by_others(by_x, scale_x, top, p), _by_others(by_y, scale_y, top, p)


@ctx.workprec(BITS)
def logsumexp_hessian_row_at_top(x):
    """H e_top, where top is the first maximum: p q at the top, -p_top p_j elsewhere."""
    row = _row(x)
    p_top, q_top = row.p[-1], row.q[-1]
    column = _exact([-p_top * p for p in row.p] + [p_top * q_top])
    index = row.index.copy()
    index[np.argmax(row.index)] = len(row.p)
    return column.at(index)


# ------------------------------------------------------------------------------------- the work shared by all


class _Row:
    """d = (x - max x) / t, p and q = 1 - p of the distinct scores in rising order, and T = sum exp(d) - 1.

    Equal scores have equal answers, so each distinct score is worked once; entry i is number index[i].
    """

    def __init__(self, x, temperature):
        self.index = np.unique(x, return_inverse=True)[1]
        self.d, e, self.T = _shift(*_distinct(x), arb(temperature))
        self.p = [e_i / (1 + self.T) for e_i in e]
        self.q = [1 - p_i for p_i in self.p[:-1]] + [self.T / (1 + self.T)]

    def each(self, of_scores):
        """Spread numbers of the distinct scores over the entries."""
        return [of_scores[i] for i in self.index.tolist()]


def _row(x, temperature=1.0):
    return _cached_row(_finite(x).tobytes(), float(temperature))


# One row is kept, because a test asks several functions of the same row; all of them work at BITS.
# A row of 10^6 scores holds 400 MB.
@lru_cache(maxsize=1)
def _cached_row(data, temperature):
    return _Row(np.frombuffer(data), temperature)


def _finite(x):
    """The slice in double, which holds every dtype exactly."""
    x = np.asarray(x).astype(np.float64)
    if x.ndim != 1 or x.size == 0 or not np.isfinite(x).all():
        raise ValueError(f"one finite, non-empty slice has a truth; got {x}, shape {x.shape}")
    return x


def _distinct(x):
    """The distinct scores in rising order and how often each occurs."""
    scores, counts = np.unique(_finite(x), return_counts=True)
    return _balls(scores), counts.tolist()


def _weighted(x, weights):
    """The distinct scores whose weights do not add up to 0, in rising order, and the exact sums of the weights."""
    totals = {}
    with ctx.workprec(EXACT_SUM):
        for score, weight in zip(_finite(x).tolist(), _balls(_finite(weights)), strict=True):
            totals[score] = totals.get(score, 0) + weight
    kept = sorted(score for score, total in totals.items() if not total.is_zero())
    return _balls(kept), [totals[score] for score in kept]


def _shift(scores, multiplicity, temperature=1):
    """d, exp(d) and T = sum(multiplicity · exp(d)) - 1, free of the cancellation in that difference."""
    d = [(score - scores[-1]) / temperature for score in scores]
    e = [d_i.exp() for d_i in d]
    return d, e, _dot(multiplicity[:-1], e[:-1]) + (multiplicity[-1] - 1)


def _centred(row, v):
    """v - v[top] if one entry holds more than half of p, else v: J maps both to the same, for J 1 = 0."""
    v = _balls(v)
    centre = v[int(np.argmax(row.index))] if row.T < 1 else 0
    return [v_i - centre for v_i in v]


def _weighted_by(p, v, row):
    """J v with its scales, for balls p and v."""
    centre = v[int(np.argmax(row.index))] if row.T < 1 else 0
    w = [v_i - centre for v_i in v]
    mean, size = _dot(p, w), _dot(p, map(abs, w))
    return _derivative(
        [p_i * (w_i - mean) for p_i, w_i in zip(p, w, strict=True)],
        [p_i * (abs(w_i) + size) for p_i, w_i in zip(p, w, strict=True)],
        size,
    )


def _by_others(value, scale, top, p):
    """A derivative whose entries sum to 0; that of a dominant entry, and its scale, from those of the others."""
    if p[top] > 0.5:
        value[top] = -sum(value[:top] + value[top + 1 :], arb(0))
        scale[top] = sum(scale[:top] + scale[top + 1 :], arb(0))
    return _derivative(value, scale, sum(scale, arb(0)))


def _differ_by_a_constant(x, y):
    return (
        len({Fraction(a) - Fraction(b) for a, b in zip(x.tolist(), y.tolist(), strict=True)}) == 1
    )


def _ratios(x, y):
    """p, q and log p - log q of every entry, in the working precision."""
    rows = _Row(x, 1.0), _Row(y, 1.0)
    p, q = (row.each(row.p) for row in rows)
    log_p, log_q = ([d - row.T.log1p() for d in row.each(row.d)] for row in rows)
    return p, q, [a - b for a, b in zip(log_p, log_q, strict=True)]


def _sums_of_others(u):
    """sum_{j≠i} u_j for every i, from the left and from the right, so that u_i is never added and taken away."""
    left, right = [arb(0)], [arb(0)]
    for u_i in u[:-1]:
        left.append(left[-1] + u_i)
    for u_i in u[:0:-1]:
        right.append(right[-1] + u_i)
    return [a + b for a, b in zip(left, reversed(right), strict=True)]


def _dot(a, b):
    return sum((a_i * b_i for a_i, b_i in zip(a, b, strict=True)), arb(0))


def _balls(x):
    return [arb(x_i) for x_i in np.asarray(x).astype(np.float64).tolist()]


# ------------------------------------------------------------------------------------- from balls to numbers


def _is_narrow(ball):
    return ball.rel_accuracy_bits() >= NARROW or abs(ball) < INVISIBLE


def _derivative(value, entry_scale, row_scale):
    # An entry may be 0 by cancellation, so it owes its accuracy to its scale, not to itself.
    slack = arb((1, -NARROW))
    for ball, scale in zip(value, entry_scale, strict=True):
        if not (_is_narrow(ball) or ball.rad() <= slack * scale):
            raise ArithmeticError(f"the ball {ball} is too wide for its scale {scale}")
    return Derivative(_split(value), _exact(entry_scale), _exact([row_scale]).at(0))


def _exact(balls):
    if not all(map(_is_narrow, balls)):
        raise ArithmeticError(f"a ball is wider than 2^-{NARROW} of its value")
    return _split(balls)


def _split(balls):
    """Midpoints as hi, lo and exponent."""
    hi = np.array([float(ball) for ball in balls])
    exponent = np.zeros(hi.shape, dtype=np.int64)
    # Doubles near the ends of their range have no room for lo: bring those balls to the middle first.
    far = np.flatnonzero((np.abs(hi) < 2.0**-900) | (np.abs(hi) > 2.0**900))
    if far.size:
        balls = list(balls)
    for i in far.tolist():
        balls[i], exponent[i] = _to_unit(balls[i])
        hi[i] = float(balls[i])
    lo = np.array([float(ball - hi_i) for ball, hi_i in zip(balls, hi.tolist(), strict=True)])
    return _normalised(hi, lo, exponent)


def _to_unit(ball):
    """The midpoint times 2^-k, in [1/2, 1), and k."""
    mantissa, exponent = ball.mid().man_exp()
    if mantissa == 0 or abs(ball.mid()) < VANISHING:
        return arb(0), 0
    k = int(mantissa).bit_length() + int(exponent)
    return ball.mid() * arb((1, -k)), k


def _normalised(hi, lo, exponent):
    total = hi + lo
    lo = lo - (total - hi)  # exact, because |lo| <= |hi|
    hi, shift = np.frexp(total)
    return Exact(hi, np.ldexp(lo, -shift), exponent + shift)
