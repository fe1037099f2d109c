"""Score vectors on which softmaxes go wrong: named, seeded, finite in their dtype."""

import zlib

import numpy as np
from ulps import FORMATS

__all__ = ["REGIMES", "crowded", "regime", "seeded"]


def regime(name, n, dtype, rng):
    """Draw `n` scores of the regime `name`, rounded to `dtype`."""
    form = FORMATS[np.dtype(dtype).name]
    x = REGIMES[name](n, form, rng).astype(dtype)
    assert np.isfinite(x.astype(np.float64)).all(), (
        f"{name} is not finite in {np.dtype(dtype).name}"
    )
    return x


def seeded(name, n, seed=0):
    """The generator for a regime and length: the same in every run, another for every regime and length."""
    return np.random.default_rng([seed, n, zlib.crc32(name.encode())])


def crowded(gap, large, n, dtype):
    """Return rows: one score of 0, a few a gap below, and all others with terms of about half an ulp of those."""
    bits = FORMATS[dtype].bits
    many = 33 if n < 300 else 7
    rows = np.log(2.0) * -bits - gap + np.linspace(-0.3, 2.7, many)[:, None] + np.zeros(n)
    rows[:, : min(large, n // 2)] = -gap
    rows[:, 0] = 0.0
    return list(rows.astype(dtype))


def _normal(spread):
    return lambda n, form, rng: spread * rng.standard_normal(n)


def _dominant(gap):
    """One entry stands `gap` above all others."""

    def scores(n, form, rng):
        x = rng.standard_normal(n)
        x[rng.integers(n)] = x.max() + gap
        return x

    return scores


def _offset(offset):
    """A few ulp around an offset, or around half the largest number where the offset is out of reach."""

    def scores(n, form, rng):
        base = min(offset, form.largest / 2)
        return base + rng.integers(-3, 4, n) * _ulp(base, form)

    return scores


def _offset_normal(offset):
    """Normal scores around an offset, as rounding leaves them."""
    return lambda n, form, rng: offset + rng.standard_normal(n)


def _near_ties(n, form, rng):
    return 3.0 + rng.integers(0, 4, n) * _ulp(3.0, form)


def _all_equal(n, form, rng):
    return np.full(n, rng.standard_normal())


def _subnormal(n, form, rng):
    """One entry at 0, the others so far below that their probability is at or under the smallest normal number."""
    x = rng.uniform(np.log(form.smallest) - 2, np.log(form.tiny) + 2, n)
    x[rng.integers(n)] = 0.0
    return x


def _ramp(n, form, rng):
    return np.linspace(-30.0, 10.0, n)


def _alternating_huge(n, form, rng):
    """The largest number and its negative in turn: the shift overflows."""
    return form.largest * (-1.0) ** np.arange(n)


def _alternating(n, form, rng):
    return 1e4 * (-1.0) ** np.arange(n) + 10 * rng.standard_normal(n)


def _geometric(n, form, rng):
    """Both signs, magnitudes from 2^-20 to 2^10: a shift rounds every one of them differently."""
    return rng.choice([-1.0, 1.0], n) * 2.0 ** rng.uniform(-20, 10, n)


def _bimodal(n, form, rng):
    """Two clusters, the lower one small but present in every format."""
    return rng.standard_normal(n) + np.where(rng.random(n) < 0.5, 0.0, -7.0)


def _normalised(n, form, rng):
    """Log-probabilities: logsumexp is near 0."""
    x = 3 * rng.standard_normal(n)
    return x - np.logaddexp.reduce(x)


def _ulp(base, form):
    return 2.0 ** (np.floor(np.log2(base)) - form.bits + 1)


REGIMES = {
    "standard_normal": _normal(1),
    "scale_10": _normal(10),
    "scale_100": _normal(100),
    "dominant_5": _dominant(5),
    "dominant_20": _dominant(20),
    "dominant_40": _dominant(40),
    "dominant_200": _dominant(200),
    "dominant_800": _dominant(800),
    "near_ties": _near_ties,
    "all_equal": _all_equal,
    "offset_1e4": _offset_normal(1e4),
    "offset_1e4_ulps": _offset(1e4),
    "offset_1e30": _offset(1e30),
    "subnormal": _subnormal,
    "ramp": _ramp,
    "alternating": _alternating,
    "alternating_huge": _alternating_huge,
    "geometric": _geometric,
    "bimodal": _bimodal,
    "normalised": _normalised,
}
