"""Two functions timed in turns, beside a copy of an array that tells how steady the machine is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

__all__ = ["CLOCKS", "DRIFT", "Times", "turns"]

Work = Callable[[], Any]
Clock = Callable[[], float]

CLOCKS = {"wall": time.perf_counter, "process": time.process_time}
DRIFT = 0.1  # of the copy, beyond which nothing is to be concluded
BATCH = 2e-3  # seconds; shorter calls are timed several at once
COPIED = 1 << 21  # bytes, less than a cache holds and more than a call costs
AT_LEAST = 0.3  # seconds for all; in less, pages are still taken and given back
TRIES = 3
# The two and the control: who comes after it finds a cold cache.
ORDERS = (2, 0, 1), (2, 1, 0)


class Times(NamedTuple):
    """Median seconds for a call of each, and by how much the control drifted meanwhile."""

    ours: float
    theirs: float
    drift: float

    @property
    def ratio(self) -> float:
        """How many times as long theirs takes."""
        return self.theirs / self.ours

    @property
    def steady(self) -> bool:
        """Tell whether the machine was quiet enough to conclude."""
        return self.drift <= DRIFT


def turns(ours: Work, theirs: Work, *, clock: str = "wall", count: int = 9) -> Times:
    """
    Time the two and the control in turns, so many times or more in each order.

    Both are called as often. The control takes no memory, of which one of them would miss the pages. Where it
    drifts all is timed again, and the steadiest is kept.
    """
    control = partial(np.copyto, np.empty(COPIED, np.uint8), np.ones(COPIED, np.uint8))
    calls = max(map(_calls_in_a_batch, (ours, theirs)))
    contestants = (ours, calls), (theirs, calls), (control, _calls_in_a_batch(control))
    tries: list[Times] = []
    while len(tries) < TRIES and not any(times.steady for times in tries):
        tries.append(_times(contestants, CLOCKS[clock], count))
    return min(tries, key=lambda times: times.drift)


def _times(contestants: Sequence[tuple[Work, int]], clock: Clock, count: int) -> Times:
    samples: list[list[float]] = [[] for _ in contestants]
    start, rounds = clock(), 0
    while rounds <= count or clock() - start < AT_LEAST:
        for i in chain(*ORDERS):
            samples[i].append(_seconds(*contestants[i], clock))
        rounds += 1
    a, b, copies = (of[len(ORDERS) :] for of in samples)  # the first of each order do not count
    first, _, third = statistics.quantiles(copies)
    return Times(statistics.median(a), statistics.median(b), third / first - 1.0)


def _calls_in_a_batch(work: Work) -> int:
    work()
    once = _seconds(work, 1, time.perf_counter)
    return max(1, min(1000, round(BATCH / once)))


def _seconds(work: Work, calls: int, clock: Clock) -> float:
    start = clock()
    for _ in range(calls):
        work()
    return (clock() - start) / calls
