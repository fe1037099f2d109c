"""A loop on the threads of another library, which calls it from C: none of them asks for the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from softmaxes._backends._numba._calls import SAID_FALSE, as_c, call, refuse_failure, word_at
from softmaxes._backends._numba._numbers import compiled

__all__ = ["in_team"]


@cache
def in_team(loop: Callable[..., Any]) -> Any:
    """
    Return a compiled function of the address of GNU's `GOMP_parallel`, or its like, a number of threads and
    arguments, which calls the loop with these on so many threads at once, and tells whether none says False.
    """

    def work(parallel: int, workers: int, *arguments: Any) -> bool:
        share, place, ends = as_c(loop, arguments)
        call(parallel, (share, place, workers, 0))
        refuse_failure(ends)
        return not word_at(ends) & SAID_FALSE

    return compiled()(work)
