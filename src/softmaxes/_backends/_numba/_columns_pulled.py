"""VJPs of columns from scores and cotangents: the operations of `_cotangents`, on vectors of columns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from softmaxes import _rules
from softmaxes._backends._numba._adding import Adding, adding_all, over_vectors, put, read
from softmaxes._backends._numba._blocks import over_columns
from softmaxes._backends._numba._columns import (
    ERROR,
    FIRST,
    FOURTH,
    PLACE,
    SECOND,
    SUM,
    THIRD,
    copy_to,
    fill,
    reduce_columns,
    write_divisors,
)
from softmaxes._backends._numba._cotangents import (
    FORMULAS,
    counted,
    four_of,
    given,
    of_logsumexp,
    one_more,
    passes,
    second,
)
from softmaxes._backends._numba._numbers import inlined, lanes_of
from softmaxes._backends._numba._slices import BELOW, DIVISOR, EXCESS, LARGEST
from softmaxes._backends._numba._vectors import (
    Memory,
    any_of,
    filled,
    kept_some,
    load,
    select,
    store,
)

__all__ = ["PULLS_OF_COLUMNS"]


def _pulling(summand: Callable[..., Any], result: Callable[..., Any]) -> Any:
    """Return the work on a few columns of scores and cotangents by two formulas of `_cotangents`."""
    sum_of_products, write = passes(summand, result, _summing, partial(_mapping, _put_all))
    _, write_others = passes(summand, result, _summing, partial(_mapping, _put_others))
    sum_alone = _summing(given, second, is_written=False)

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
        told: Memory,
    ) -> None:
        reduce_columns(x, where, n, state, p, found)
        write_divisors(state, found, x.length)
        has_dominant = _find_dominant(p, u, n, state, found)
        sum_of_products(p, where, u, n, state)
        _add_up(state, found, 1.0)
        copy_to(state, FOURTH, x.length, found, EXCESS)
        copy_to(told, 0, x.length, found, EXCESS)
        if not has_dominant:
            write(n, p, where, u, state, g)
            _end(g, found, n, told)
            return
        write_others(n, p, where, u, state, p)  # where they are as exact as they can be, and near
        sum_alone(p, None, p, n, state)
        _add_up(state, found, -1.0)
        copy_to(state, FOURTH, x.length, found, EXCESS)
        _copy_all(n, p, state, g)
        _end(g, found, n, told)

    return work


@inlined()
def _end(g: Memory, found: Memory, n: int, told: Memory) -> None:
    """Write NaN for a column without a sum, and the cotangents of one without support."""
    zero, are_all = filled(found, 0.0), True
    for i in range(0, g.length, lanes_of(found)):
        has_sum = load(found, BELOW, i, zero) > -0.5
        are_all = are_all and not any_of(select(has_sum, zero, 1.0) > 0.5)
    for i in range(0 if are_all else g.length):
        if np.isnan(found[BELOW, i]):
            told[0, i] = np.nan
        elif found[BELOW, i] < 0.0:
            for row in range(n):
                g[row, i] = 0.0


@inlined()
def _find_dominant(terms: Memory, u: Memory, n: int, state: Memory, found: Memory) -> bool:
    """Write where probabilities above 1/2 are, with their cotangents, and tell whether there are any."""
    fill(state, THIRD, THIRD + 1, 0.0)
    fill(state, PLACE, PLACE + 1, -1.0)
    has_dominant, lanes, zero = False, lanes_of(found), filled(found, 0.0)
    whole = terms.length // lanes * lanes
    for i in range(0, whole, lanes):
        largest, divisor = load(found, LARGEST, i, zero), load(found, DIVISOR, i, zero)
        has_dominant = has_dominant or any_of(largest > divisor * 0.5)
    for i in range(whole, terms.length):
        has_dominant = has_dominant or found[LARGEST, i] > 0.5 * found[DIVISOR, i]
    if has_dominant:
        _find_places(n, terms, u, state)
    return has_dominant


@inlined()
def _find_place(row: int, start: int, places: Any, terms: Memory, u: Memory, state: Memory) -> None:
    numbers, of_u = read(terms, row, start, places), read(u, row, start, places)
    is_dominant = numbers > load(state, SECOND, start, numbers) * 0.5
    place, third = load(state, PLACE, start, numbers), load(state, THIRD, start, numbers)
    store(state, PLACE, start, select(is_dominant, filled(terms, row), place))
    store(state, THIRD, start, select(is_dominant, of_u, third))


@inlined()
def _copy(row: int, start: int, places: Any, p: Memory, state: Memory, g: Memory) -> None:
    """Write what p has, and the fourth number in the place of a probability above 1/2."""
    numbers = read(p, row, start, places)
    fourth = load(state, FOURTH, start, numbers)
    put(g, row, start, places, select(_is_place(row, start, state, p), fourth, numbers))


@inlined()
def _is_place(row: int, start: int, state: Memory, like: Memory) -> Any:
    return load(state, PLACE, start, filled(like, 0.0)) == filled(like, row)


@inlined()
def _put_others(g: Memory, row: int, start: int, places: Any, state: Memory, numbers: Any) -> None:
    """Write numbers, and 0 in the place of a probability above 1/2."""
    put(g, row, start, places, select(_is_place(row, start, state, g), 0.0, numbers))


@inlined()
def _put_all(g: Memory, row: int, start: int, places: Any, state: Memory, numbers: Any) -> None:
    put(g, row, start, places, numbers)


_find_places, _copy_all = over_vectors(_find_place), over_vectors(_copy)


@inlined()
def _add_up(state: Memory, found: Memory, sign: float) -> None:
    """Write the sums of columns in double precision, or minus them, in the place of S - 1."""
    zero = filled(found, 0.0)
    for i in range(0, state.length, lanes_of(found)):
        total = load(state, SUM, i, zero) + load(state, ERROR, i, zero)
        store(found, EXCESS, i, total * sign)


def _summing(
    probability: Callable[..., Any], summand: Callable[..., Any], *, is_written: bool
) -> Any:
    """Return the same for columns as in `_cotangents`, which leaves the sums in their places."""

    @inlined()
    def vector(
        row: int,
        start: int,
        places: Any,
        numbers: Any,
        terms: Memory,
        where: Memory | None,
        u: Memory,
    ) -> Any:
        largest, divisor, number = numbers
        p = probability(read(terms, row, start, places), None, largest, divisor)
        if is_written:
            put(terms, row, start, places, p)
        return summand(p, _read_kept(u, where, row, start, places), number), numbers

    four = four_of(summand)
    adding = Adding(
        _begun, _alone, one_more, four, _joined, _known, _keep, SUM, _numbers, _keep_no_more
    )
    add_all = adding_all(vector, adding)

    @inlined()
    def sums(terms: Memory, where: Memory | None, u: Memory, n: int, state: Memory) -> None:
        add_all(n, terms, state, where, u)

    return sums


@inlined()
def _begun(terms: Memory) -> tuple[Any, Any]:
    zero = filled(terms, 0.0)
    return zero, zero


@inlined()
def _alone(terms: Memory, a: Any) -> tuple[Any, Any]:
    return a, filled(terms, 0.0)


@inlined()
def _joined(sums: Any, others: Any) -> tuple[Any, Any]:
    return sums[0] + others[0], sums[1] + others[1]


@inlined()
def _known(state: Memory, lane: int, start: int, terms: Memory) -> tuple[Any, Any]:
    like = filled(terms, 0.0)
    return load(state, SUM + lane, start, like), load(state, ERROR + lane, start, like)


@inlined()
def _keep(state: Memory, lane: int, start: int, sums: Any) -> None:
    total, error = sums
    store(state, SUM + lane, start, total)
    store(state, ERROR + lane, start, error)


@inlined()
def _keep_no_more(state: Memory, start: int, numbers: Any) -> None:
    """Write nothing, as what else is known stays as it is."""


@inlined()
def _numbers(state: Memory, start: int, terms: Memory) -> Any:
    """Return the two numbers by which terms become probabilities, and the third."""
    like = filled(terms, 0.0)
    first, second = load(state, FIRST, start, like), load(state, SECOND, start, like)
    return first, second, load(state, THIRD, start, like)


def _mapping(
    put_some: Callable[..., None], probability: Callable[..., Any], of: Callable[..., Any]
) -> Any:
    """Return a loop that writes `of(p, u, number, sum)` for the entries of columns."""

    @inlined()
    def write(
        row: int,
        start: int,
        places: Any,
        terms: Memory,
        where: Any,
        u: Memory,
        state: Memory,
        g: Memory,
    ) -> None:
        largest, divisor, number = _numbers(state, start, terms)
        p = probability(read(terms, row, start, places), None, largest, divisor)
        of_u = _read_kept(u, where, row, start, places)
        put_some(g, row, start, places, state, of(p, of_u, number, load(state, FOURTH, start, p)))

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
    told: Memory,
) -> None:
    reduce_columns(x, where, n, state, terms, found)
    write_divisors(state, found, x.length)
    _scale(n, terms, u, state, g)
    for i in range(x.length):
        told[0, i] = u[0, i]
    _end(g, found, n, told)


@inlined()
def _scale_some(
    row: int, start: int, places: Any, terms: Memory, u: Memory, state: Memory, g: Memory
) -> None:
    numbers, factor = read(terms, row, start, places), read(u, 0, start, places)
    a, b = load(state, FIRST, start, numbers), load(state, SECOND, start, numbers)
    put(g, row, start, places, of_logsumexp(numbers, None, a, b, factor))


_scale = over_vectors(_scale_some)

_WORKS = {
    **{rule.pull: _pulling(*formulas) for rule, formulas in FORMULAS.items()},
    _rules.logsumexp.pull: _logsumexp,
}
PULLS_OF_COLUMNS = {f: over_columns(work, has_terms=True) for f, work in _WORKS.items()}
