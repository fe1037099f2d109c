"""Columns: from scores and a mask to the results, by the operations of `_rows` on vectors of columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from softmaxes import _primals
from softmaxes._backends._numba._adding import over_vectors, put, read
from softmaxes._backends._numba._blocks import over_columns
from softmaxes._backends._numba._columns import (
    FIRST,
    SECOND,
    copy_to,
    reduce_columns,
    write_divisors,
)
from softmaxes._backends._numba._numbers import inlined, lanes_of
from softmaxes._backends._numba._rows import difference, quotient
from softmaxes._backends._numba._slices import BELOW, EXCESS, LOG, MAXIMUM, finish
from softmaxes._backends._numba._vectors import Memory, filled, kept_some, load, select, store

__all__ = ["COLUMNS", "divide"]


def _mapping(of: Callable[..., Any]) -> Any:
    """Return a loop that writes `of` the numbers of columns, whether they are kept, and two more of each."""

    @inlined()
    def write_some(
        row: int,
        start: int,
        places: Any,
        x: Memory,
        where: Memory | None,
        state: Memory,
        y: Memory,
    ) -> None:
        numbers = read(x, row, start, places)
        mask = kept_some(where, row, start, places, numbers)
        first, second = load(state, FIRST, start, numbers), load(state, SECOND, start, numbers)
        put(y, row, start, places, of(numbers, mask, first, second))

    return over_vectors(write_some)


divide, _subtract = _mapping(quotient), _mapping(difference)


def _ending(
    finished: Callable[..., None], *, has_terms: bool = False, has_log: bool = False
) -> Callable[..., None]:
    """Return the work on a few columns, which ends by `finished(x, where, terms, y, state, found, n)`, as for rows."""

    @inlined()
    def work(
        x: Memory,
        where: Memory | None,
        u: None,
        terms: Memory,
        y: Memory,
        state: Memory,
        found: Memory,
        n: int,
        told: Memory,
    ) -> None:
        reduce_columns(x, where, n, state, terms if has_terms else None, found)
        if not has_terms:
            finish(x, found, x.length, has_log)
        copy_to(told, 0, x.length, found, BELOW if has_terms else EXCESS)
        finished(x, where, terms, y, state, found, n)

    return work


@inlined()
def _softmax(
    x: Memory, where: Any, terms: Memory, y: Memory, state: Memory, found: Memory, n: int
) -> None:
    write_divisors(state, found, x.length)
    divide(n, terms, None, state, y)


@inlined()
def _log_softmax(
    x: Memory, where: Any, terms: Memory, y: Memory, state: Memory, found: Memory, n: int
) -> None:
    zero = filled(found, 0.0)
    for i in range(0, x.length, lanes_of(found)):
        log_sum = load(found, LOG, i, zero)  # -inf of no support
        store(found, LOG, i, select(log_sum < 0.0, log_sum, log_sum * -1.0))
    copy_to(state, FIRST, x.length, found, LOG)
    copy_to(state, SECOND, x.length, found, MAXIMUM)
    _subtract(n, x, where, state, y)


@inlined()
def _logsumexp(
    x: Memory, where: Any, terms: Memory, y: Memory, state: Memory, found: Memory, n: int
) -> None:
    zero = filled(found, 0.0)
    for i in range(0, x.length, lanes_of(found)):
        store(found, LOG, i, load(found, MAXIMUM, i, zero) + load(found, LOG, i, zero))
    copy_to(y, 0, x.length, found, LOG)


@inlined()
def _excess(
    x: Memory, where: Any, terms: Memory, y: Memory, state: Memory, found: Memory, n: int
) -> None:
    copy_to(y, 0, x.length, found, EXCESS)


_WORKS = {
    _primals.softmax: _ending(_softmax, has_terms=True),
    _primals.log_softmax: _ending(_log_softmax, has_log=True),
    _primals.logsumexp: _ending(_logsumexp, has_log=True),
    _primals.excess: _ending(_excess),
}
COLUMNS = {f: over_columns(work, has_terms=f is _primals.softmax) for f, work in _WORKS.items()}
