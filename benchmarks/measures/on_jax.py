"""What JAX compiles, beside jax.nn."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import softmaxes as sm
from measures import Measure, Pair
from softmaxes._cli.bench import NAMES, scores

__all__ = ["SHAPES", "SMALL", "compilation", "temporaries", "times"]

SHAPES = {
    "(1, 1e6)": (1, 1_000_000),
    "(256, 4096)": (256, 4096),
    "(16384, 64)": (16_384, 64),
    "(128, 20000)": (128, 20_000),
}
SMALL = {
    f"({rows}, {n})": (rows, n)
    for rows, n in ((8, 8), (1024, 2), (64, 128), (1000, 50), (20_000, 10))
}
LARGE = 1_000_000  # entries, from which two axes are enough
BATCH = 8  # pictures, of which each has classes in its second axis
COMPILATIONS = 5


class Compiled(NamedTuple):
    """Two functions that JAX compiles, of the same arguments; `what` is value, gradient or tangent."""

    what: str
    case: str
    ours: Any
    theirs: Any
    arguments: tuple[Any, ...]


def times(of: str, shapes: Mapping[str, tuple[int, int]] = SHAPES) -> Iterator[Pair]:
    """Yield the functions, or their gradients, over dtypes, shapes, axes and masks."""
    for what, case, ours, theirs, arguments in compiled(shapes):
        if what == of:
            yield Pair(case, *(partial(waited, f, arguments) for f in (ours, theirs)))


def temporaries() -> Iterator[Measure]:
    """Yield the memory beside arguments and results in half precision, as XLA counts it."""
    for what, case, ours, theirs, arguments in compiled():
        if case == "softmax, (256, 4096), axis -1, bfloat16":
            a, b = (
                f.lower(*arguments).compile().memory_analysis().temp_size_in_bytes
                for f in (ours, theirs)
            )
            n = arguments[0].nbytes
            ratio = (b + 1) / (a + 1)  # for either may be 0
            yield Measure(f"softmax, {what}", "of the input", a / n, b / n, ratio)


def compilation() -> Iterator[Measure]:
    """Yield the processor's time from Python to machine code, and the part of XLA in it."""
    for what, case, ours, theirs, arguments in compiled():
        if case.endswith("(256, 4096), axis -1, float32"):
            turns = [
                (*compile_times(ours, arguments), *compile_times(theirs, arguments))
                for _ in range(COMPILATIONS)
            ]
            whole, of_xla, their_whole, their_of_xla = map(
                statistics.median, zip(*turns, strict=True)
            )
            yield Measure(f"{case}, {what}", "s", whole, their_whole, their_whole / whole)
            yield Measure(
                f"{case}, {what}, XLA alone", "s", of_xla, their_of_xla, their_of_xla / of_xla
            )


def compile_times(f: Any, arguments: tuple[Any, ...]) -> tuple[float, float]:
    """Return the seconds to trace, lower and compile, and those to compile alone."""
    jax.clear_caches()  # which would answer in microseconds
    start = time.process_time()
    lowered = f.lower(*arguments)
    middle = time.process_time()
    lowered.compile()
    end = time.process_time()
    return end - start, end - middle


def compiled(shapes: Mapping[str, tuple[int, int]] = SHAPES) -> Iterator[Compiled]:
    for dtype, (kind, size), axis, where, name in product(
        ("float32", "bfloat16"), shapes.items(), (-1, 0, 1), (False, True), NAMES
    ):
        if axis == 1 and (size[0] < 2 * BATCH or math.prod(size) >= LARGE):
            continue
        shape = placed(size, axis)
        x = jnp.asarray(scores(shape), dtype)
        mask = jnp.asarray(np.random.default_rng(1).random(shape) < 0.5) if where else None
        both = [partial(getattr(of, name), axis=axis) for of in (sm, jax.nn)]
        values = [jax.jit(lambda x, mask, f=f: f(x, where=mask)) for f in both]
        case = f"{name}, {kind}, axis {axis}{', masked' if where else ''}, {dtype}"
        yield Compiled("value", case, *values, (x, mask))
        u = direction(jax.eval_shape(values[0], x, mask).shape, dtype)
        gradients = [jax.jit(partial(pulled_back, f)) for f in values]
        yield Compiled("gradient", case, *gradients, (x, mask, u))
        tangents = [jax.jit(partial(pushed_forward, f)) for f in values]
        yield Compiled("tangent", case, *tangents, (x, mask, direction(shape, dtype)))


def placed(size: tuple[int, int], axis: int) -> tuple[int, ...]:
    """Return the shape of so many slices of a length along an axis, of which 1 stands between two others."""
    slices, n = size
    return {-1: (slices, n), 0: (n, slices), 1: (BATCH, n, slices // BATCH)}[axis]


def direction(shape: tuple[int, ...], dtype: str) -> Any:
    return jnp.asarray(np.random.default_rng(2).standard_normal(shape), dtype)


def pulled_back(f: Callable[..., Any], x: Any, mask: Any, u: Any) -> Any:
    return jax.vjp(lambda x: f(x, mask), x)[1](u)


def pushed_forward(f: Callable[..., Any], x: Any, mask: Any, v: Any) -> Any:
    return jax.jvp(lambda x: f(x, mask), (x,), (v,))


def waited(f: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return jax.block_until_ready(f(*arguments))
