"""The scores that accuracy is measured on, from easy to hard."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmaxes._cli.exact import Truth, exact
from softmaxes._cli.formats import FORMATS, Format

__all__ = ["REGIMES", "N", "Sample", "sample"]

Array = NDArray[np.float64]
Generator = np.random.Generator

N = 203  # entries in a row: some full vectors of the processor, and a remainder
SEEDS = (1, 2, 3, 4, 5)


def _dominant(rng: Generator, n: int, form: Format) -> Array:
    x = rng.standard_normal(n)
    x[n // 2] += 30
    return x


def _near_ties(rng: Generator, n: int, form: Format) -> Array:
    return np.asarray(1 + rng.integers(0, 4, n) * 2.0 ** (1 - form.bits), dtype=np.float64)


def _subnormal(rng: Generator, n: int, form: Format) -> Array:
    # Probabilities between the smallest subnormal and the smallest normal number.
    x = math.log(form.tiny) - rng.uniform(0, (form.bits - 1) * math.log(2), n)
    x[n // 2] = 0
    return np.asarray(x)


def _crowded(rng: Generator, n: int, form: Format) -> Array:
    # A few large terms, and all others near half an ulp of those.
    x = np.full(n, math.log(2.0) * -form.bits + rng.uniform(-0.7, 1.4))
    x[:: n // 9] = 0
    return x


REGIMES: dict[str, Callable[[Generator, int, Format], Array]] = {
    "normal": lambda rng, n, form: rng.standard_normal(n),
    "scale 10": lambda rng, n, form: 10 * rng.standard_normal(n),
    "scale 100": lambda rng, n, form: 100 * rng.standard_normal(n),
    "dominant entry": _dominant,
    "near ties": _near_ties,
    "all equal": lambda rng, n, form: np.full(n, rng.standard_normal()),
    "offset 1e4": lambda rng, n, form: 1e4 + 10 * rng.standard_normal(n),
    "offset 1e30": lambda rng, n, form: (
        1e30 * (1 + rng.standard_normal(n) * 2.0 ** (2 - form.bits))
    ),
    "subnormal results": _subnormal,
    "crowded": _crowded,
}


class Sample(NamedTuple):
    """Rows of scores and of tangents, the regime of each row, and the truth about them."""

    regimes: list[str]
    x: Array
    v: Array
    truth: Truth


@cache
def sample(dtype: str) -> Sample:
    """Draw a row for every regime and seed, rounded to the dtype."""
    form = FORMATS[dtype]
    regimes, rows = zip(*_rows(form), strict=True)
    x = np.array(rows)
    v = form.round(np.random.default_rng(0).standard_normal(x.shape))
    return Sample(list(regimes), x, v, exact(x, v, form))


def _rows(form: Format) -> Iterator[tuple[str, Array]]:
    for regime, draw in REGIMES.items():
        for seed in SEEDS:
            x = form.round(draw(np.random.default_rng(seed), N, form))
            if np.all(np.isfinite(x)):  # float16 ends at 65504
                yield regime, x
