"""Threads over the parts of a large array: NumPy computes outside the lock of the interpreter."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import copy_context
from functools import cache
from typing import Any

__all__ = ["at_once", "beside_threads_that_stay", "each"]

FEW = 8  # parts, below which new threads cost more than they save
SHARES = 4  # parts for each thread, so that one that comes late or is held up does fewer

_here = threading.local()


@contextmanager
def beside_threads_that_stay() -> Iterator[None]:
    """Let a call of a library that keeps threads share its work, on whichever thread, with ones that stay."""
    _here.keeps_threads = True
    try:
        yield
    finally:
        _here.keeps_threads = False


def at_once(least: int, entries: int) -> int:
    """Return how many entries make a part, at least so many, if `entries` are to be shared."""
    return max(least, entries // (SHARES * _allowed()))


def each(work: Callable[[Any], Any], parts: list[Any]) -> list[Any]:
    """Return the work done on each of the parts, in their order."""
    few = 2 if _keeps_threads() else FEW
    if len(parts) < few or (workers := _allowed()) < 2:
        return [work(part) for part in parts]
    results, left, lock = [None] * len(parts), iter(range(len(parts))), threading.Lock()

    def take() -> int | None:
        with lock:
            return next(left, None)

    def share() -> None:
        while (i := take()) is not None:
            results[i] = work(parts[i])

    with _pool(workers - 1) as pool:
        others = [pool.submit(copy_context().run, share) for _ in range(workers - 1)]
        share()
        for one in others:
            one.result()
    return results


def _pool(workers: int) -> Any:
    """Return threads beside this one, which end with the call: nothing is left for a fork to copy."""
    if _keeps_threads():
        return nullcontext(_kept_pool(workers, os.getpid()))
    return _new_pool(workers)


def _new_pool(workers: int, process: int | None = None) -> Any:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(workers)


_kept_pool = cache(_new_pool)  # one for each process, as a fork copies no threads


def _keeps_threads() -> bool:
    return getattr(_here, "keeps_threads", False)


def _allowed() -> int:
    """Return the number of threads to use: one where others already share the work."""
    from multiprocessing import parent_process

    is_free = _keeps_threads() or threading.current_thread() is threading.main_thread()
    if not is_free or parent_process() is not None:
        return 1
    own = os.environ.get("SOFTMAXES_NUM_THREADS")
    if own is not None and not (own.isdecimal() and int(own) > 0):
        raise ValueError(f"SOFTMAXES_NUM_THREADS must be a positive integer, got {own!r}")
    of_all = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(own or (of_all if of_all.isdecimal() else 0)) or _processors()


def _processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
