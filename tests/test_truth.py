"""The truth itself, against mpmath at 800 digits with the formulas of the definitions: no shift, no log1p."""

from fractions import Fraction

import ml_dtypes
import mpmath
import numpy as np
import pytest
import truth
from regimes import REGIMES, regime, seeded
from ulps import FORMATS, correctly_rounded, ulp_error

# Rows that saturate in float64 need exp(-745), that is 324 digits, and the largest double another 309.
DIGITS = 800
# What those digits leave of a difference, and far below the smallest subnormal of any format.
RESIDUE = mpmath.mpf(10) ** -400
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
each_regime = pytest.mark.parametrize("name", REGIMES)
each_length = pytest.mark.parametrize("n", [1, 2, 10])


@pytest.fixture(autouse=True)
def digits():
    with mpmath.workdps(DIGITS):
        yield


def to_mpf(exact):
    """The numbers of an Exact as a flat list."""
    parts = zip(
        exact.hi.ravel().tolist(),
        exact.lo.ravel().tolist(),
        exact.exponent.ravel().tolist(),
        strict=True,
    )
    return [mpmath.ldexp(mpmath.mpf(hi) + mpmath.mpf(lo), exponent) for hi, lo, exponent in parts]


def real(x):
    return [mpmath.mpf(x_i) for x_i in np.asarray(x).astype(np.float64).tolist()]


def row(name, n, dtype):
    rng = seeded(name, n)
    x = regime(name, n, dtype, rng)
    return x, rng.standard_normal(n).astype(dtype)


def mp_softmax(x, temperature=1):
    e = [mpmath.exp(x_i / temperature) for x_i in x]
    return [e_i / mpmath.fsum(e) for e_i in e]


def mp_logsumexp(x):
    return mpmath.log(mpmath.fsum(map(mpmath.exp, x)))


def assert_same(exact, expected, scale=None, residue=RESIDUE):
    """Equal to 2^-88 of the expected value, or of its scale."""
    for actual, value, size in zip(to_mpf(exact), expected, scale or expected, strict=True):
        assert abs(actual - value) <= mpmath.ldexp(abs(size), -88) + residue


# ---------------------------------------------------------------------------------------------- against mpmath


@each_dtype
@each_length
@each_regime
def test_values_are_those_of_the_definitions(name, n, dtype):
    x, _ = row(name, n, dtype)
    z = real(x)
    lse = mp_logsumexp(z)
    assert_same(truth.softmax(x), mp_softmax(z))
    assert_same(truth.log_softmax(x), [z_i - lse for z_i in z])
    assert_same(truth.logsumexp(x), [lse])
    assert_same(truth.cross_entropy(x, n - 1), [lse - z[-1]])
    assert_same(truth.cross_entropy(x, int(np.argmax(x))), [lse - max(z)])


@each_dtype
@each_length
@each_regime
def test_derivatives_are_those_of_the_definitions(name, n, dtype):
    x, v = row(name, n, dtype)
    p, w, top = mp_softmax(real(x)), real(v), int(np.argmax(x))
    mean, total = mpmath.fdot(p, w), mpmath.fsum(w)

    jvp = truth.softmax_jvp(x, v)
    assert_same(
        jvp.value,
        [p_i * (w_i - mean) for p_i, w_i in zip(p, w, strict=True)],
        to_mpf(jvp.entry_scale),
    )
    jvp = truth.log_softmax_jvp(x, v)
    assert_same(jvp.value, [w_i - mean for w_i in w], to_mpf(jvp.entry_scale))
    vjp = truth.log_softmax_vjp(x, v)
    assert_same(
        vjp.value,
        [w_i - p_i * total for p_i, w_i in zip(p, w, strict=True)],
        to_mpf(vjp.entry_scale),
    )

    for label in (n - 1, top):
        assert_same(truth.cross_entropy_gradient_at_label(x, label), [p[label] - 1])
    row_at_top = [p[top] * ((j == top) - p_j) for j, p_j in enumerate(p)]
    assert_same(truth.logsumexp_hessian_row_at_top(x), row_at_top)


@each_length
@each_regime
def test_scales_are_centred_where_one_entry_holds_more_than_half(name, n):
    x, v = row(name, n, np.float64)
    p, w = mp_softmax(real(x)), real(v)
    top = int(np.argmax(x))
    if p[top] > 0.5:
        w = [w_i - w[top] for w_i in w]
    size = mpmath.fdot(p, map(abs, w))
    jvp = truth.softmax_jvp(x, v)
    assert_same(jvp.row_scale, [size])
    assert_same(jvp.entry_scale, [p_i * (abs(w_i) + size) for p_i, w_i in zip(p, w, strict=True)])


@pytest.mark.parametrize("temperature", [0.3, 7.0, np.float32(0.1)])
@each_regime
def test_temperature_divides_exactly(name, temperature):
    x, v = row(name, 10, np.float32)
    t, w = mpmath.mpf(float(temperature)), real(v)
    p = mp_softmax(real(x), t)
    mean = mpmath.fdot(p, w)
    assert_same(truth.softmax(x, temperature), p)
    lse = mp_logsumexp([z_i / t for z_i in real(x)])
    assert_same(truth.log_softmax(x, temperature), [z_i / t - lse for z_i in real(x)])
    jvp = truth.softmax_jvp(x, v, temperature)
    expected = [p_i * (w_i - mean) / t for p_i, w_i in zip(p, w, strict=True)]
    assert_same(jvp.value, expected, to_mpf(jvp.entry_scale))


@each_regime
def test_weights_of_either_sign_multiply_the_exponentials(name):
    x, b = row(name, 10, np.float64)
    total = mpmath.fsum(b_i * mpmath.exp(z_i) for z_i, b_i in zip(real(x), real(b), strict=True))
    actual = truth.logsumexp(x, weights=b)
    if total < 0:
        assert np.isnan(actual.hi)
    else:
        assert_same(actual, [mpmath.log(total)])


def test_weights_that_cancel_leave_the_rest():
    # The first two scores vanish exactly, although they are e^(10^6) times the third.
    assert_same(truth.logsumexp([1e6, 1e6, 0.0], weights=[1e300, -1e300, 2.0]), [mpmath.log(2)])
    assert truth.logsumexp([3.0, 3.0], weights=[1.0, -1.0]).hi == -np.inf
    # Cancellation to 10^-300 takes a thousand bits, and takes them.
    assert_same(
        truth.logsumexp([1e-300, 0.0], weights=[1.0, -1.0]),
        [mpmath.log(mpmath.expm1(mpmath.mpf(1e-300)))],
    )


@pytest.mark.parametrize("gap", [40.0, 200.0, 800.0, 10_000.0])
def test_saturated_rows_keep_their_distance_from_one(gap):
    # -log(1 + exp(-gap)), by the series of log1p: the next term is exp(-gap) times smaller.
    small = mpmath.exp(-mpmath.mpf(gap))
    distance = mpmath.fsum((-1) ** k * small ** (k + 1) / (k + 1) for k in range(8))
    assert_same(truth.log_softmax([0.0, -gap]).at(0), [-distance], residue=0)
    assert_same(truth.logsumexp([-gap, 0.0]), [distance], residue=0)


def test_joined_rows_are_the_rows():
    x = [row("scale_10", 5, np.float32)[0], row("near_ties", 5, np.float32)[0]]
    joined = truth.stack([truth.softmax(x_i) for x_i in x])
    assert joined.shape == (2, 5)
    assert_same(joined.at(1), mp_softmax(real(x[1])))


def test_a_ball_too_wide_is_never_handed_out():
    with pytest.raises(ArithmeticError, match="wider"):
        truth._exact([truth.arb(1, 1e-20)])


@pytest.mark.parametrize("x", [[], [0.0, np.inf], [np.nan], [[1.0]]])
def test_only_finite_slices_have_a_truth(x):
    for function in (truth.softmax, truth.logsumexp):
        with pytest.raises(ValueError, match="slice"):
            function(x)


# ------------------------------------------------------------------------------------------------ golden values


def test_numbers_everyone_knows():
    np.testing.assert_array_equal(
        truth.softmax([11, 12, 13, 14, 15]).double.round(8),
        [0.01165623, 0.03168492, 0.08612854, 0.23412166, 0.63640865],
    )
    np.testing.assert_array_equal(
        truth.softmax([1, 2, 3, 4], temperature=2).double.round(8),
        [0.10153632, 0.1674051, 0.27600434, 0.45505423],
    )
    assert f"{truth.log_softmax([0, -40]).double[0]:.3e}" == "-4.248e-18"
    assert f"{truth.logsumexp([0, -40]).double:.3e}" == "4.248e-18"
    assert f"{truth.cross_entropy([20, 0, 0], 0).double:.4e}" == "4.1223e-09"
    assert f"{truth.cross_entropy_gradient_at_label([20, 0, 0], 0).double:.4e}" == "-4.1223e-09"


# ------------------------------------------------------------------------------------------------ errors in ulp


def as_exact(value):
    """A double as an Exact."""
    hi, exponent = np.frexp(np.float64(value))
    return truth.Exact(hi, np.float64(0), np.int64(exponent))


def samples(dtype):
    """Numbers of the format with an odd last bit, so none is a power of two: normal, least normal, subnormal."""
    form = FORMATS[np.dtype(dtype).name]
    step = 2.0 ** (1 - form.bits)
    normal = [1 + step, 1.5 + step, -1e-3, form.tiny * (1 + step), form.largest * 0.5]
    subnormal = [form.smallest, 3 * form.smallest, form.tiny - form.smallest]
    return np.array(normal + subnormal).astype(dtype)


@each_dtype
def test_formats_are_those_of_the_libraries(dtype):
    form, finfo = FORMATS[np.dtype(dtype).name], ml_dtypes.finfo(dtype)
    expected = (float(finfo.smallest_normal), float(finfo.smallest_subnormal), float(finfo.max))
    assert (form.tiny, form.smallest, form.largest) == expected


@each_dtype
@pytest.mark.parametrize("direction", [-np.inf, np.inf])
def test_one_ulp_is_seen_as_exactly_one(dtype, direction):
    for value in samples(dtype):
        neighbour = np.nextafter(value, np.asarray(direction).astype(dtype))
        assert ulp_error(neighbour, as_exact(value), dtype) == 1
        assert ulp_error(value, as_exact(value), dtype) == 0


@each_dtype
def test_ulps_change_at_powers_of_two(dtype):
    one, infinity = np.array([1, np.inf]).astype(dtype)
    assert ulp_error(np.nextafter(one, infinity), as_exact(1.0), dtype) == 1
    assert ulp_error(np.nextafter(one, -infinity), as_exact(1.0), dtype) == 0.5
    # An eighth of an ulp below 1 the correctly rounded result is still 1, and so is its ulp.
    eighth = 2.0 ** -(FORMATS[np.dtype(dtype).name].bits + 2)
    below = truth._normalised(np.float64(1), np.float64(-eighth), np.int64(0))
    assert ulp_error(np.nextafter(one, infinity), below, dtype) == 1.125


@each_dtype
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_last_half_ulp_below_a_power_of_two_has_the_ulp_above(dtype, sign):
    ulp_below = 2.0 ** -FORMATS[np.dtype(dtype).name].bits
    hi = np.float64(sign * (1 - ulp_below))
    for hair, expected in [(-(2.0**-50), 0.5), (0.0, 0.25), (2.0**-50, 0.25)]:
        exact = truth._normalised(hi, sign * ulp_below / 2 * (1 + hair), np.int64(0))
        assert ulp_error(sign, exact, dtype) == pytest.approx(expected, rel=1e-12, abs=0)


@each_dtype
def test_errors_are_those_of_rational_arithmetic(dtype):
    form = FORMATS[np.dtype(dtype).name]
    rng = np.random.default_rng(7)
    values = rng.standard_normal(300) * 2.0 ** rng.integers(form.min_exponent - form.bits, 3, 300)
    lo = rng.uniform(-1, 1, 300) * np.spacing(values) / 2
    hi, exponent = np.frexp(values)
    exact = truth.Exact(hi, np.ldexp(lo, -exponent), exponent.astype(np.int64))
    actual = (values * (1 + 1e-2 * rng.standard_normal(300))).astype(dtype)
    assert_ulps(ulp_error(actual, exact, dtype), actual, exact, form)


def assert_ulps(errors, actual, exact, form):
    for error, a, hi, lo, e in zip(errors, actual.astype(np.float64), *exact, strict=True):
        value = (Fraction(float(hi)) + Fraction(float(lo))) * Fraction(2) ** int(e)
        ulp = rational_ulp(abs(value), form)
        assert error == pytest.approx(
            float(abs(Fraction(float(a)) - value) / ulp), rel=1e-15, abs=0
        )


def rational_ulp(size, form):
    """The spacing at `size` rounded to nearest, by search."""
    k = form.min_exponent
    while round(size / Fraction(2) ** (k - form.bits + 1)) >= 2**form.bits:
        k += 1
    return Fraction(2) ** (k - form.bits + 1)


@each_dtype
@each_regime
def test_correctly_rounded_truth_is_within_half_an_ulp(name, dtype):
    x, _ = row(name, 1000, dtype)
    for function in (truth.softmax, truth.log_softmax):
        exact = function(x)
        assert ulp_error(correctly_rounded(exact, dtype), exact, dtype).max() <= 0.5


@each_dtype
def test_ties_are_rounded_to_even_unless_lo_decides(dtype):
    half = 2.0 ** -FORMATS[np.dtype(dtype).name].bits
    # 1 and half an ulp, less or more by a hair that no double next to 1 can hold.
    for hair, expected in [(-(2.0**-50), 1), (0.0, 1), (2.0**-50, 1 + 2 * half)]:
        exact = truth._normalised(np.float64(1), half * (1 + hair), np.int64(0))
        assert correctly_rounded(exact, dtype) == expected


def test_zero_is_not_a_small_logarithm():
    exact = truth.log_softmax([0.0, -46.0]).at(0)
    nearest = exact.double
    assert ulp_error(nearest, exact, np.float64) <= 0.5
    assert 0.5 <= ulp_error(np.nextafter(nearest, 0.0), exact, np.float64) <= 1.5
    assert ulp_error(0.0, exact, np.float64) > 2.0**52


@each_dtype
def test_nan_and_inf_where_not_due_are_infinite_errors(dtype):
    form = FORMATS[np.dtype(dtype).name]
    assert ulp_error(np.nan, as_exact(1.0), dtype) == np.inf
    assert ulp_error(np.inf, as_exact(form.largest), dtype) == np.inf
    # 2^(max_exponent + 1) rounds to inf, and nothing else will do.
    over = truth.Exact(np.float64(-0.5), np.float64(0), np.int64(form.max_exponent + 2))
    assert ulp_error(-np.inf, over, dtype) == 0
    assert ulp_error(np.inf, over, dtype) == np.inf
    assert ulp_error(-form.largest, over, dtype) == np.inf
    minus_inf = truth.logsumexp([0.0], weights=[0.0])
    assert ulp_error(-np.inf, minus_inf, dtype) == 0
    assert ulp_error(-form.largest, minus_inf, dtype) == np.inf
    assert ulp_error(np.nan, truth.logsumexp([0.0], weights=[-1.0]), dtype) == 0


@each_dtype
def test_errors_can_be_measured_in_ulp_of_a_scale(dtype):
    eps = 2.0 ** (1 - FORMATS[np.dtype(dtype).name].bits)
    assert ulp_error(3 * eps, as_exact(0.0), dtype, scale=as_exact(1.5)) == 3
    assert ulp_error(3 * eps, as_exact(eps), dtype, scale=as_exact(4.0)) == 0.5


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shape"):
        ulp_error(np.ones((2, 1)), truth.softmax([0.0, 0.0]), np.float64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_flushed_results_are_judged_by_their_absolute_error(dtype):
    tiny = FORMATS[np.dtype(dtype).name].tiny
    exact = as_exact(3 * tiny)
    assert ulp_error(0.0, exact, dtype) > 1e6
    assert ulp_error(0.0, exact, dtype, flush=3) == 0
    assert ulp_error(0.0, exact, dtype, flush=2) == np.inf
    assert ulp_error(np.nan, exact, dtype, flush=3) == np.inf
    # From 16·n·tiny on the error is in ulp again.
    assert ulp_error(48 * tiny * (1 + 2.0**-20), as_exact(48 * tiny), dtype, flush=3) > 1
    assert ulp_error(47 * tiny * (1 + 2.0**-20), as_exact(47 * tiny), dtype, flush=3) == 0


# ------------------------------------------------------------------------------------------------- the regimes


@each_dtype
@each_regime
def test_regimes_are_finite_and_reproducible(name, dtype):
    for n in (1, 2, 1000):
        x = regime(name, n, dtype, seeded(name, n))
        assert x.shape == (n,)
        assert x.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(x, regime(name, n, dtype, seeded(name, n)))
