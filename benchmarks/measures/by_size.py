"""Softmax against the size of its input, beside what no softmax can be faster than."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch

import softmaxes as sm
from measures import OURS, Point, Work
from softmaxes._cli.bench import last_axis, libraries, scores
from softmaxes._cli.timing import turns

__all__ = ["by_length", "roofline"]

LENGTHS = tuple(8 << i for i in range(0, 18, 2))  # of one row
SIZES = tuple(1 << i for i in range(10, 25, 2))  # of rows of a thousand entries
ROW = 1024
THREADS = ThreadPoolExecutor()
Name = tuple[str, str]  # a library, and that whose arrays it takes
COPY, EXP_ON_NUMPY = ("a copy", ""), ("exp alone", "numpy")


def by_length(clock: str) -> Iterator[Point]:
    """Yield the times of one row of each length."""
    for n in LENGTHS:
        x = scores((n,))
        yield from in_turns(EXP_ON_NUMPY, partial(np.exp, x), COPY, x.copy, n, clock)
    yield from of_softmax([(n,) for n in LENGTHS], clock)


def roofline(clock: str) -> Iterator[Point]:
    """Yield the times of rows, and of the bounds: a copy and the exponential, in threads as they are."""
    for n in SIZES:
        x = scores((n // ROW, ROW))
        t = torch.asarray(x)
        yield from in_turns(("exp alone", "torch"), t.exp, COPY, t.clone, n, clock)
        alone, together = partial(np.exp, x), partial(in_threads, np.exp, x)
        times = turns(alone, together, clock=clock, count=5)
        yield Point(*EXP_ON_NUMPY, n, min(times.ours, times.theirs))
    yield from of_softmax([(n // ROW, ROW) for n in SIZES], clock)


def in_turns(
    name: Name, f: Work, other_name: Name, other: Work, n: int, clock: str
) -> Iterator[Point]:
    times = turns(f, other, clock=clock, count=5)
    yield Point(*name, n, times.ours)
    yield Point(*other_name, n, times.theirs)


def of_softmax(shapes: list[tuple[int, ...]], clock: str) -> Iterator[Point]:
    # Large arrays take as long in JAX's eager calls as in compiled ones, and small ones what a call takes.
    compared = (library for library in libraries() if library.name != "jax")
    for library, shape in product(compared, shapes):
        x = library.array(scores(shape))
        ours, theirs = (
            partial(library.prepared(partial(last_axis, of.softmax)), x)
            for of in (sm, library.functions)
        )
        names = (OURS, library.name), (library.peer, library.name)
        yield from in_turns(names[0], ours, names[1], theirs, math.prod(shape), clock)


def in_threads(f: Callable[..., Any], x: Any) -> Any:
    """Return f of the rows, computed in as many threads as PyTorch has."""
    y = np.empty_like(x)
    parts = (np.array_split(a, torch.get_num_threads()) for a in (x, y))
    list(THREADS.map(f, *parts))
    return y
