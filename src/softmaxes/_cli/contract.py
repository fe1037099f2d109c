"""The boundary contract: what happens at masks, infinities, NaN, empty axes and bad input."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

import softmaxes as sm
from softmaxes._cli.backends import Backend
from softmaxes._cli.budgets import budget
from softmaxes._cli.findings import Measured, Trial
from softmaxes._cli.formats import FORMATS

__all__ = ["contract"]

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


EMPTY = Case([-INF] * 3, [0] * 3, [-INF] * 3, -INF, [0] * 3)


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
    "all masked": EMPTY._replace(x=[1, NAN, INF], options={"where": [False, False, False]}),
    "all -inf": EMPTY,
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
    "scores of 1000": Case(
        [0, 1000, 1000],
        [0, *PAIR.softmax],
        [-1000 - LOG2, *PAIR.log_softmax],
        1000 + LOG2,
        [0, *PAIR.product],
    ),
    # 8-bit integers wrap around when they are shifted before they are promoted.
    "uint8": Case(
        [0, 255], [math.exp(-255), 1], [-255, -math.exp(-255)], 255 + math.exp(-255), dtype="uint8"
    ),
    "int8": Case(
        [-128, 127],
        [math.exp(-255), 1],
        [-255, -math.exp(-255)],
        127 + math.exp(-255),
        dtype="int8",
    ),
    "bool": PAIR._replace(x=[True, True], logsumexp=1 + LOG2, product=None, dtype="bool"),
    "float16, 100 000 entries": Case(
        np.zeros(100_000),
        np.full(100_000, 1e-5),
        np.full(100_000, -math.log(1e5)),
        math.log(1e5),
        dtype="float16",
    ),
    "temperature 0": Case(
        [1, 2, 2], [0, 0.5, 0.5], [-INF, -LOG2, -LOG2], None, [0, 0, 0], {"temperature": 0}
    ),
    "temperature inf": Case(
        [-INF, 1, 2], [0, 0.5, 0.5], [-INF, -LOG2, -LOG2], None, [0, 0, 0], {"temperature": INF}
    ),
}


class Refusal(NamedTuple):
    """Input that every function must refuse, and the error it must raise."""

    error: type[Exception]
    x: Any
    options: Mapping[str, Any] = NO_OPTIONS
    dtype: str = "float64"


REFUSALS = {
    "complex": Refusal(TypeError, [1, 2], dtype="complex128"),
    "temperature -1": Refusal(ValueError, [1, 2], {"temperature": -1.0}),
    "temperature NaN": Refusal(ValueError, [1, 2], {"temperature": NAN}),
    "axis 1 of a vector": Refusal(ValueError, [1, 2], {"axis": 1}),
    "mask of numbers": Refusal(TypeError, [1, 2], {"where": [1.0, 0.0]}),
    "mask of another shape": Refusal(ValueError, [1, 2], {"where": [True, True, False]}),
}


def contract(backend: Backend) -> Iterator[Trial]:
    """Yield the trials of every case, whose error of 1 spends a whole budget, and of every refusal."""
    for name, case in CASES.items():
        measure = partial(_worst, backend, case)
        yield Trial("contract", name, backend, case.dtype, 1, measure)
    for name, refusal in REFUSALS.items():
        measure = partial(_accepted, backend, refusal)
        yield Trial("contract", name, backend, refusal.dtype, 0, measure)


def _worst(backend: Backend, case: Case) -> Measured:
    found = (_compare(backend, *quantity) for quantity in _quantities(backend, case))
    return max(found, key=lambda measured: measured.error)


def _quantities(backend: Backend, case: Case) -> Iterator[tuple[str, Any, Any]]:
    """Yield what to compare: the name of its budget, what the backend says, what it should say."""
    x, options = backend.array(case.x, case.dtype), _options(backend, case.options)
    yield "softmax", backend.value(sm.softmax, x, **options), case.softmax
    yield "log_softmax", backend.value(sm.log_softmax, x, **options), case.log_softmax
    if case.logsumexp is not None:
        yield "logsumexp", backend.value(sm.logsumexp, x, axis=-1, **options), case.logsumexp
    if case.product is not None:
        yield from _derivatives(backend, case, x, options)


def _derivatives(
    backend: Backend, case: Case, x: Any, options: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    n = x.shape[-1] if x.ndim else 1
    v = backend.array(
        np.broadcast_to(np.arange(1.0, n + 1) if x.ndim else 1.0, x.shape), case.dtype
    )
    yield "softmax JVP", backend.jvp(sm.softmax, x, v, **options), case.product
    yield "softmax VJP", backend.vjp(sm.softmax, x, v, **options), case.product
    if case.logsumexp is not None:
        one = backend.array(np.ones(x.shape[:-1]), case.dtype)
        gradient = backend.vjp(sm.logsumexp, x, one, axis=-1, **options)
        yield "logsumexp gradient", gradient, case.softmax
        product = backend.hvp(sm.logsumexp, x, v, axis=-1, **options)
        yield "logsumexp Hessian row", product, case.product


def _compare(backend: Backend, quantity: str, y: Any, expected: Any) -> Measured:
    dtype = str(y.dtype).rpartition(".")[-1]
    found, expected = backend.numpy(y), np.asarray(expected, dtype=np.float64)
    if found.shape != expected.shape:
        return Measured(INF, f"{quantity} has shape {found.shape}, not {expected.shape}")
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        errors = np.abs(found - expected) / FORMATS[dtype].ulp(expected) / budget(quantity, dtype)
    worst = np.max(np.where(same, 0, np.nan_to_num(errors, nan=INF)), initial=0)
    return Measured(float(worst), f"{quantity} is {found}" if worst > 1 else "")


def _accepted(backend: Backend, refusal: Refusal) -> Measured:
    x, options = backend.array(refusal.x, refusal.dtype), _options(backend, refusal.options)
    functions = [sm.softmax, sm.log_softmax] + ([] if "temperature" in options else [sm.logsumexp])
    accepted = [
        f.__name__ for f in functions if not _refuses(backend, f, x, options, refusal.error)
    ]
    return Measured(len(accepted), f"accepted by {', '.join(accepted)}" if accepted else "")


def _refuses(
    backend: Backend, function: Any, x: Any, options: Mapping[str, Any], error: type[Exception]
) -> bool:
    try:
        y = backend.value(function, x, **options)
    except error:
        return True
    # A value that is not known yet cannot be refused: NaN says so later.
    return backend.traces and bool(np.all(np.isnan(backend.numpy(y))))


def _options(backend: Backend, options: Mapping[str, Any]) -> dict[str, Any]:
    """Make a mask an array of the backend."""
    return {
        name: backend.array(value, str(np.asarray(value).dtype)) if name == "where" else value
        for name, value in options.items()
    }
