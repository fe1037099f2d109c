"""VJPs of columns from scores and cotangents: the operations of `_cotangents`, on vectors of columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from softmaxes import _rules
from softmaxes._backends._numba._columns import (
    ERROR,
    FIRST,
    PLACE,
    SECOND,
    SUM,
    divide,
    fill,
    halve_sums,
    over_columns,
    over_vectors,
    put,
    read,
    reduce_columns,
    write_divisors,
)
from softmaxes._backends._numba._cotangents import FORMULAS, counted, of_logsumexp, second
from softmaxes._backends._numba._numbers import inlined, lanes_of
from softmaxes._backends._numba._slices import BELOW, DIVISOR, LARGEST, two_sum
from softmaxes._backends._numba._vectors import (
    Memory,
    filled,
    kept_some,
    load,
    select,
    store,
)

__all__ = ["PULLS_OF_COLUMNS"]


def _pulling(summand: Callable[..., Any], result: Callable[..., Any]) -> Any:
    """Return a loop over columns of scores and cotangents by two formulas of `_cotangents`."""
    sum_of_products, sum_of_second, write = _summing(summand), _summing(second), _mapping(result)

    @inlined()
    def work(
        x: Memory,
        where: Memory | None,
        u: Memory,
        p: Memory,
        g: Memory,
        state: Memory,
        found: Memory,
        n: int,
        right: Memory,
    ) -> None:
        reduce_columns(x, where, n, state, p, found)
        write_divisors(state, found, x.length)
        divide(n, p, None, state, p)
        has_dominant = _find_dominant(p, u, n, state, found)
        sum_of_products(p, where, u, n, state)
        for i in range(x.length):
            state[SECOND, i] = total = _sum(state, i)
            right[0, i] = total if found[BELOW, i] >= 0.0 else np.nan
        if not has_dominant:
            write(n, p, where, u, state, g)
            return
        write(n, p, where, u, state, p)  # where they are as exact as they can be, and near
        _set_dominant(p, state, 0.0)
        sum_of_second(p, None, p, n, state)
        _set_dominant(p, state, -1.0)
        _copy_all(n, p, g)

    return over_columns(work, has_terms=True)


@inlined()
def _find_dominant(p: Memory, u: Memory, n: int, state: Memory, found: Memory) -> bool:
    """Write where probabilities above 1/2 are, with their cotangents, and tell whether there are any."""
    fill(state, FIRST, FIRST + 1, 0.0)
    fill(state, PLACE, PLACE + 1, -1.0)
    has_dominant = False
    for i in range(p.length):
        has_dominant = has_dominant or found[LARGEST, i] > 0.5 * found[DIVISOR, i]
    if has_dominant:
        _find_places(n, p, state)
        for i in range(p.length):
            if state[PLACE, i] >= 0.0:
                state[FIRST, i] = u[int(state[PLACE, i]), i]
    return has_dominant


@inlined()
def _find_place(row: int, start: int, places: Any, p: Memory, state: Memory) -> None:
    numbers = read(p, row, start, places)
    place = select(numbers > 0.5, filled(p, row), load(state, PLACE, start, numbers))
    store(state, PLACE, start, place)


@inlined()
def _copy(row: int, start: int, places: Any, p: Memory, g: Memory) -> None:
    put(g, row, start, places, read(p, row, start, places))


_find_places, _copy_all = over_vectors(_find_place), over_vectors(_copy)


@inlined()
def _set_dominant(g: Memory, state: Memory, factor: float) -> None:
    """Write a multiple of the sums where probabilities above 1/2 are."""
    for i in range(g.length):
        if state[PLACE, i] >= 0.0:
            g[int(state[PLACE, i]), i] = factor * _sum(state, i)


@inlined()
def _sum(state: Memory, i: int) -> float:
    return np.float64(state[SUM, i]) + np.float64(state[ERROR, i])


def _summing(of: Callable[..., Any]) -> Any:
    """Return what writes the sums over columns of `of` their entries, those of others, and a number."""

    @inlined()
    def sums(p: Memory, where: Memory | None, u: Memory, n: int, state: Memory) -> None:
        for part in (SUM, ERROR):
            fill(state, part, part + lanes_of(p), 0.0)
        add_all(n, p, where, u, state)
        half = lanes_of(p) // 2
        while half:
            for lane in range(half):
                halve_sums(state, lane, half)
            half //= 2

    @inlined()
    def add(
        row: int, start: int, places: Any, p: Memory, where: Any, u: Memory, state: Memory
    ) -> None:
        lane, numbers = row % lanes_of(p), read(p, row, start, places)
        others = _read_kept(u, where, row, start, places)
        term = of(numbers, others, load(state, FIRST, start, numbers))
        total = load(state, SUM + lane, start, numbers)
        error = load(state, ERROR + lane, start, numbers)
        total, error = two_sum(total, error, term)
        store(state, SUM + lane, start, total)
        store(state, ERROR + lane, start, error)

    add_all = over_vectors(add)
    return sums


def _mapping(of: Callable[..., Any]) -> Any:
    """Return a loop that writes `of` the entries of columns, those of others, and two numbers of each."""

    @inlined()
    def write(
        row: int,
        start: int,
        places: Any,
        p: Memory,
        where: Any,
        u: Memory,
        state: Memory,
        g: Memory,
    ) -> None:
        numbers, others = read(p, row, start, places), _read_kept(u, where, row, start, places)
        a, b = load(state, FIRST, start, numbers), load(state, SECOND, start, numbers)
        put(g, row, start, places, of(numbers, others, a, b))

    return over_vectors(write)


@inlined()
def _read_kept(u: Memory, where: Memory | None, row: int, start: int, places: Any) -> Any:
    numbers = read(u, row, start, places)
    return counted(numbers, kept_some(where, row, start, places, numbers))


@inlined()
def _logsumexp(
    x: Memory,
    where: Memory | None,
    u: Memory,
    terms: Memory,
    g: Memory,
    state: Memory,
    found: Memory,
    n: int,
    right: Memory,
) -> None:
    reduce_columns(x, where, n, state, terms, found)
    write_divisors(state, found, x.length)
    _scale(n, terms, u, state, g)
    for i in range(x.length):
        right[0, i] = u[0, i] if found[BELOW, i] >= 0.0 else np.nan


@inlined()
def _scale_some(
    row: int, start: int, places: Any, terms: Memory, u: Memory, state: Memory, g: Memory
) -> None:
    numbers, factor = read(terms, row, start, places), read(u, 0, start, places)
    a, b = load(state, FIRST, start, numbers), load(state, SECOND, start, numbers)
    put(g, row, start, places, of_logsumexp(numbers, None, a, b, factor))


_scale = over_vectors(_scale_some)

PULLS_OF_COLUMNS = {
    **{rule.pull: _pulling(*formulas) for rule, formulas in FORMULAS.items()},
    _rules.logsumexp.pull: over_columns(_logsumexp, has_terms=True),
}
