"""
Columns: the operations of rows in the same order, on vectors of which each place is a column.

A few columns are worked from their first row to their last, and what is found of them stays in the nearest
cache. Their terms stay in the next, in room of their own, where they are not so far apart as the results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from softmaxes import _primals
from softmaxes._arrays import Array
from softmaxes._backends._numba._narrow import (
    gather,
    keep,
    matrices_at_once,
    scatter,
)
from softmaxes._backends._numba._numbers import (
    compiled,
    far,
    inlined,
    lanes_of,
    lowering_of,
    near,
    real_of,
    zeros,
)
from softmaxes._backends._numba._rows import (
    difference,
    extended,
    noting,
    quotient,
)
from softmaxes._backends._numba._shared import end_of, rows_after
from softmaxes._backends._numba._slices import (
    BELOW,
    DIVISOR,
    EXCESS,
    LARGEST,
    LOG,
    MAXIMUM,
    MOST,
    Sums,
    added,
    added_four,
    are_far,
    begun,
    find_largest,
    finish,
    joined,
    room_of_slices,
    scale_of,
    write_some,
)
from softmaxes._backends._numba._vectors import (
    BYTES,
    Memory,
    block_of,
    either,
    filled,
    first_places,
    folded,
    kept_some,
    load,
    load_first,
    memory_of,
    prefetch,
    room_of,
    row_of,
    select,
    store,
    store_first,
)

__all__ = [
    "COLUMNS",
    "ERROR",
    "FIRST",
    "FOURTH",
    "LONG",
    "PLACE",
    "SECOND",
    "SUM",
    "THIRD",
    "Adding",
    "adding_all",
    "blocks_of",
    "copy_to",
    "fill",
    "over_columns",
    "over_vectors",
    "put",
    "read",
    "reduce_columns",
    "room_of_columns",
    "write_divisors",
]

ROOM = 1 << 23  # bytes of the terms of a few columns, of which more are written among the results
LONG = ROOM // (4 * MOST)  # entries of a column, up to which there is room in single precision
VECTORS = 8  # of columns that are taken at once
AHEAD = 4  # rows, after which a row is worked that is asked for now

# The rows of an array of what is found of columns: sums side by side, as in the places of a vector of
# a row, their errors, and the largest terms; the extremes, what `scale_of` has, and four for the results.
SUM, ERROR, TOP = 0, 16, 32
HIGHEST, LOWEST, SHIFT, RAISED, FIRST, SECOND, THIRD, FOURTH = range(48, 56)
PLACE = 56  # where a probability above 1/2 is
room_of_columns = room_of(57, MOST)


# A vector of columns ------------------------------------------------------------------------------


def over_vectors(of: Callable[..., None]) -> Any:
    """Return a loop over n rows of columns: `of(row, start, places, x, ...)`, without places where all are there."""

    @inlined()
    def loop(n: int, x: Memory, *others: Any) -> None:
        lanes, width = lanes_of(x), x.length
        for row in range(n):
            for start in range(0, width - lanes + 1, lanes):
                of(row, start, None, x, *others)
            if width % lanes:
                places = first_places(width % lanes, filled(x, 0.0))
                of(row, width - width % lanes, places, x, *others)

    return loop


@inlined()
def read(x: Memory, row: int, start: int, places: Any) -> Any:
    prefetch(x, row + AHEAD, start)
    like = filled(x, 0.0)
    return load(x, row, start, like) if places is None else load_first(x, row, start, places)


@inlined()
def put(y: Memory, row: int, start: int, places: Any, numbers: Any) -> None:
    prefetch(y, row + AHEAD, start)
    if places is None:
        store(y, row, start, numbers)
    else:
        store_first(y, row, start, places, numbers)


# A few columns ------------------------------------------------------------------------------------


class Adding(NamedTuple):
    """
    How numbers of columns are added, as those of rows are, in as many sums side by side as a vector has lanes.

    `begun(x)` are the sums of nothing, and `alone(x, a)` those of one number. `one(sums, a)` and
    `four(sums, a, b, c, d)` add numbers, and `joined(sums, others)` are the sums of two lanes. `known(state, lane,
    start, x)` are the sums of a lane, which `keep(state, lane, start, sums)` writes; where no lane has more than one
    number, the numbers are in the rows from `first` on. `more(state, start, x)` is what else there is to know, which
    `keep_more(state, start, more)` writes.
    """

    begun: Callable[..., Any]
    alone: Callable[..., Any]
    one: Callable[..., Any]
    four: Callable[..., Any]
    joined: Callable[..., Any]
    known: Callable[..., Any]
    keep: Callable[..., None]
    first: int
    more: Callable[..., Any]
    keep_more: Callable[..., None]


def adding_all(vector: Callable[..., Any], adding: Adding) -> Any:
    """
    Return a loop over n rows of columns: four vectors are added at once, and the rest one by one.

    With what else there is to know, `vector(row, start, places, more, x, ...)` is what to add, and the same again.
    The sums of all are those of the first lane in the end.
    """
    fewest, few, fours, ones = (of(vector, adding) for of in (_fewest, _few, _fours, _ones))
    begin, fold_all = _beginning(adding), over_vectors(_folding(adding))

    @inlined()
    def loop(n: int, x: Memory, state: Memory, *others: Any) -> None:
        lanes = lanes_of(x)
        if n <= lanes:
            fewest(1, x, n, state, *others)
            return
        if n < 4 * lanes:
            few(1, x, n, state, *others)
            return
        begin(lanes, x, state)
        rows = n // (4 * lanes) * lanes
        fours(rows, x, state, *others)
        ones(n - 4 * rows, x, 4 * rows, state, *others)
        fold_all(1, x, lanes, state)

    return loop


def _fours(vector: Callable[..., Any], adding: Adding) -> Any:
    _, _, _, four, _, known, keep, _, more_of, keep_more = adding

    @inlined()
    def of_four(i: int, start: int, places: Any, x: Memory, state: Memory, *others: Any) -> None:
        lanes = lanes_of(x)
        row, lane = i // lanes * 4 * lanes + i % lanes, i % lanes
        sums, more = known(state, lane, start, x), more_of(state, start, x)
        a, more = vector(row, start, places, more, x, *others)
        b, more = vector(row + lanes, start, places, more, x, *others)
        c, more = vector(row + 2 * lanes, start, places, more, x, *others)
        d, more = vector(row + 3 * lanes, start, places, more, x, *others)
        keep(state, lane, start, four(sums, a, b, c, d))
        keep_more(state, start, more)

    return over_vectors(of_four)


def _ones(vector: Callable[..., Any], adding: Adding) -> Any:
    _, _, one, _, _, known, keep, _, more_of, keep_more = adding

    @inlined()
    def of_one(
        i: int, start: int, places: Any, x: Memory, begin: int, state: Memory, *others: Any
    ) -> None:
        lane = i % lanes_of(x)
        sums, more = known(state, lane, start, x), more_of(state, start, x)
        y, more = vector(begin + i, start, places, more, x, *others)
        keep(state, lane, start, one(sums, y))
        keep_more(state, start, more)

    return over_vectors(of_one)


def _fewest(vector: Callable[..., Any], adding: Adding) -> Any:
    """Return a loop over columns of no more rows than there are lanes."""
    _, alone, _, _, joined, _, keep, first, more_of, keep_more = adding
    fold = _folding(adding)

    @inlined()
    def of_fewest(
        _: int, start: int, places: Any, x: Memory, n: int, state: Memory, *others: Any
    ) -> None:
        more = more_of(state, start, x)
        for row in range(n):
            y, more = vector(row, start, places, more, x, *others)
            store(state, first + row, start, y + 0.0)  # as no sum is -0
        half, zero = max(1, lanes_used(n, state) // 2), filled(x, 0.0)
        for lane in range(half):
            sums = alone(x, load(state, first + lane, start, zero))
            if lane + half < n:
                more_sums = alone(x, load(state, first + lane + half, start, zero))
                sums = joined(sums, more_sums)
            keep(state, lane, start, sums)
        keep_more(state, start, more)
        fold(0, start, places, x, half, state)

    return over_vectors(of_fewest)


def _few(vector: Callable[..., Any], adding: Adding) -> Any:
    """Return a loop over columns of so few rows that none are added in fours: most sums are never in memory."""
    begun, _, one, _, joined, _, keep, _, more_of, keep_more = adding
    fold = _folding(adding)

    @inlined()
    def of_few(
        _: int, start: int, places: Any, x: Memory, n: int, state: Memory, *others: Any
    ) -> None:
        lanes = lanes_of(x)
        half, quarter = lanes // 2, lanes // 4
        more = more_of(state, start, x)
        for lane in range(quarter):
            sums = second = begun(x)
            for i in range(4):
                a = begun(x)
                for row in range(lane + i % 2 * half + i // 2 * quarter, n, lanes):
                    y, more = vector(row, start, places, more, x, *others)
                    a = one(a, y)
                if i == 0:
                    sums = a
                elif i == 1:
                    sums = joined(sums, a)
                elif i == 2:
                    second = a
                else:
                    second = joined(second, a)
            keep(state, lane, start, joined(sums, second))
        keep_more(state, start, more)
        fold(0, start, places, x, quarter, state)

    return over_vectors(of_few)


def _folding(adding: Adding) -> Any:
    """Return what brings the sums of so many lanes together, for a vector of columns."""
    known, joined, keep = adding.known, adding.joined, adding.keep

    @inlined()
    def fold(_: int, start: int, places: Any, x: Memory, lanes: int, state: Memory) -> None:
        half = lanes // 2
        while half:
            for lane in range(half):
                sums = known(state, lane, start, x)
                others = known(state, lane + half, start, x)
                keep(state, lane, start, joined(sums, others))
            half //= 2

    return fold


def _beginning(adding: Adding) -> Any:
    """Return a loop over lanes, whose sums begin."""
    begun, keep = adding.begun, adding.keep

    @inlined()
    def begin(lane: int, start: int, places: Any, x: Memory, state: Memory) -> None:
        keep(state, lane, start, begun(x))

    return over_vectors(begin)


@inlined()
def lanes_used(n: int, x: Memory) -> int:
    """Return a power of 2: of the lanes among which n rows are summed, those behind as many have no terms."""
    lanes: int = lanes_of(x)
    while lanes // 2 >= n:
        lanes //= 2
    return lanes


def _summing(term: Callable[..., Any]) -> Any:
    """Return a loop over the terms of columns, which are written if there is where to."""
    terms_of = noting(term)

    @inlined()
    def vector(
        row: int,
        start: int,
        places: Any,
        more: Any,
        x: Memory,
        where: Memory | None,
        terms: Memory | None,
    ) -> Any:
        scale, ends = more
        scores = read(x, row, start, places)
        mask = kept_some(where, row, start, places, scores)
        y, ends = terms_of(scores, mask, scale, ends)
        if terms is not None:
            put(terms, row, start, places, y)
        return y, (scale, ends)

    adding = Adding(begun, _alone, added, added_four, joined, _known, _keep, TOP, _more, _keep_more)
    add_all = adding_all(vector, adding)

    @inlined()
    def sums(x: Memory, where: Memory | None, n: int, state: Memory, terms: Memory | None) -> None:
        fill(state, HIGHEST, HIGHEST + 1, -np.inf)
        fill(state, LOWEST, LOWEST + 1, np.inf)
        add_all(n, x, state, where, terms)

    return sums


@inlined()
def _alone(x: Memory, term: Any) -> Sums:
    below, error, _ = begun(x)
    return Sums(below, error, term)


@inlined()
def _known(state: Memory, lane: int, start: int, x: Memory) -> Sums:
    like = filled(x, 0.0)
    return Sums(
        load(state, SUM + lane, start, like),
        load(state, ERROR + lane, start, like),
        load(state, TOP + lane, start, like),
    )


@inlined()
def _keep(state: Memory, lane: int, start: int, sums: Sums) -> None:
    store(state, SUM + lane, start, sums.below)
    store(state, ERROR + lane, start, sums.error)
    store(state, TOP + lane, start, sums.top)


@inlined()
def _more(state: Memory, start: int, x: Memory) -> Any:
    """Return the scale and the extremes."""
    like = filled(x, 0.0)
    scale = load(state, SHIFT, start, like), load(state, RAISED, start, like)
    return scale, _ends(state, start, like)


@inlined()
def _keep_more(state: Memory, start: int, more: Any) -> None:
    _keep_ends(state, start, more[1])


@inlined()
def _ends(state: Memory, start: int, like: Any) -> Any:
    return load(state, HIGHEST, start, like), load(state, LOWEST, start, like)


@inlined()
def _keep_ends(state: Memory, start: int, ends: Any) -> None:
    highest, lowest = ends
    store(state, HIGHEST, start, highest)
    store(state, LOWEST, start, lowest)


_near_sums, _far_sums = _summing(near), _summing(far)


@inlined()
def fill(state: Memory, row: int, stop: int, number: float) -> None:
    for i in range(row, stop):
        for start in range(0, state.length, lanes_of(state)):
            store(state, i, start, filled(state, number))


@inlined()
def _are_far(state: Memory) -> bool:
    found, zero = False, filled(state, 0.0)
    for start in range(0, state.length, lanes_of(state)):
        highest, lowest = _ends(state, start, zero)
        found = found or are_far(highest, lowest)
    return found


@inlined()
def _extend(
    row: int, start: int, places: Any, x: Memory, where: Memory | None, state: Memory
) -> None:
    scores = read(x, row, start, places)
    mask = kept_some(where, row, start, places, scores)
    highest, lowest = _ends(state, start, scores)
    _keep_ends(state, start, extended(highest, lowest, scores, mask))


_extend_all = over_vectors(_extend)


@inlined()
def _find_scales(x: Memory, where: Memory | None, n: int, state: Memory) -> None:
    fill(state, HIGHEST, HIGHEST + 1, -np.inf)
    fill(state, LOWEST, LOWEST + 1, np.inf)
    _extend_all(n, x, where, state)
    for i in range(x.length):
        state[SHIFT, i], state[RAISED, i] = scale_of(state[HIGHEST, i], state[LOWEST, i])


@inlined()
def copy_to(memory: Memory, row: int, width: int, found: Memory, number: int) -> None:
    """Copy one of the numbers of slices to the first entries of a row."""
    lanes, zero = lanes_of(found), filled(found, 0.0)
    for i in range(0, width - lanes + 1, lanes):
        store(memory, row, i, load(found, number, i, zero))
    for i in range(width // lanes * lanes, width):
        memory[row, i] = found[number, i]


@inlined()
def reduce_columns(
    x: Memory, where: Memory | None, n: int, state: Memory, terms: Memory | None, found: Memory
) -> None:
    """Write what is found of a few columns."""
    fill(state, SHIFT, RAISED + 1, 0.0)
    _near_sums(x, where, n, state, terms)
    if _are_far(state):
        _find_scales(x, where, n, state)
        _far_sums(x, where, n, state, terms)
    zero = filled(found, 0.0)
    for i in range(0, x.length, lanes_of(found)):
        below = load(state, SUM, i, zero) + load(state, ERROR, i, zero)
        scale = load(state, SHIFT, i, zero), load(state, RAISED, i, zero)
        maximum, top = load(state, HIGHEST, i, zero), load(state, TOP, i, zero)
        write_some(found, i, maximum, scale, below, top, lowering_of(state), terms is not None)
    if terms is not None:
        shift, raised = row_of(state, SHIFT), row_of(state, RAISED)
        find_largest(row_of(state, HIGHEST), shift, raised, found, x.length)


# Many columns -------------------------------------------------------------------------------------


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


_divide, _subtract = _mapping(quotient), _mapping(difference)


class Cut(NamedTuple):
    """
    How columns are cut into blocks.

    How many columns are taken at once: in each row they are half a kilobyte, as what a processor fetches ahead should
    not be what another writes. Of how many matrices each block has the columns, 0 if only some of one; how many there
    are of all matrices, and of one; and by how many entries the first of one is shorter than the others.
    """

    together: int
    several: int
    blocks: int
    across: int
    before: int


@inlined()
def _cut(n: int, x: Array, y: Array, right: Array) -> Cut:
    (matrices, columns), together = right.shape, VECTORS * lanes_of(memory_of(x))
    several, before = matrices_at_once(n, columns, matrices, together), _before_a_line(y, together)
    across = (before + columns + together - 1) // together
    blocks = matrices * across
    if several:
        blocks = (matrices + several - 1) // several
    return Cut(together, several, blocks, across, before)


@compiled()
def blocks_of(n: int, x: Array, y: Array, right: Array) -> int:
    """Return how many times a loop over columns of n entries takes some at once."""
    blocks: int = _cut(n, x, y, right).blocks
    return blocks


@inlined()
def _before_a_line(y: Array, together: int) -> int:
    """
    Return how many entries of a line of cache are before the first of an array, if all rows begin in a line as it does.

    Blocks of columns that begin with a line share none, for which threads would wait. Where a row is one, it is 0.
    """
    is_same = y.strides[0] % BYTES == 0 and y.shape[1] > together
    return y.ctypes.data % BYTES // y.itemsize if is_same else 0


@inlined()
def _tell(told: Memory, right: Memory) -> bool:
    """Write for which columns not all is right, and tell whether it is for all."""
    are_all = _are_finite(told)
    for i in range(0 if are_all else told.length):
        right[0, i] = np.isfinite(told[0, i])
    return are_all


@inlined()
def _are_finite(numbers: Memory) -> bool:
    """Tell whether all numbers of a row are: none of them times 0 is anything else."""
    lanes, zero = lanes_of(numbers), filled(numbers, 0.0)
    whole, total = numbers.length // lanes * lanes, zero
    for i in range(0, whole, lanes):
        total = total + load(numbers, 0, i, zero) * 0.0
    found = folded(total)
    for i in range(whole, numbers.length):
        found += numbers[0, i] * 0.0
    return bool(found == 0.0)


class Block(NamedTuple):
    """Columns: their scores, mask and cotangents if there are any, results, and whether these are right."""

    x: Memory
    where: Memory | None
    u: Memory | None
    y: Memory
    right: Memory


@inlined()
def _lying(i: int, cut: Cut, sizes: tuple[int, int, int], arrays: Block) -> Block:
    """Return a block of columns of one matrix, where they lie."""
    n, height_of_u, height_of_y = sizes
    matrix, end = i // cut.across, (i % cut.across + 1) * cut.together - cut.before
    start = max(0, end - cut.together)
    width = min(end, arrays.right.length) - start
    return Block(
        block_of(arrays.x, matrix * n, start, width),
        block_of(arrays.where, matrix * n, start, width),
        block_of(arrays.u, matrix * height_of_u, start, width),
        block_of(arrays.y, matrix * height_of_y, start, width),
        block_of(arrays.right, matrix, start, width),
    )


@inlined()
def _gathered(
    i: int, cut: Cut, matrices: int, sizes: tuple[int, int, int], arrays: Block, rooms: Block
) -> Block:
    """Return a block of the columns of several matrices, whose scores, masks and cotangents are side by side."""
    n, height_of_u, _ = sizes
    columns, lanes, begin = arrays.right.length, lanes_of(arrays.x), i * cut.several
    count = min(cut.several, matrices - begin)
    width = (count * columns + lanes - 1) // lanes * lanes
    end, end_of_u = matrices * n * columns, matrices * height_of_u * columns
    gather(arrays.x, begin, count, n, columns, end, rooms.x)
    gather(arrays.where, begin, count, n, columns, end, rooms.where)
    gather(arrays.u, begin, count, height_of_u, columns, end_of_u, rooms.u)
    return Block(
        block_of(rooms.x, 0, 0, width),
        block_of(rooms.where, 0, 0, width),
        block_of(rooms.u, 0, 0, width),
        block_of(rooms.y, 0, 0, width),
        block_of(arrays.right, begin, 0, count * columns),
    )


@inlined()
def _scatter(i: int, cut: Cut, sizes: tuple[int, int, int], block: Block, arrays: Block) -> None:
    """Copy the results of a block of several matrices to where they belong."""
    _, _, height = sizes
    columns, begin = arrays.right.length, i * cut.several
    count = block.right.length // columns
    end = (begin + count) * height * columns  # behind which another thread may write
    scatter(arrays.y, begin, count, height, columns, end, block.y)


def over_columns(work: Callable[..., None], *, has_terms: bool) -> Any:
    """
    Return a loop over the columns of matrices, which lie one below the other.

    It calls `work(x, where, u, terms, y, state, found, n, told)` for a few columns at once, of one matrix or
    of several narrow ones, which writes a number of each column that is finite where all is right. The sizes are
    the heights of a matrix of x, u and y. `right` has a row for each matrix: False where a
    column is not right. The loop tells whether all are.
    """

    def loop(
        turns: Array | None,
        sizes: tuple[int, int, int],
        x: Array,
        where: Array | None,
        u: Array | None,
        y: Array,
        right: Array,
    ) -> bool:
        n, _, _ = sizes
        (matrices, columns), cut = right.shape, _cut(n, x, y, right)
        arrays = _block(x, where, u, y, right)
        real, lanes = real_of(arrays.x), lanes_of(arrays.x)
        wide = (
            cut.together
            if cut.several
            else min(cut.together, (columns + lanes - 1) // lanes * lanes)
        )
        height = n if has_terms and n * wide * (BYTES // lanes) <= ROOM else 0
        room, told = np.empty((height + 1, wide), real), np.zeros((1, MOST))
        found, whole = room_of_slices(np.float64(0.0)), room_of_columns(real(0.0))
        fill(whole, FIRST, FOURTH + 1, 1.0)  # of what is no column, where nothing is subnormal
        rows = n if cut.several else 1
        entries = MOST + BYTES  # and those that are copied beyond the last
        room_x, room_where = zeros(x, rows, entries), zeros(where, rows, entries)
        room_u, room_y = zeros(u, rows, entries), zeros(y, rows, entries)
        rooms = _block(room_x, room_where, room_u, room_y, right)
        first, all_are_right = rows_after(turns, 0), True
        while first < cut.blocks:
            stop = end_of(turns, first, cut.blocks)
            for i in range(first, stop):
                if cut.several:
                    block = _gathered(i, cut, matrices, sizes, arrays, rooms)
                else:
                    block = _lying(i, cut, sizes, arrays)
                width = block.x.length
                terms = either(height > 0, block_of(memory_of(room), 0, 0, width), block.y)
                state = block_of(whole, 0, 0, (width + lanes - 1) // lanes * lanes)
                some_told = block_of(memory_of(told), 0, 0, block.right.length)
                work(block.x, block.where, block.u, terms, block.y, state, found, n, some_told)
                if cut.several:
                    _scatter(i, cut, sizes, block, arrays)
                all_are_right = _tell(some_told, block.right) and all_are_right
            first = rows_after(turns, stop - first)
        keep(room)
        keep(told)
        keep(room_x)
        keep(room_where)
        keep(room_u)
        keep(room_y)
        return all_are_right

    return compiled()(loop)


@inlined()
def _block(x: Array, where: Array | None, u: Array | None, y: Array, right: Array) -> Block:
    return Block(memory_of(x), memory_of(where), memory_of(u), memory_of(y), memory_of(right))


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
def write_divisors(state: Memory, found: Memory, width: int) -> None:
    """Write the two numbers by which terms become probabilities."""
    copy_to(state, FIRST, width, found, LARGEST)
    copy_to(state, SECOND, width, found, DIVISOR)


@inlined()
def _softmax(
    x: Memory, where: Any, terms: Memory, y: Memory, state: Memory, found: Memory, n: int
) -> None:
    write_divisors(state, found, x.length)
    _divide(n, terms, None, state, y)


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
