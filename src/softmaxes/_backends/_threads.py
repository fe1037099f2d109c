"""Threads over the parts of a large array: NumPy computes outside the lock of the interpreter."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import copy_context
from functools import cache, partial
from queue import SimpleQueue
from typing import Any, NamedTuple, Self

__all__ = [
    "Team",
    "allowed",
    "beside_threads_that_stay",
    "crew",
    "each",
    "lent_team",
    "together",
    "workers_of",
]

FEW = 16  # parts, below which new threads cost more than they save
FEW_HEAVY = 4  # of parts with an exponential of each entry, or more


class Team(NamedTuple):
    """The threads of a library: what calls a function of Python, or one of C, on so many at once."""

    call: Callable[[Callable[[], Any], int], None]
    parallel: int  # the address of the library's own, as GNU's `GOMP_parallel`
    limit: Callable[[], int]  # of the number of threads


class _Here(threading.local):
    """What is so on this thread, of a call under way."""

    team: Team | None = None
    keeps_threads = False
    crew: crew | None = None
    shares = False  # parts, which are not to be shared again


_here = _Here()


class beside_threads_that_stay:  # noqa: N801  a context
    """
    Let a call of a library that keeps threads share its work, on whichever thread, with ones that stay.

    They are the team of the library itself, where it lends that.
    """

    def __init__(self, team: Team | None = None) -> None:
        self.team = team

    def __enter__(self) -> None:
        _here.keeps_threads, _here.team = True, self.team

    def __exit__(self, *_: object) -> None:
        _here.keeps_threads, _here.team = False, None


def workers_of(parts: int, *, are_heavy: bool = False) -> int:
    """Return the number of threads that work so many parts: one where there are few."""
    # Light parts too are worth threads that have been started.
    few = 2 if _keeps_threads() else FEW_HEAVY if are_heavy or _has_started() else FEW
    return 1 if parts < few else allowed()


def each(
    work: Callable[[Any], Any],
    parts: list[Any],
    *,
    are_heavy: bool = False,
    have_parts: bool = False,
) -> list[Any]:
    """
    Return the work done on each of the parts, in their order.

    Where the parts have such parts themselves, and are fewer than the threads, those are shared instead.
    """
    workers = workers_of(len(parts), are_heavy=are_heavy)
    if workers < 2 or (have_parts and len(parts) < workers):
        return [work(part) for part in parts]
    return _shared(work, parts, min(workers, len(parts)))


def _shared(work: Callable[[Any], Any], parts: list[Any], workers: int) -> list[Any]:
    """Return the work done on each of the parts, on so many threads."""
    results, left, lock = [None] * len(parts), iter(range(len(parts))), threading.Lock()
    done: SimpleQueue[BaseException | None] = SimpleQueue()

    def take() -> int | None:
        with lock:
            return next(left, None)

    def share() -> None:
        _here.shares = True  # so that no part is shared again
        try:
            while (i := take()) is not None:
                done.put(error_of(i))
        finally:
            _here.shares = False

    def error_of(i: int) -> BaseException | None:
        try:
            results[i] = work(parts[i])
        except BaseException as error:  # noqa: BLE001  raised where the call is
            return error
        return None

    together(workers, share)
    errors = [done.get() for _ in parts]  # who comes too late for a part is not waited for
    for error in filter(None, errors):
        raise error
    return results


def together(workers: int, f: Callable[..., Any], *arguments: Any) -> None:
    """Call f(*arguments) on so many threads, of which this is one, and wait for no others that stay."""
    if (team := lent_team()) is not None:
        team.call(partial(f, *arguments), workers)
        return
    with _threads(workers - 1) as start:
        for _ in range(workers - 1):
            start(copy_context().run, f, *arguments)
        f(*arguments)


def _threads(workers: int) -> Any:
    """Return what starts work beside this thread; all ends with the call: nothing is left for a fork to copy."""
    most = max(workers, allowed() - 1)  # as the next pass may have more parts
    if _keeps_threads():
        return nullcontext(_kept_threads(most, os.getpid()))
    if (ours := _here.crew) is None:
        return _new_threads(workers)
    if ours.start is None:
        ours.start = ours.enter_context(_new_threads(most))
    return nullcontext(ours.start)


def _has_started() -> bool:
    return _here.crew is not None and _here.crew.start is not None


class crew(ExitStack):  # noqa: N801  a context
    """Let the threads that one `each` starts stay for the next, until the call ends."""

    def __enter__(self) -> Self:
        self.start: Callable[..., Any] | None = None
        _here.crew = self
        return self

    def __exit__(self, *error: object) -> bool | None:
        _here.crew = None
        return super().__exit__(*error)  # type: ignore[arg-type]


@contextmanager
def _new_threads(workers: int) -> Iterator[Callable[..., Any]]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(workers) as pool:
        yield pool.submit


@cache
def _kept_threads(workers: int, process: int) -> Callable[..., Any]:
    """Return what starts work on threads that stay: others for each process, as a fork copies none."""
    waiting: SimpleQueue[Any] = SimpleQueue()

    def serve() -> None:
        while True:
            _carry_out(*waiting.get())

    for _ in range(workers):
        threading.Thread(target=serve, daemon=True).start()
    return lambda *call: waiting.put(call)


def _carry_out(f: Callable[..., Any], *arguments: Any) -> None:
    f(*arguments)  # which nothing refers to any longer than that


def lent_team() -> Team | None:
    """Return the threads that the library of this call lends, if it does."""
    return _here.team


def _keeps_threads() -> bool:
    return _here.keeps_threads


def allowed() -> int:
    """Return the number of threads to use: one where others already share the work."""
    is_free = _keeps_threads() or threading.current_thread() is threading.main_thread()
    if not is_free or _here.shares or _is_worker(os.getpid()):
        return 1
    own, team = os.environ.get("SOFTMAXES_NUM_THREADS"), lent_team()
    if own is not None and not (own.isdecimal() and int(own) > 0):
        raise ValueError(f"SOFTMAXES_NUM_THREADS must be a positive integer, got {own!r}")
    if own is None and team is not None:
        return team.limit()
    of_all = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(own or (of_all if of_all.isdecimal() else 0)) or _processors()


@cache
def _is_worker(process: int) -> bool:
    """Tell whether this process is one of `multiprocessing`."""
    from multiprocessing import parent_process

    return parent_process() is not None


def _processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
