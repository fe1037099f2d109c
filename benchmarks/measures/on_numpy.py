"""NumPy, beside SciPy and PyTorch, and beside itself."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import scipy.special
import torch

import softmaxes as sm
from measures import FACES, Measure, Pair, Work
from softmaxes._cli.bench import NAMES, libraries, scores

__all__ = [
    "ROWS",
    "extra_memory",
    "masked",
    "other_axes",
    "pullbacks",
    "small",
    "sums_over_axis_0",
    "times_over_axis_0",
    "values",
]

ROWS = {"a vocabulary": (512, 50_257), "short rows": (262_144, 64), "one long row": (1, 16_000_000)}
LONG_COLUMNS = (1_000_000, 3)
PRECISIONS = ("float32", "float64")


def values(names: tuple[str, ...], others: Any = scipy.special) -> Iterator[Pair]:
    """Yield the functions on large arrays."""
    for dtype, (kind, shape), name in product(PRECISIONS, ROWS.items(), names):
        x = scores(shape, dtype)
        theirs = partial(getattr(others, name), torch.asarray(x) if others is torch else x, -1)
        yield Pair(f"{name}, {kind}, {dtype}", partial(getattr(sm, name), x, -1), theirs)


def pullbacks() -> Iterator[Pair]:
    """Yield the values with their VJPs on large arrays, beside those of PyTorch."""
    for (kind, shape), name in product(ROWS.items(), FACES):
        x, u = scores(shape), np.random.default_rng(2).standard_normal(shape, "float32")
        tensors = torch.asarray(x).requires_grad_(), torch.asarray(u)
        ours = partial(pulled_back, getattr(sm, name), x, u)
        yield Pair(f"{name}, {kind}", ours, partial(of_torch, getattr(torch, name), *tensors))


def pulled_back(f: Any, x: Any, u: Any) -> Any:
    _, pullback = sm.vjp(f, x, axis=-1)
    return pullback(u)


def of_torch(f: Any, x: Any, u: Any) -> Any:
    return torch.autograd.grad(f(x, -1), x, u)


def masked() -> Iterator[Pair]:
    """Yield the functions under a mask, beside the same without."""
    for dtype, name in product(PRECISIONS, NAMES):
        x = scores((512, 5_000), dtype)
        mask = np.random.default_rng(1).random(x.shape) < 0.5
        f = partial(getattr(sm, name), x, axis=-1)
        yield Pair(f"{name}, {dtype}", partial(f, where=mask), f)


def other_axes() -> Iterator[Pair]:
    """Yield the functions along axis 0, beside the same along the last."""
    for dtype, name in product(PRECISIONS, NAMES):
        x = scores((1_600, 1_600), dtype)
        f = partial(getattr(sm, name), x)
        yield Pair(f"{name}, {dtype}", partial(f, axis=0), partial(f, axis=-1))


def small(on: str) -> Iterator[Pair]:
    """Yield the functions of 8 entries, on a library that `libraries` has."""
    for library, name in product(libraries(), NAMES):
        if library.name == on:
            x = library.array(scores((8,)))
            ours, theirs = (library.prepared(getattr(of, name)) for of in (sm, library.functions))
            yield Pair(name, partial(ours, x), partial(theirs, x))


def extra_memory() -> Iterator[Measure]:
    """Yield the memory of a call beside its result."""
    for name in NAMES:
        x = scores((512, 5_000))
        ours, theirs = (extra(partial(getattr(of, name), x, -1)) for of in (sm, scipy.special))
        ours, theirs = ours / x.nbytes, theirs / x.nbytes
        yield Measure(name, "of the input", ours, theirs, theirs / ours)


def extra(f: Work) -> int:
    """Return the bytes that a call takes beyond its result."""
    f()
    tracemalloc.start()
    result = f()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak - result.nbytes


def sums_over_axis_0() -> Iterator[Measure]:
    """Yield the error of sums of a million entries."""
    x = scores(LONG_COLUMNS)
    truth = scipy.special.logsumexp(x.astype("float64"), axis=0)
    ours, theirs = (
        float(np.abs(f(x, axis=0) - truth).max() / np.spacing(np.float32(truth.max())))
        for f in (sm.logsumexp, scipy.special.logsumexp)
    )
    yield Measure("logsumexp of (1e6, 3)", "ulp", ours, theirs, theirs / ours)


def times_over_axis_0() -> Iterator[Pair]:
    """Yield the time of the same."""
    x = scores(LONG_COLUMNS)
    ours, theirs = (partial(of.logsumexp, x, axis=0) for of in (sm, scipy.special))
    yield Pair("logsumexp of (1e6, 3)", ours, theirs)
