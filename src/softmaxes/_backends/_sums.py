"""
What a row of NumPy comes down to, and the results that follow from it, in place.

With M the maximum of a row, `largest` is the term of the first of its maxima, any other entry has the
term exp(x - M) largest, and `rest` is the sum of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from softmaxes import _primals, _states
from softmaxes._arrays import Array
from softmaxes._backends._threads import each

__all__ = [
    "AT_ONCE",
    "EIGHT",
    "FORMULAS",
    "TILE",
    "Formula",
    "Sums",
    "added",
    "added_over",
    "bits_of",
    "by_parts",
    "free_of_nan",
    "halved",
    "kept",
    "lowest",
    "maxima",
    "others",
    "parts_of",
    "top",
    "with_others",
]

TILE = 1 << 18  # entries of rows that are worked in place, and of a part of a longer row
EIGHT = 8  # running sums, in which NumPy adds a row, if it has as many entries
FEW = 16  # entries that NumPy may add in its own order
SHORT = 2048  # entries of float32 that it may add in float64
PARTS = 64  # of what is added by halves, at most
BUFFER = 512  # entries
AT_ONCE = 1 << 17  # entries of which something is made that takes memory

# With the number 0, fmax takes three times as long.
ZEROS = {np.dtype(t): np.zeros(TILE, t) for t in (np.float32, np.float64)}
BITS = {  # of -inf
    np.dtype(t): np.array(-np.inf, t).view(f"i{t().itemsize}")[()] for t in (np.float32, np.float64)
}


class Sums(NamedTuple):
    """Of rows x, the terms, if they are kept; `are_right` tells for which rows the rest is right."""

    x: Array
    terms: Array | None
    maximum: Array
    largest: Array
    rest: Array
    are_right: Array
    is_shifted: bool = True
    temperature: Array | None = None

    @property
    def excess(self) -> Array:
        """S - 1: the rest divided by e^M, which the terms are to be where they are not shifted."""
        if self.is_shifted:
            return self.rest
        return self.rest / np.exp(_double(self.maximum))  # in float32 exp errs by 2.5 ulp

    def result(self, f: Callable[..., Array]) -> Array:
        """Return the result of a formula of `_primals`, which may overwrite the terms."""
        formula = FORMULAS[f]
        of_all = formula.of_all(self)
        if formula.of_each is None:
            return of_all
        by_parts(partial(formula.of_each, self, of_all), self.x, self.terms)
        return self.terms


class Formula(NamedTuple):
    """
    The result of a row, and what it is made of.

    It is `of_all(sums)`, or where that does not reduce of_each(sums, of_all(sums), x, terms), which
    overwrites the terms of some x.
    """

    of_all: Callable[[Sums], Array]
    of_each: Callable[[Sums, Array, Array, Array], Any] | None = None
    has_terms: bool = True
    has_scores: bool = False

    @property
    def reduces(self) -> bool:
        """Whether a row has one result."""
        return self.of_each is None


def _total(s: Sums) -> Array:
    return s.largest + s.rest.astype(s.x.dtype, copy=False)


def _softmax(s: Sums, total: Array, x: Array, terms: Array) -> None:
    is_above = np.greater(terms, s.largest)
    if is_above.item(is_above.argmax()):  # exp need not keep the order of neighbours
        np.minimum(terms, s.largest, out=terms)
    np.divide(terms, total, out=terms)


def _log_of_largest(s: Sums) -> Array:
    return -_log_sum(s).astype(s.x.dtype)


def _log_softmax(s: Sums, largest: Array, x: Array, terms: Array) -> None:
    np.subtract(s.maximum, x, out=terms)
    if s.temperature is not None:
        terms /= s.temperature
    np.subtract(largest, terms, out=terms)


def _logsumexp(s: Sums) -> Array:
    return s.maximum + _log_sum(s)


def _log_sum(s: Sums) -> Array:
    # For each row only, so that the precision costs little.
    return np.log1p(_double(s.excess))


def _double(a: Array) -> Array:
    # A ufunc that is told of a dtype takes three times as long on a few numbers.
    return a.astype(np.float64, copy=False)


def _excess(s: Sums) -> Array:
    return s.excess


FORMULAS: dict[Any, Formula] = {
    _primals.excess: Formula(_excess),
    _primals.softmax: Formula(_total, _softmax),
    _primals.log_softmax: Formula(_log_of_largest, _log_softmax, has_scores=True),
    _primals.logsumexp: Formula(_logsumexp),
    _states.Reading(_states.softmax): Formula(_total, _softmax),
    _states.Reading(_states.log_softmax): Formula(
        _log_of_largest, _log_softmax, has_terms=False, has_scores=True
    ),
}


def kept(x: Array, where: Array) -> Array:
    """Return x, -inf where it is masked."""
    # np.where and copyto branch, and on a mask without pattern cost ten times this.
    y = np.empty_like(x)
    by_parts(_keep, x, where, y)
    return y


def _keep(x: Array, where: Array, out: Array) -> None:
    bits = bits_of(where, out)
    bits |= BITS[x.dtype]  # NaN, or -inf where it is masked
    np.fmin(x, out, out=out)


def bits_of(where: Array, out: Array) -> Array:
    """Return out as integers, whose bits are set where a mask is True."""
    bits = out.view(f"i{out.itemsize}")
    bits[...] = np.negative(where.view(np.int8))  # whose sign fills all of them
    return bits


def maxima(x: Array) -> tuple[Array, Array]:
    """Return where the first maximum of each row is, and the maxima; NaN of a row that has one."""
    place = top(x)
    return place, x.reshape(-1)[place][:, None]


def top(x: Array) -> Array:
    """Return where the first maximum of each row is, or its first NaN, in x with one axis."""
    first = x.argmax(-1) if x.shape[-1] <= TILE else _first_of_parts(x)
    return first if len(first) == 1 else first + np.arange(0, x.size, x.shape[-1])


def _first_of_parts(x: Array) -> Array:
    firsts = by_parts(lambda part: part.argmax(-1), x)
    places = np.stack(firsts, -1) + TILE * np.arange(len(firsts))
    best = np.take_along_axis(x, places, -1).argmax(-1)
    return np.take_along_axis(places, best[:, None], -1)[:, 0]


def by_parts(f: Callable[..., Any], *rows: Array) -> list[Any]:
    """Return f of the parts of rows that fit in cache: several of a long row alone."""
    n = rows[0].shape[-1]
    if n <= TILE:
        return [f(*rows)]
    parts = [slice(i, i + TILE) for i in range(0, n, TILE)]
    return each(lambda part: f(*(a[:, part] for a in rows)), parts)


def lowest(x: Array) -> Array:
    """Return the lowest score of all rows that is not NaN."""
    lows = by_parts(_lowest, x.reshape(1, -1))
    return lows[0] if len(lows) == 1 else _lowest(np.concatenate(lows, -1))


def _lowest(row: Array) -> Array:
    return np.fmin.reduce(row, -1, keepdims=True)


def with_others(
    terms: Callable[..., Array], top: Array, out: Array | None, *rows: Array
) -> tuple[Array | None, Array]:
    """
    Return the terms of rows, and their sums without those of the first maxima.

    The terms are in out if there is one; if not, those of a long row alone are not kept.
    """
    n = rows[0].shape[-1]
    if n <= TILE:
        found = terms(*rows, out)
        return found, others(found, top, are_spare=out is None)

    def of_part(start: int) -> Array:
        stop = min(start + TILE, n)
        some = terms(*(a if a is None else a[:, start:stop] for a in (*rows, out)))
        here = top[(start <= top) & (top < stop)] - start
        return others(some, here, are_spare=out is None)

    # The parts are the same for every number of threads, and so are the bits.
    found = np.concatenate(each(of_part, list(range(0, n, TILE)), are_heavy=True), -1)
    return out, added(found)


def others(terms: Array, top: Array, *, are_spare: bool = False) -> Array:
    """Return the sum of the terms without those of the first maxima; NaN where a term is."""
    flat = terms.reshape(-1)
    largest = flat[top]
    flat[top] = 0.0
    total = added(terms, are_spare=are_spare)
    flat[top] = largest
    return total


def added(rows: Array, *, are_spare: bool = False) -> Array:
    """Return the sum of each row, as `added_over` adds it, which may overwrite what is spare."""
    many, n = rows.shape
    if n <= EIGHT:
        return np.add.reduce(rows, -1, keepdims=True)
    step = max(1, AT_ONCE // n)
    if are_spare or step >= many:
        return added_over(np.moveaxis(rows, -1, 0), _of_rows, are_spare=are_spare)[:, None]
    return np.concatenate([added(rows[i : i + step]) for i in range(0, many, step)])


def _of_rows(a: Array, dtype: Any) -> Array:
    return np.add.reduce(a, 0, dtype)


def added_over(a: Array, total: Callable[[Array, Any], Array], *, are_spare: bool = False) -> Array:
    """
    Return the sum over the first axis: by halves, down to few entries, and of float32 these in float64.

    NumPy, whose order `total(a, dtype)` has, adds up to sixteen entries one after the other. Where one is
    large, and each of the others a little less than half an ulp of it, all others are lost. By halves,
    what is added doubles each time.
    """
    n = len(a)
    if n <= EIGHT:
        return total(a, a.dtype)
    parts = parts_of(n, a.dtype)
    if parts > 1:
        whole = n - n % parts
        of_parts = halved(a[:whole].reshape(parts, -1, *a.shape[1:]), are_spare=are_spare)
        found = added_over(of_parts, total, are_spare=True)
    elif a.dtype == np.float32:
        return total(a, np.float64)
    else:
        whole = n - n % EIGHT
        found = total(a[:whole], a.dtype)
    return found if whole == n else found + added_over(a[whole:], total)


def parts_of(n: int, dtype: Any) -> int:
    """Return into how many parts n entries are cut: a power of 2, so that each part is short."""
    parts, short = 1, SHORT if dtype == np.float32 else FEW
    while parts < PARTS and n > parts * short:
        parts *= 2
    return parts


def halved(parts: Array, *, are_spare: bool = False) -> Array:
    """Return the sum of parts, so many as a power of 2: the sum of both halves, and the same of that."""
    half = len(parts) // 2
    # NumPy copies what is strided and shorter than its buffer, which takes as long as to add it.
    size = np.setbufsize(BUFFER if half * len(parts[0]) >= BUFFER else np.getbufsize())
    try:
        total = np.add(parts[:half], parts[half:], out=parts[:half] if are_spare else None)
        while half > 1:
            half //= 2
            np.add(total[:half], total[half : 2 * half], out=total[:half])
    finally:
        np.setbufsize(size)
    return total[0]


def free_of_nan(terms: Array) -> None:
    """Write 0 where NaN stands for it."""
    zeros = ZEROS[terms.dtype][: terms.size].reshape(terms.shape)
    np.fmax(terms, zeros, out=terms)
