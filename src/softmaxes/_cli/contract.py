"""The boundary contract: what happens at masks, infinities, NaN, empty axes and bad input."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import softmaxes as sm
from softmaxes._cli.backends import Backend
from softmaxes._cli.budgets import BUDGETS, budget
from softmaxes._cli.findings import Finding, Measured, attempt
from softmaxes._cli.formats import FORMATS

__all__ = ["contract"]

Array = NDArray[np.float64]

INF, NAN, LOG2 = math.inf, math.nan, math.log(2)
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


class Case(NamedTuple):
    """Scores, and what must come of them; None where the contract does not say."""

    x: Any
    softmax: Any  # and the gradient of logsumexp
    log_softmax: Any
    logsumexp: Any = None
    product: Any = None  # J v, J' v and the Hessian of logsumexp times v, v = (1, 2, 3, ...)
    options: Mapping[str, Any] = NO_OPTIONS
    dtype: str = "float64"


# The masked and the dead entries stand beside a pair of equal scores: 1/2 each, and J v = -1/4, 1/4.
PAIR = Case([2, 2], [0.5, 0.5], [-LOG2, -LOG2], 2 + LOG2, [-0.25, 0.25])


def _beside_the_pair(entry: float, **options: Any) -> Case:
    return Case(
        [entry, *PAIR.x],
        [0, *PAIR.softmax],
        [-INF, *PAIR.log_softmax],
        PAIR.logsumexp,
        [0, *PAIR.product],
        options,
    )


CASES = {
    "masked NaN": _beside_the_pair(NAN, where=[False, True, True]),
    "masked inf": _beside_the_pair(INF, where=[False, True, True]),
    "masked 1e300": _beside_the_pair(1e300, where=[False, True, True]),
    "-inf entry": _beside_the_pair(-INF),
    "all masked": Case([1, NAN], [0, 0], [-INF, -INF], -INF, [0, 0], {"where": [False, False]}),
    "all -inf": Case([-INF, -INF], [0, 0], [-INF, -INF], -INF, [0, 0]),
    "axis of length 0": Case([], [], [], -INF, []),
    "one +inf": Case([1, INF, 2], [0, 1, 0], [-INF, 0, -INF], INF, [0, 0, 0]),
    "several +inf": Case([1, INF, INF], [0, NAN, NAN], [-INF, NAN, NAN], INF, [0, NAN, NAN]),
    "NaN, its slice only": Case(
        [[NAN, 1], PAIR.x],
        [[NAN, NAN], PAIR.softmax],
        [[NAN, NAN], PAIR.log_softmax],
        [NAN, PAIR.logsumexp],
        [[NAN, NAN], PAIR.product],
    ),
    "0-d": Case(2, 1, 0, 2, 0),
    "scores of 1000": PAIR._replace(x=[1000, 1000], logsumexp=1000 + LOG2),
    "uint8": Case([0, 255, 255], [math.exp(-255) / 2, 0.5, 0.5], [-255 - LOG2, -LOG2, -LOG2], 255 + LOG2, dtype="uint8"),
    "int8": Case([127, -128, 127], [0.5, math.exp(-255) / 2, 0.5], [-LOG2, -255 - LOG2, -LOG2], 127 + LOG2, dtype="int8"),
    "bool": Case([True, True], [0.5, 0.5], [-LOG2, -LOG2], 1 + LOG2, dtype="bool"),
    "float16, 100 000 entries": Case(np.zeros(100_000), np.full(100_000, 1e-5), np.full(100_000, -math.log(1e5)), math.log(1e5), dtype="float16"),
    "temperature 0": Case([1, 3, 3], [0, 0.5, 0.5], [-INF, -LOG2, -LOG2], None, [0, 0, 0], {"temperature": 0.0}),
    "temperature inf": Case([-INF, 1, 3], [0, 0.5, 0.5], [-INF, -LOG2, -LOG2], None, [0, 0, 0], {"temperature": INF}),
}
