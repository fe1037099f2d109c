"""The boundary contract, as data: what each function gives for one slice, with its two derivatives.

The slices are small enough to be worked out by hand. In `PAIR` two scores are equal, in `CONFIDENT` one dominates; the
rest of the table puts something at the boundary beside them, or in their place.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

__all__ = ["CONTRACT", "INF", "NAN", "Expected", "Row"]

INF, NAN = math.inf, math.nan
LOG2, LOG3, E40 = math.log(2), math.log(3), math.exp(-40)


class Expected(NamedTuple):
    """The result y, its Jacobian by x, and the Hessian by x of the sum of y; None where the contract is silent.

    Where a row of 0 meets a column of NaN stands None: one mode of differentiation finds 0 there, the other 0 · NaN.
    """

    value: Any
    jacobian: Any = None
    hessian: Any = None


class Row(NamedTuple):
    """One slice with its options; a function that does not take them has no expectation."""

    x: Any
    softmax: Expected | None = None
    log_softmax: Expected | None = None
    logsumexp: Expected | None = None
    options: Mapping[str, Any] = MappingProxyType({})


# The corner stones ----------------------------------------------------------------------------------------------------

# p = (1/2, 1/2)
C = np.array([[1, -1], [-1, 1]]) / 4
PAIR = Row(
    [2, 2],
    Expected([1 / 2, 1 / 2], C, 0 * C),
    Expected([-LOG2, -LOG2], 2 * C, -2 * C),
    Expected(2 + LOG2, [1 / 2, 1 / 2], C),
)

ALONE = Row([3], Expected([1], [[0]], [[0]]), Expected([0], [[0]], [[0]]), Expected(3, [1], [[0]]))

# p = (1, e^-40) and log p = (-e^-40, -40), to the last digit of a double
D = np.array([[E40, -E40], [-E40, E40]])
CONFIDENT = Row(
    [0, -40],
    Expected([1, E40], D, 0 * D),
    Expected([-E40, -40], [[E40, -E40], [-1, 1]], -2 * D),
    Expected(E40, [1, E40], D),
)

# The limit: the second alone counts, and log p_i = x_i - x_1.
ONE_INF = Row(
    [1, INF],
    Expected([0, 1], 0 * C, 0 * C),
    Expected([-INF, 0], [[1, -1], [0, 0]], 0 * C),
    Expected(INF, [0, 1], 0 * C),
)

# No limit exists.
N = np.full((2, 2), NAN)
TWO_INF = Row(
    [INF, INF], Expected([NAN, NAN], N, N), Expected([NAN, NAN], N, N), Expected(INF, [NAN, NAN], N)
)
UNKNOWN = Row(
    [NAN, 1], Expected([NAN, NAN], N, N), Expected([NAN, NAN], N, N), Expected(NAN, [NAN, NAN], N)
)

# e² + 3 e² is e^(2 + log 4), in shares of 1/4 and 3/4; 2 e² - e² is e², in shares of 2 and -1.
WEIGHTED = Row(
    [2, 2], logsumexp=Expected(2 + 2 * LOG2, [1 / 4, 3 / 4], 3 / 4 * C), options={"weights": [1, 3]}
)
SIGNED = Row([2, 2], logsumexp=Expected(2, [2, -1], -8 * C), options={"weights": [2, -1]})


def empty(x, **options):
    """A row with empty support: nothing is there, and nothing changes."""
    n = len(x)
    zeros = np.zeros((n, n))
    return Row(
        x,
        Expected(np.zeros(n), zeros, zeros),
        Expected(np.full(n, -INF), zeros, zeros),
        Expected(-INF, np.zeros(n), zeros),
        options,
    )


def tempered(row):
    """The row at temperature 2, with scores twice as large."""
    y, log_y = (
        Expected(e.value, np.array(e.jacobian) / 2, np.array(e.hessian) / 4) for e in row[1:3]
    )
    return Row([2 * x for x in row.x], y, log_y, options={"temperature": 2})


def at_limit(temperature, x, p, log_p):
    """A row at temperature 0 or inf, where the probabilities do not move."""
    zeros = np.zeros((len(x), len(x)))
    return Row(
        x,
        Expected(p, zeros, zeros),
        Expected(log_p, zeros, zeros),
        options={"temperature": temperature},
    )


# What is put beside them ----------------------------------------------------------------------------------------------


def masked(entry, row, at=0):
    """Put a masked entry into the row: value 0 (log -inf), derivative 0. Its weight is as bad as itself."""
    options = dict(row.options)
    options["where"] = np.insert(options.get("where", np.full(len(row.x), True)), at, False)
    if "weights" in options:
        options["weights"] = np.insert(np.array(options["weights"], float), at, entry)
    return _beside(entry, row, at)._replace(options=options)


def minus_inf(row, at=0):
    """Put an entry -inf into the row: as if it were masked, but that log p there moves as x - logsumexp(x)."""
    beside = _beside(-INF, row, at)
    n, y, log_y = len(beside.x), beside.softmax, beside.log_softmax
    jacobian = log_y.jacobian.copy()
    jacobian[at] = (np.eye(n)[at] - y.value) / row.options.get("temperature", 1)
    hessian = log_y.hessian * (n / (n - 1))  # of a sum with one term more
    return beside._replace(log_softmax=Expected(log_y.value, jacobian, hessian))


def weightless(entry, row):
    """Put an entry of weight 0 into the row: as if it were masked."""
    return _beside(entry, row, 0)._replace(options={"weights": [0, *row.options["weights"]]})


def _beside(entry, row, at):
    y, log_y, log_sum = (
        None
        if e is None
        else Expected(e.value, _bordered(e.jacobian, at), _bordered(e.hessian, at))
        for e in row[1:4]
    )
    y = y and y._replace(value=np.insert(np.array(y.value, float), at, 0))
    log_y = log_y and log_y._replace(value=np.insert(np.array(log_y.value, float), at, -INF))
    return Row(np.insert(np.array(row.x, float), at, entry), y, log_y, log_sum, row.options)


def _bordered(derivative, at):
    """Return a Jacobian or Hessian with zeros for one more entry."""
    if derivative is None:
        return None
    derivative = np.array(derivative, dtype=object)
    for axis in range(derivative.ndim):
        lines = np.isnan(np.where(np.equal(derivative, None), 0, derivative).astype(float)).any(
            axis
        )
        derivative = np.insert(derivative, at, np.where(lines, None, 0), axis=axis)
    return derivative


CONTRACT = {
    "two equal scores": PAIR,
    "a dominant score": CONFIDENT,
    "one entry": ALONE,
    "one entry, far from 0": ALONE._replace(x=[-3e38], logsumexp=Expected(-3e38, [1], [[0]])),
    "one entry, -inf": empty([-INF]),
    "one entry, masked NaN": empty([NAN], where=[False]),
    "one entry, +inf": ALONE._replace(x=[INF], logsumexp=Expected(INF, [1], [[0]])),
    "one entry, NaN": Row(
        [NAN], *[Expected([NAN], [[NAN]], [[NAN]])] * 2, Expected(NAN, [NAN], [[NAN]])
    ),
    "one entry, temperature 2": tempered(ALONE),
    "one entry, temperature 0": at_limit(0, [3], [1], [0]),
    "one entry, temperature inf": at_limit(INF, [3], [1], [0]),
    "one entry, temperature inf, -inf": at_limit(INF, [-INF], [0], [-INF]),
    "one entry, weight 3": Row(
        [3], logsumexp=Expected(3 + LOG3, [1], [[0]]), options={"weights": [3]}
    ),
    "one entry, weight 0": empty([NAN], weights=[0])._replace(softmax=None, log_softmax=None),
    "far from 0": PAIR._replace(x=[3e38, 3e38], logsumexp=Expected(3e38, *PAIR.logsumexp[1:])),
    "far apart": Row(
        [1e38, -1e38],
        Expected([1, 0], 0 * C, 0 * C),
        Expected([0, -2e38], [[0, 0], [-1, 1]], 0 * C),
        Expected(1e38, [1, 0], 0 * C),
    ),
    "masked NaN": masked(NAN, PAIR),
    "masked inf": masked(INF, PAIR),
    "masked -inf": masked(-INF, PAIR),
    "masked 1e300": masked(1e300, PAIR),
    "masked 3e38": masked(3e38, PAIR),
    "masked NaN beside a dominant score": masked(NAN, CONFIDENT, at=2),
    "masked inf beside a dominant score": masked(INF, CONFIDENT, at=1),
    "masked NaN beside NaN": masked(NAN, UNKNOWN, at=2),
    "masked inf beside one +inf": masked(INF, ONE_INF),
    "masked inf beside two +inf": masked(INF, TWO_INF),
    "masked NaN and -inf": masked(NAN, minus_inf(ALONE)),
    "-inf": minus_inf(PAIR),
    "-inf beside a dominant score": minus_inf(CONFIDENT, at=2),
    "-inf beside one +inf": minus_inf(ONE_INF),
    "-inf beside two +inf": _beside(-INF, TWO_INF, 1),
    "all masked": empty([1, NAN, INF], where=[False, False, False]),
    "all -inf": empty([-INF, -INF, -INF]),
    "all -inf or masked": empty([-INF, NAN, -INF], where=[True, False, True]),
    "axis of length 0": empty([]),
    "one +inf": ONE_INF,
    "two +inf": TWO_INF,
    "two +inf beside a score": _beside(2, TWO_INF, 1),
    "NaN": UNKNOWN,
    "NaN beside +inf": UNKNOWN._replace(x=[NAN, INF]),
    "temperature 2": tempered(PAIR),
    "temperature 2, a dominant score": tempered(CONFIDENT),
    "temperature 2, masked NaN": masked(NAN, tempered(PAIR)),
    "temperature 2, masked 1e300": masked(1e300, tempered(PAIR)),
    "temperature 2, -inf": minus_inf(tempered(PAIR)),
    "temperature 2, one +inf": tempered(ONE_INF),
    "temperature 2, two +inf": _beside(2, tempered(TWO_INF), 1),
    "temperature 2, NaN": tempered(UNKNOWN),
    "temperature 2, all -inf": empty([-INF, -INF, -INF], temperature=2)._replace(logsumexp=None),
    "temperature 0": at_limit(0, [1, 2, 2], [0, 1 / 2, 1 / 2], [-INF, -LOG2, -LOG2]),
    "temperature 0, one maximum": at_limit(0, [1, 3, 2], [0, 1, 0], [-INF, 0, -INF]),
    "temperature -0": at_limit(-0.0, [1, 3, 2], [0, 1, 0], [-INF, 0, -INF]),
    "temperature 0, close scores": at_limit(0, [1e-37, 1.000001e-37], [0, 1], [-INF, 0]),
    "temperature 0, -inf": at_limit(0, [-INF, 2, 2], [0, 1 / 2, 1 / 2], [-INF, -LOG2, -LOG2]),
    "temperature 0, one +inf": at_limit(
        0, *ONE_INF[:1], ONE_INF.softmax.value, ONE_INF.log_softmax.value
    ),
    "temperature 0, all -inf": at_limit(0, [-INF] * 3, [0] * 3, [-INF] * 3),
    "temperature 0, masked NaN": masked(NAN, at_limit(0, [2, 2], [1 / 2, 1 / 2], [-LOG2, -LOG2])),
    "temperature inf": at_limit(INF, [1, 3, 2], [1 / 3] * 3, [-LOG3] * 3),
    "temperature inf, -inf": at_limit(INF, [-INF, 1, 2], [0, 1 / 2, 1 / 2], [-INF, -LOG2, -LOG2]),
    "temperature inf, far apart": at_limit(INF, [3e38, -3e38, 0], [1 / 3] * 3, [-LOG3] * 3),
    "temperature inf, all -inf": at_limit(INF, [-INF] * 3, [0] * 3, [-INF] * 3),
    "temperature inf, masked inf": masked(
        INF, at_limit(INF, [1, 2], [1 / 2, 1 / 2], [-LOG2, -LOG2])
    ),
    "weights": WEIGHTED,
    "weights, masked NaN": masked(NAN, WEIGHTED),
    "weights, masked inf": masked(INF, WEIGHTED),
    "weight 0 on NaN": weightless(NAN, WEIGHTED),
    "weight 0 on inf": weightless(INF, WEIGHTED),
    "weight 0 on -inf": weightless(-INF, WEIGHTED),
    "weight 0 on 1e300": weightless(1e300, WEIGHTED),
    "weight 0 on 711": weightless(711, WEIGHTED),  # e^709 is the last below the largest float64
    "weight 0 on 90": weightless(90, WEIGHTED),  # e^88 is the last below the largest float32
    "weights 0 throughout": empty([1, NAN, INF], weights=[0, 0, 0])._replace(
        softmax=None, log_softmax=None
    ),
    "weights, -inf": _beside(-INF, WEIGHTED, 2)._replace(options={"weights": [1, 3, 5]}),
    "weights, one +inf": ONE_INF._replace(
        softmax=None, log_softmax=None, options={"weights": [1, 3]}
    ),
    "weights, two +inf": Row(
        [INF, INF],
        logsumexp=Expected(INF, [NAN, NAN], np.full((2, 2), NAN)),
        options={"weights": [0.25, 0.5]},
    ),
    "weights of both signs": SIGNED,
    "weights of both signs, masked NaN": masked(NAN, SIGNED),
    "weights that cancel": Row([2, 2], logsumexp=Expected(-INF), options={"weights": [1, -1]}),
    "weights with a negative sum": Row(
        [2, 2], logsumexp=Expected(NAN), options={"weights": [1, -3]}
    ),
    "infinite weight": Row([0, 0], logsumexp=Expected(INF), options={"weights": [INF, 1]}),
    "infinite weight on -inf": Row(
        [-INF, 2], logsumexp=Expected(2, [0, 1], np.zeros((2, 2))), options={"weights": [INF, 1]}
    ),
    "weights of both signs on +inf": Row(
        [INF, INF, INF], logsumexp=Expected(NAN), options={"weights": [1, 1, -1]}
    ),
    "negative weight on +inf": Row([1, INF], logsumexp=Expected(NAN), options={"weights": [1, -3]}),
    "weights, NaN": UNKNOWN._replace(softmax=None, log_softmax=None, options={"weights": [1, 3]}),
    "weight NaN": UNKNOWN._replace(
        x=[1, 2], softmax=None, log_softmax=None, options={"weights": [NAN, 3]}
    ),
}
