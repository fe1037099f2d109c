"""One long row, in parts that threads share: what `_rows` and `_cotangents` do of a row, of each part of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from softmaxes import _primals, _rules
from softmaxes._arrays import Array
from softmaxes._backends._numba._cotangents import PASSES, sum_of_second
from softmaxes._backends._numba._numbers import compiled
from softmaxes._backends._numba._rows import (
    divide,
    extremes,
    far_sums,
    largest_of,
    near_sums,
    scale,
    subtract,
)
from softmaxes._backends._numba._slices import (
    DIVISOR,
    EXCESS,
    LOG,
    finish,
    room_of_slices,
    scale_of,
    write,
)
from softmaxes._backends._numba._vectors import memory_of
from softmaxes._backends._sums import TILE as PART
from softmaxes._backends._threads import each

__all__ = ["PART", "long_row", "long_row_pulled"]


def long_row(
    f: Callable[..., Array], x: Array, where: Array | None, y: Array, excess: Array
) -> None:
    """Do what the loop over rows does, for one row."""
    parts, found = _parts(x), _reduced(x, where, y if f is _primals.softmax else None)
    excess[0, 0] = found.excess
    if f is _primals.softmax:
        _on(parts, _divide, y, found.largest, found.divisor)
    elif f is _primals.log_softmax:
        _on(parts, _subtract, x, where, y, -found.log, found.maximum)
    else:
        y[0, 0] = found.excess if f is _primals.excess else found.maximum + found.log


def long_row_pulled(f: Any, x: Array, where: Array | None, u: Array, g: Array) -> float:
    """Write the cotangents of the scores of one row, and return a number that is finite where they are right."""
    parts, found = _parts(x), _reduced(x, where, g)
    _on(parts, _divide, g, found.largest, found.divisor)
    if f == _rules.logsumexp.pull:
        _on(parts, _scale, g, float(u[0, 0]))
        return found.excess + float(u[0, 0])
    u = u if where is None else np.where(where, u, u.dtype.type(0.0))
    is_dominant = found.largest / found.divisor > 0.5
    place = 0, int(g.argmax()) if is_dominant else 0
    u_dominant = u[place] if is_dominant else u.dtype.type(0.0)
    of_part, write_part = PULLED[f]
    total = sum(_on(parts, of_part, g, u, u_dominant))
    _on(parts, write_part, g, u, u_dominant, total)
    if is_dominant:
        g[place] = 0.0
        g[place] = -sum(_on(parts, _sum, g))
    return float(found.excess + total)


class _Found(NamedTuple):
    maximum: float
    excess: float
    log: float
    divisor: float
    largest: float


def _reduced(x: Array, where: Array | None, terms: Array | None) -> _Found:
    """Return what is found of a row, and write the terms if there is where to."""
    parts = _parts(x)
    highest, are_far, below, tops = zip(*_on(parts, _near, x, where, terms), strict=True)
    ends = max(highest), max(highest)
    if any(are_far):
        highest, lowest = zip(*_on(parts, _extremes, x, where), strict=True)
        ends = max(highest), min(lowest)
        below, tops = zip(*_on(parts, _far, x, where, terms, *ends), strict=True)
    rest = math.fsum((*below, *tops, -max(tops)))
    return _Found(ends[0], *_finished(x, *ends, rest, max(tops)))


def _parts(x: Array) -> list[slice]:
    return [slice(start, start + PART) for start in range(0, x.shape[1], PART)]


def _on(parts: Iterable[slice], of: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return what a function returns for the parts of the arrays among its arguments."""

    def some(part: slice) -> Any:
        return of(*(a[:, part] if isinstance(a, np.ndarray) else a for a in arguments))

    return each(some, list(parts))


# Compiled, of a part ------------------------------------------------------------------------------


@compiled()
def _near(x: Array, where: Array | None, terms: Array | None) -> Any:
    return near_sums(memory_of(x), memory_of(where), 0, (0.0, 0.0), memory_of(terms))


@compiled()
def _far(x: Array, where: Array | None, terms: Array | None, maximum: float, lowest: float) -> Any:
    scale = scale_of(x.dtype.type(maximum), x.dtype.type(lowest))
    _, _, below, top = far_sums(memory_of(x), memory_of(where), 0, scale, memory_of(terms))
    return below, top


@compiled()
def _extremes(x: Array, where: Array | None) -> Any:
    return extremes(memory_of(x), memory_of(where), 0)


@compiled()
def _finished(x: Array, maximum: float, lowest: float, below: float, top: float) -> Any:
    """Return S - 1, its logarithm, the divisor of the terms, and the largest of them."""
    found, highest = room_of_slices(np.float64(0.0)), x.dtype.type(maximum)
    scale = scale_of(highest, x.dtype.type(lowest))
    write(found, 0, highest, scale, below, top)
    finish(found, 1)
    return found[EXCESS, 0], found[LOG, 0], found[DIVISOR, 0], largest_of(x, highest, scale)


@compiled()
def _divide(terms: Array, largest: float, divisor: float) -> None:
    place = memory_of(terms)
    divide(place, None, 0, largest, divisor, place)


@compiled()
def _subtract(x: Array, where: Array | None, y: Array, largest: float, maximum: float) -> None:
    subtract(memory_of(x), memory_of(where), 0, largest, maximum, memory_of(y))


@compiled()
def _scale(p: Array, factor: float) -> None:
    place = memory_of(p)
    scale(place, None, 0, factor, 0.0, place)


@compiled()
def _sum(g: Array) -> Any:
    place = memory_of(g)
    return sum_of_second(place, place, 0, 0.0)


def _pulling(sum_of_products: Callable[..., float], write: Callable[..., None]) -> Any:
    """Return what sums over a part, and what writes the cotangents of it over the probabilities."""

    def of_part(p: Array, u: Array, u_dominant: float) -> Any:
        return sum_of_products(memory_of(p), memory_of(u), 0, u_dominant)

    def write_part(p: Array, u: Array, u_dominant: float, total: float) -> None:
        place = memory_of(p)
        write(place, memory_of(u), 0, u_dominant, total, place)

    return compiled()(of_part), compiled()(write_part)


PULLED = {f: _pulling(*passes) for f, passes in PASSES.items()}
