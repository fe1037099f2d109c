"""
Loops over rows that threads share: each takes some rows, until none are left.

Who comes late finds none, and is not waited for. That all are done is seen without the lock of the
interpreter, which takes longer to get than many a loop takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from softmaxes._arrays import Array
from softmaxes._backends._numba._numbers import compiled, inlined
from softmaxes._backends._numba._team import in_team
from softmaxes._backends._numba._vectors import add_to
from softmaxes._backends._threads import lent_team, together, workers_of

__all__ = [
    "end_of",
    "in_phases",
    "on_threads",
    "rows_after",
    "turns_of",
    "turns_of_phases",
    "wait_for",
]

# The counters of a loop: the first row that nobody has taken, the rows done, and those of a turn.
NEXT, DONE, STEP = range(3)
PART = 1 << 16  # entries, of which a few are worth a thread
SHARES = 16  # turns for each thread, so that one that is held up takes fewer
LOOKS = 1 << 14  # at whether all are done, before this thread sleeps


def on_threads(loop: Callable[..., Any], rows: int, n: int, *arguments: Any) -> bool | None:
    """
    Call a loop over rows of n entries, on as many threads as they are worth, and no more than rows.

    Return whether it says True on all of them, if that is known.
    """
    workers = min(rows, workers_of(rows * n // PART))
    if workers < 2:
        return bool(loop(None, *arguments))
    turns = turns_of(rows, workers)
    says_true = _together(workers, loop, turns, *arguments)
    while not _are_done(turns, rows):
        time.sleep(1e-4)
    return says_true


@compiled()
def turns_of(rows: int, workers: int) -> Array:
    """Return the counters of a loop over rows that so many threads share."""
    return np.array([0, 0, max(1, rows // (SHARES * workers))])


@compiled()
def turns_of_phases(phases: int) -> Array:
    """Return the counters of a loop in so many phases, in which rows are taken one by one."""
    turns = np.zeros((phases, 3), np.int64)
    turns[:, STEP] = 1
    return turns


def in_phases(loop: Callable[..., Any], rows: int, phases: int, *arguments: Any) -> bool | None:
    """Do the same for a loop that takes rows one by one in each of its phases."""
    turns = turns_of_phases(phases)
    if (workers := workers_of(rows)) < 2:
        return bool(loop(turns, *arguments))
    return _together(workers, loop, turns, *arguments)


def _together(workers: int, loop: Callable[..., Any], *arguments: Any) -> bool | None:
    if (team := lent_team()) is None:
        together(workers, loop, *arguments)
        return None
    return bool(in_team(loop)(team.parallel, min(workers, team.limit()), *arguments))


@inlined()
def rows_after(turns: Array | None, done: int) -> int:
    """Tell that so many rows are done, and return the first of those of the next turn."""
    if turns is None:
        return done
    add_to(turns, DONE, done)
    return add_to(turns, NEXT, turns[STEP])


@inlined()
def end_of(turns: Array | None, begin: int, rows: int) -> int:
    """Return where a turn ends, of which there is but one where no threads share."""
    return rows if turns is None else min(begin + turns[STEP], rows)


@inlined()
def wait_for(turns: Array, rows: int) -> None:
    """Return as all rows are done."""
    while add_to(turns, DONE, 0) < rows:
        pass


@compiled()
def _are_done(turns: Array, rows: int) -> bool:
    looks = 0
    while looks < LOOKS and add_to(turns, DONE, 0) < rows:
        looks += 1
    return looks < LOOKS
