"""
Slices of NumPy that are columns of a matrix, as along axis 0, where they lie: none is made a row.

The terms are those of a row, and are added in the order in which NumPy adds a row, so the bits are
the same. A column with several maxima is left to the rows, where the first of them counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from softmaxes._arrays import Array, Arrays
from softmaxes._backends import _moderate, _ordinary
from softmaxes._backends._sums import (
    EIGHT,
    FORMULAS,
    TILE,
    Sums,
    added_over,
    halved,
    parts_of,
)
from softmaxes._backends._threads import each

__all__ = ["LONGEST", "WIDE", "columns"]

LONGEST = dict.fromkeys(("float32", "float64"), math.inf)
WIDE = 64  # columns, of fewer of which the calls of NumPy take longer than a copy to rows
ROW = 512  # columns, below which eight rows at once are reduced in less time
BLOCK = 128  # entries of a row that NumPy adds in EIGHT running sums; of more it adds two halves
AT_ONCE = 4096  # columns, so that blocks stay in cache

Terms: TypeAlias = Callable[[Array, Array | None], Array]


def columns(f: Callable[..., Array], arrays: Arrays, out: Array) -> Array:
    """Write the results of the columns of matrices to out, and return for which they are right."""
    x, out = (np.moveaxis(a, 1, 0) for a in (arrays.x, out))  # from here on slices lie along axis 0
    n, matrices, width = x.shape
    are_right = np.empty((1, matrices, width), bool)

    def work(part: tuple[slice, slice]) -> None:
        some = (slice(None), *part)
        are_right[some] = _columns(f, x[some], out[some])

    several, wide = max(1, TILE // (n * width)), max(AT_ONCE, TILE // n)
    step = width if width < 2 * wide else wide
    parts = [
        (slice(i, i + several), slice(j, j + step))
        for i in range(0, matrices, several)
        for j in range(0, width, step)
    ]
    each(work, parts, are_heavy=True, have_parts=n * width > TILE)
    return are_right[0]


def _columns(f: Callable[..., Array], x: Array, out: Array) -> Array:
    found = _sums(x, None if FORMULAS[f].reduces else out)
    _result(f, found, out)
    return found.are_right


def _sums(x: Array, out: Array | None) -> Sums:
    """Return the sums of columns, right for those of one kind, with the terms in out if there is one."""
    maximum, lowest = _extremes(x)
    are_moderate = _moderate.are_in_bounds(maximum, lowest)
    if 2 * np.count_nonzero(are_moderate) > are_moderate.size:
        rest, have_one = _others(_moderate.terms, maximum, x, out)
        are_right = are_moderate & have_one
        return Sums(x, out, maximum, np.exp(maximum), rest, are_right, is_shifted=False)
    terms = partial(_ordinary.terms, maximum, masked=False)
    rest, have_one = _others(terms, maximum, x, out)
    are_right = ~are_moderate & np.isfinite(rest) & have_one
    return Sums(x, out, maximum, x.dtype.type(1.0), rest, are_right)


def _result(f: Callable[..., Array], sums: Sums, out: Array) -> None:
    """Write the result of a formula of `_primals` to out, where the terms may be."""
    formula = FORMULAS[f]
    of_all, of_each = formula.of_all(sums), formula.of_each
    if of_each is None:
        out[...] = of_all
    else:
        parts = _parts(sums.x)
        each(lambda rows: of_each(sums, of_all, sums.x[rows], out[rows]), parts, are_heavy=True)


def _others(terms: Terms, maximum: Array, x: Array, out: Array | None) -> tuple[Array, Array]:
    """Return the sums of the terms without those of the maxima, and which columns have but one."""

    def some(block: Block) -> tuple[Array, Array]:
        part = block.of(x)
        found = terms(part, None if out is None else block.of(out))
        is_other = np.less(part, maximum)
        return block.total(found, is_other), _count(is_other)

    lengths = [min(TILE, len(x) - i) for i in range(0, len(x), TILE)]  # as if of a row in parts
    blocks = [_blocks(x, i * TILE, n) for i, n in enumerate(lengths)]
    totals, counts = zip(*each(some, list(chain(*blocks)), are_heavy=True), strict=True)
    left = iter(totals)
    rest = [
        _added(x, n, list(islice(left, len(some)))) for n, some in zip(lengths, blocks, strict=True)
    ]
    return added_over(np.stack(rest), _total)[None], sum(counts)[None] == len(x) - 1


def _extremes(x: Array) -> tuple[Array, Array]:
    """Return the maximum of each column, and the minimum of all if they are moderate, else of each."""
    found = each(lambda rows: (_reduced(np.maximum, x[rows]), np.min(x[rows])), _parts(x))
    maxima, minima = zip(*found, strict=True)
    maximum, lowest = _reduced(np.maximum, np.concatenate(maxima)), np.min(minima)
    if _moderate.are_in_bounds(maximum, lowest).all():
        return maximum, lowest
    lows = each(lambda rows: _reduced(np.minimum, x[rows]), _parts(x))
    return maximum, _reduced(np.minimum, np.concatenate(lows))


def _count(a: Array) -> Array:
    """Return how many entries of each column are True."""
    # Of up to 255 rows in single bytes, which takes a quarter of the time.
    rows = tuple(range(a.ndim - 2))
    short = np.uint8 if math.prod(a.shape[:-2]) < 256 else np.intp
    return np.add.reduce(a.view(np.uint8), rows, dtype=short).astype(np.intp)


def _reduced(f: np.ufunc, a: Array) -> Array:
    if a.shape[-1] >= ROW:
        return f.reduce(a, 0, keepdims=True)
    eight, others = _by_eight(f, a)
    return f.reduce(np.concatenate([eight, others]), 0, keepdims=True)


def _parts(x: Array) -> list[slice]:
    """Return parts of the rows that stay in cache."""
    n, most = len(x), max(1, TILE // int(x[0].size))
    return [slice(i, min(i + most, n)) for i in range(0, n, most)]


# The order in which `_sums.added` adds a row ------------------------------------------------------


class Block(NamedTuple):
    """Rows that are worked at once: one after the other, or the same ones of so many parts of them all."""

    rows: slice
    parts: int = 1
    of_each: slice = slice(None)
    is_added: bool = False  # in float64

    def of(self, a: Array) -> Array:
        """Return these rows, with an axis in front for the parts if there are some."""
        rows = a[self.rows]
        if self.parts > 1:
            rows = rows.reshape(self.parts, -1, *a.shape[1:])[:, self.of_each]
        return rows

    def total(self, terms: Array, is_other: Array) -> Array:
        """Return the sum of the terms of others, or what is to be added yet: one row for each of a part."""
        of_others = np.multiply(terms, is_other)
        if self.parts > 1:
            return halved(of_others)
        return _total(of_others, np.float64) if self.is_added else of_others


def _blocks(x: Array, start: int, n: int) -> list[Block]:
    """Return the blocks of n rows."""
    stop, row, parts = start + n, int(x[0].size), parts_of(n, x.dtype)
    if parts == 1 and _is_wide(x, n):
        return [Block(rows, is_added=True) for rows in _halves(start, stop, _most(row))]
    if parts == 1:
        return [Block(slice(start, stop))]
    end, step = stop - n % parts, max(1, TILE // (parts * row))
    starts = range(0, n // parts, step)
    blocks = [Block(slice(start, end), parts, slice(i, i + step)) for i in starts]
    return blocks if end == stop else [*blocks, Block(slice(end, stop))]


def _added(x: Array, n: int, totals: list[Array]) -> Array:
    """Return what the totals of the blocks of n rows add up to."""
    parts = parts_of(n, x.dtype)
    if parts == 1 and _is_wide(x, n):
        return _added_halves(iter(totals), 0, n, _most(int(x[0].size)))
    last = added_over(totals.pop(), _total) if parts == 1 or n % parts else None
    if not totals:
        return last
    total = added_over(np.concatenate(totals), _total)
    return total if last is None else total + last


def _is_wide(x: Array, n: int) -> bool:
    """Tell whether so many rows are added in float64."""
    return n > EIGHT and x.dtype == np.float32


def _most(row: int) -> int:
    """Return how many rows of so many entries may be added at once."""
    return max(BLOCK, TILE // row)


def _halves(start: int, stop: int, most: int) -> Iterator[slice]:
    """Cut rows in two until no part has more than so many."""
    if stop - start <= most:
        yield slice(start, stop)
    else:
        middle = _middle(start, stop)
        yield from _halves(start, middle, most)
        yield from _halves(middle, stop, most)


def _added_halves(totals: Iterator[Array], start: int, stop: int, most: int) -> Array:
    """Return what the totals of those parts add up to."""
    if stop - start <= most:
        return next(totals)
    middle = _middle(start, stop)
    first = _added_halves(totals, start, middle, most)
    return first + _added_halves(totals, middle, stop, most)


def _middle(start: int, stop: int) -> int:
    half = (stop - start) // 2
    return start + half - half % EIGHT


def _total(a: Array, dtype: Any) -> Array:
    """Return the sum of the rows, as NumPy adds a row of them in a dtype."""
    blocks = (_total_of_block(a[rows], dtype) for rows in _halves(0, len(a), BLOCK))
    return _added_halves(blocks, 0, len(a), BLOCK)


def _total_of_block(a: Array, dtype: Any) -> Array:
    if len(a) < EIGHT:
        return np.add.reduce(a, 0, dtype)
    s, others = _by_eight(np.add, a, dtype)
    total = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]))
    for row in others:
        total += row
    return total


def _by_eight(f: np.ufunc, a: Array, dtype: Any = None) -> tuple[Array, Array]:
    """Return every eighth row reduced together, and the rows that are left."""
    whole = len(a) - len(a) % EIGHT
    eight = a[:whole].reshape(-1, EIGHT, *a.shape[1:])
    return f.reduce(eight, 0, dtype) if whole else a[:0], a[whole:]
