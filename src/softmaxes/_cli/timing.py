"""Two functions timed in turns, beside a copy of an array that tells how steady the machine is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

__all__ = ["CLOCKS", "DRIFT", "Times", "turns"]

Work = Callable[[], Any]

CLOCKS = {"wall": time.perf_counter, "process": time.process_time}
DRIFT = 0.1  # of the copy, beyond which nothing is to be concluded
BATCH = 2e-3  # seconds; shorter calls are timed several at once
COPIED = 1 << 21  # bytes, less than a cache holds and more than a call costs


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
    """Time the two and the control in turns, after a first call of each that does not count."""
    contestants = ours, theirs, np.zeros(COPIED, np.uint8).copy
    seconds = CLOCKS[clock]
    calls = [_calls_in_a_batch(work) for work in contestants]
    samples = [
        [_seconds(work, n, seconds) for work, n in zip(contestants, calls, strict=True)]
        for _ in range(count)
    ]
    a, b, copies = zip(*samples, strict=True)
    first, _, third = statistics.quantiles(copies)
    return Times(statistics.median(a), statistics.median(b), third / first - 1.0)


def _calls_in_a_batch(work: Work) -> int:
    work()
    once = _seconds(work, 1, time.perf_counter)
    return max(1, min(1000, round(BATCH / once)))


def _seconds(work: Work, calls: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(calls):
        work()
    return (clock() - start) / calls
