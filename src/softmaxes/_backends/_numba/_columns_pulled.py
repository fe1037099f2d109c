"""VJPs of columns from scores and cotangents: the operations of `_cotangents`, on vectors of columns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from softmaxes import _rules
from softmaxes._backends._numba._adding import (
    Adding,
    adding_all,
    adding_lane,
    joining,
    over_vectors,
    put,
    read,
)
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

__all__ = [
    "PULLS_OF_COLUMNS",
    "begin_end",
    "copy_all",
    "find_places",
    "has_dominant",
    "join_products",
    "lanes_pulled",
    "scale",
    "tell_cotangents",
    "write_end",
    "write_sums",
]


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
        width = x.length
        reduce_columns(x, where, n, state, p, found)
        begin_end(state, found, width)
        is_some_dominant = has_dominant(width, found)
        if is_some_dominant:
            find_places(n, p, u, state)
        sum_of_products(p, where, u, n, state)
        write_sums(state, found, width, 1.0)
        copy_to(told, 0, width, found, EXCESS)
        if not is_some_dominant:
            write(n, p, where, u, state, g)
            write_end(g, found, n, told)
            return
        write_others(n, p, where, u, state, p)  # where they are as exact as they can be, and near
        sum_alone(p, None, p, n, state)
        write_sums(state, found, width, -1.0)
        copy_all(n, p, state, g)
        write_end(g, found, n, told)

    return work


class Lanes(NamedTuple):
    """
    The same of the rows of a lane.

    What sums, and what writes cotangents; what writes them, and 0 in the place of a probability above 1/2,
    and what sums these.
    """

    sum_of_products: Callable[..., None]
    write: Callable[..., None]
    write_others: Callable[..., None]
    sum_alone: Callable[..., None]


def lanes_pulled(summand: Callable[..., Any], result: Callable[..., Any]) -> Lanes:
    """Return the loops over the rows of a lane by two formulas of `_cotangents`."""
    sums, write = passes(summand, result, _summing_lane, partial(_mapping, _put_all))
    _, write_others = passes(summand, result, _summing_lane, partial(_mapping, _put_others))
    return Lanes(sums, write, write_others, _summing_lane(given, second, is_written=False))


@inlined()
def begin_end(state: Memory, found: Memory, width: int) -> None:
    """Write the divisors of terms, and that no probability is above 1/2."""
    write_divisors(state, found, width)
    fill(state, THIRD, THIRD + 1, 0.0)
    fill(state, PLACE, PLACE + 1, -1.0)


@inlined()
def write_end(g: Memory, found: Memory, n: int, told: Memory) -> None:
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
def has_dominant(width: int, found: Memory) -> bool:
    """Tell whether a probability is above 1/2."""
    is_some, lanes, zero = False, lanes_of(found), filled(found, 0.0)
    whole = width // lanes * lanes
    for i in range(0, whole, lanes):
        largest, divisor = load(found, LARGEST, i, zero), load(found, DIVISOR, i, zero)
        is_some = is_some or any_of(largest > divisor * 0.5)
    for i in range(whole, width):
        is_some = is_some or found[LARGEST, i] > 0.5 * found[DIVISOR, i]
    return is_some


@inlined()
def _find_place(row: int, start: int, places: Any, terms: Memory, u: Memory, state: Memory) -> None:
    """Write where a probability above 1/2 is, with its cotangent."""
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


find_places, copy_all = over_vectors(_find_place), over_vectors(_copy)


@inlined()
def write_sums(state: Memory, found: Memory, width: int, sign: float) -> None:
    """Write the sums of columns, or minus them: in double precision in the place of S - 1, and as the fourth number."""
    zero = filled(found, 0.0)
    for i in range(0, state.length, lanes_of(found)):
        total = load(state, SUM, i, zero) + load(state, ERROR, i, zero)
        store(found, EXCESS, i, total * sign)
    copy_to(state, FOURTH, width, found, EXCESS)


def _adding(
    probability: Callable[..., Any], summand: Callable[..., Any], *, is_written: bool
) -> tuple[Any, Adding]:
    """Return what to add of a vector, and how."""

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
    return vector, Adding(
        _begun, _alone, one_more, four, _joined, _known, _keep, SUM, _numbers, _keep_no_more
    )


def _summing(
    probability: Callable[..., Any], summand: Callable[..., Any], *, is_written: bool
) -> Any:
    """Return the same for columns as in `_cotangents`, which leaves the sums in their places."""
    add_all = adding_all(*_adding(probability, summand, is_written=is_written))

    @inlined()
    def sums(terms: Memory, where: Memory | None, u: Memory, n: int, state: Memory) -> None:
        add_all(n, terms, state, where, u)

    return sums


def _summing_lane(
    probability: Callable[..., Any], summand: Callable[..., Any], *, is_written: bool
) -> Any:
    """Return the same for the rows of one lane."""
    add_lane = adding_lane(*_adding(probability, summand, is_written=is_written))

    @inlined()
    def sums(
        terms: Memory,
        where: Memory | None,
        u: Memory,
        size: tuple[int, int],
        lane: int,
        state: Memory,
    ) -> None:
        n, rows = size
        add_lane(n, rows, lane, terms, state, where, u)

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


join_products = joining(_adding(given, second, is_written=False)[1])


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
    scale(n, terms, u, state, g)
    tell_cotangents(u, told)
    write_end(g, found, n, told)


@inlined()
def _scale_some(
    row: int, start: int, places: Any, terms: Memory, u: Memory, state: Memory, g: Memory
) -> None:
    numbers, factor = read(terms, row, start, places), read(u, 0, start, places)
    a, b = load(state, FIRST, start, numbers), load(state, SECOND, start, numbers)
    put(g, row, start, places, of_logsumexp(numbers, None, a, b, factor))


scale = over_vectors(_scale_some)


@inlined()
def tell_cotangents(u: Memory, told: Memory) -> None:
    for i in range(told.length):
        told[0, i] = u[0, i]


_WORKS = {
    **{rule.pull: _pulling(*formulas) for rule, formulas in FORMULAS.items()},
    _rules.logsumexp.pull: _logsumexp,
}
PULLS_OF_COLUMNS = {f: over_columns(work, has_terms=True) for f, work in _WORKS.items()}
