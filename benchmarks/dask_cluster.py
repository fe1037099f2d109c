"""
Print time and memory on a cluster of processes: ``python benchmarks/dask_cluster.py``.

The array is ten times as large as the memory allowed to the workers, which write to disk what does
not fit. Every chunk of it is made where it is needed. Time is that of the clock, and beside it that
of the processors over all workers, which does not depend on what else runs; memory is the largest
growth of one worker above what it takes when it has started, sampled twenty times a second.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import dask.array as da
import psutil
from dask.graph_manipulation import bind
from distributed import Client, LocalCluster

import softmaxes as sm
from softmaxes import online

WORKERS = 2
MEMORY = 350_000_000  # of a worker, in bytes, of which the interpreter takes 150
CHUNK = (250, 8_000)  # 16 MB

Array = Any


def main(times_the_memory: float = 10.0) -> None:
    columns = int(times_the_memory * WORKERS * MEMORY / (8 * 1_000) // CHUNK[1] * CHUNK[1])
    shape = 1_000, columns
    size = 8e-9 * shape[0] * columns
    allowed = 1e-9 * WORKERS * MEMORY
    print(f"array {shape}, {size:.1f} GB; {WORKERS} workers, {allowed:.1f} GB in all\n")
    print("| | s | s of processors | MB of a worker | s ÷ naive | processors | memory |")
    print("|---|---|---|---|---|---|---|")
    for reference, *others in (
        (naive_logsumexp, sm.logsumexp),
        (naive_softmax, softmax_in_two_passes, sm.softmax),
    ):
        naive = measured(reference, shape)
        row(reference.__name__, naive, naive)
        for function in others:
            row(function.__name__, measured(function, shape), naive)


def naive_logsumexp(x: Array, axis: int) -> Array:
    m = x.max(axis=axis, keepdims=True)
    return (m + da.log(da.exp(x - m).sum(axis=axis, keepdims=True)))[:, 0]


def naive_softmax(x: Array, axis: int) -> Array:
    e = da.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def softmax_in_two_passes(x: Array, axis: int) -> Array:
    """Return the softmax of scores that are made again instead of kept."""
    state = online.update(online.empty(xp=da), x, axis=axis)
    return online.softmax(bind(x, list(state[:3])), state, axis=axis)


def measured(function: Callable[..., Array], shape: tuple[int, int]) -> tuple[float, ...]:
    """Return seconds, those of processors, and megabytes of a worker, in a cluster of its own."""
    options = {"processes": True, "threads_per_worker": 1, "dashboard_address": None}
    with (
        LocalCluster(n_workers=WORKERS, memory_limit=MEMORY, **options) as cluster,
        Client(cluster) as client,
    ):
        result(function, (1_000, CHUNK[1])).compute()  # what is imported once
        workers = [psutil.Process(pid) for pid in client.run(lambda: psutil.Process().pid).values()]
        with Peak(workers) as peak:
            start, used = time.perf_counter(), processor_time(workers)
            result(function, shape).compute()
            seconds = time.perf_counter() - start, processor_time(workers) - used
        return *seconds, peak.bytes / 1e6


def processor_time(workers: list[psutil.Process]) -> float:
    return sum(sum(worker.cpu_times()[:2]) for worker in workers)


def result(function: Callable[..., Array], shape: tuple[int, int]) -> Array:
    """Return what is to be computed: a sum, where the function has an entry for each score."""
    x = da.random.default_rng(0).normal(scale=10.0, size=shape, chunks=CHUNK)
    y = function(x, axis=-1)
    return y if y.ndim == 1 else y.sum(axis=0)


class Peak:
    """The most memory that one of the processes has taken above what it had, in a with block."""

    def __init__(self, processes: list[psutil.Process]) -> None:
        self.before = {process: process.memory_info().rss for process in processes}
        self.bytes = 0
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self) -> None:
        while not self.stopped.wait(0.05):
            for process, before in self.before.items():
                self.bytes = max(self.bytes, process.memory_info().rss - before)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stopped.set()
        self.thread.join()


def row(name: str, found: tuple[float, ...], naive: tuple[float, ...]) -> None:
    ratios = (a / b for a, b in zip(found, naive, strict=True))
    cells = [name, *(f"{a:.0f}" for a in found), *(f"{a:.2f}" for a in ratios)]
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
