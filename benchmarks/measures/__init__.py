"""What the suite measures, one file for each library, and how it is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["FACES", "LOOPS", "OURS", "Measure", "Pair", "Point", "Work"]

Work = Callable[[], Any]

OURS, LOOPS = "softmaxes", "loops compiled"
FACES = ("softmax", "log_softmax")  # with a result like the scores


class Pair(NamedTuple):
    """Two calls to be timed in turns."""

    case: str
    ours: Work
    theirs: Work


class Measure(NamedTuple):
    """A number of ours beside a peer's; `ratio` is theirs divided by ours, so more is better."""

    case: str
    unit: str
    ours: float
    theirs: float
    ratio: float
    steady: bool = True
    group: str = ""


class Point(NamedTuple):
    """The median seconds for a call on so many entries, by a library on another, or on none, and how."""

    library: str
    on: str
    n: int
    s: float
    how: str = ""
