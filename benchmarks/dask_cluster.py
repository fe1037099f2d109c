"""
Print time and memory on a cluster of processes: ``python benchmarks/dask_cluster.py``.

The arrays are ten times as large as the memory allowed to the workers, which write to disk what does
not fit. One is read from files, one for each chunk, and a row of its chunks does not fit; the other is
computed, and a row of its chunks fits. The results are forgotten, as if they were written elsewhere.
Time is that of the clock, and beside it that of the processors over all workers, which depends less on
what else runs; memory is the largest growth of one worker above what it takes when it has started,
sampled twenty times a second. A worker may take more than is allowed, and then waits until all is on
disk; as Dask comes it would be stopped and its work done again, which no time would be comparable to.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import dask
import dask.array as da
import numpy as np
import psutil
from distributed import Client, LocalCluster

import softmaxes as sm

WORKERS = 2
MEMORY = 350_000_000  # of a worker, in bytes, of which the interpreter takes 150
CHUNK = (250, 8_000)  # 16 MB

Array = Any


def main(times_the_memory: float = 10.0) -> None:
    chunks = int(times_the_memory * WORKERS * MEMORY / (8 * CHUNK[0] * CHUNK[1]))
    print(f"{WORKERS} workers, {1e-9 * WORKERS * MEMORY:.1f} GB in all")
    with TemporaryDirectory() as directory:
        table("read from files", read(computed(4, chunks // 4), Path(directory)))
    table("computed", computed(chunks // 8, 8))


def computed(rows: int, columns: int) -> Array:
    """Return scores in so many rows and columns of chunks."""
    shape = rows * CHUNK[0], columns * CHUNK[1]
    return da.random.default_rng(0).normal(scale=10.0, size=shape, chunks=CHUNK)


def read(x: Array, directory: Path) -> Array:
    """Return an array as it is read from the files to which it is written here."""
    files = Files(directory, x.shape)
    da.store(x, files, lock=False)
    return da.from_array(files, chunks=x.chunks, meta=x)


class Files:
    """A store of float64 with a file for each chunk."""

    dtype = np.dtype("float64")

    def __init__(self, directory: Path, shape: tuple[int, ...]) -> None:
        self.directory, self.shape, self.ndim = directory, shape, len(shape)

    def __getitem__(self, part: tuple[slice, ...]) -> np.ndarray:
        return np.load(self.file(part))

    def __setitem__(self, part: tuple[slice, ...], values: np.ndarray) -> None:
        np.save(self.file(part), values)

    def file(self, part: tuple[slice, ...]) -> Path:
        return self.directory / f"{'-'.join(str(axis.start) for axis in part)}.npy"


class Nowhere:
    """A store that forgets."""

    def __setitem__(self, part: tuple[slice, ...], values: np.ndarray) -> None:
        pass


def table(origin: str, x: Array) -> None:
    gigabytes = 1e-9 * x.nbytes, 1e-9 * x.blocks[0].nbytes
    print(
        f"\n{gigabytes[0]:.1f} GB of scores, {origin}, {gigabytes[1]:.2f} GB in a row of chunks\n"
    )
    print("| | s | s of processors | MB of a worker | s ÷ naive | processors | memory |")
    print("|---|---|---|---|---|---|---|")
    for reference, function in (
        (naive_logsumexp, sm.logsumexp),
        (naive_softmax, sm.softmax),
        (naive_log_softmax, sm.log_softmax),
    ):
        naive = measured(reference, x)
        row(reference.__name__, naive, naive)
        row(function.__name__, measured(function, x), naive)


def naive_logsumexp(x: Array, axis: int) -> Array:
    m = x.max(axis=axis, keepdims=True)
    return (m + da.log(da.exp(x - m).sum(axis=axis, keepdims=True)))[:, 0]


def naive_softmax(x: Array, axis: int) -> Array:
    e = da.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def naive_log_softmax(x: Array, axis: int) -> Array:
    z = x - x.max(axis=axis, keepdims=True)
    return z - da.log(da.exp(z).sum(axis=axis, keepdims=True))


def measured(function: Callable[..., Array], x: Array) -> tuple[float, ...]:
    """Return seconds, those of processors, and megabytes of a worker, in a cluster of its own."""
    options = {"processes": True, "threads_per_worker": 1, "dashboard_address": None}
    with (
        dask.config.set({"distributed.worker.memory.terminate": False}),
        LocalCluster(n_workers=WORKERS, memory_limit=MEMORY, **options) as cluster,
        Client(cluster) as client,
    ):
        client.run(quiet)
        forget(function(x.blocks[:4, :2], axis=-1))  # what is imported once
        workers = [psutil.Process(pid) for pid in client.run(lambda: psutil.Process().pid).values()]
        with Peak(workers) as peak:
            start, used = time.perf_counter(), processor_time(workers)
            forget(function(x, axis=-1))
            seconds = time.perf_counter() - start, processor_time(workers) - used
        return *seconds, peak.bytes / 1e6


def quiet() -> None:
    """Say nothing each time that a worker waits for memory."""
    logging.getLogger("distributed.worker.memory").setLevel(logging.ERROR)


def forget(y: Array) -> None:
    da.store(y, Nowhere(), lock=False)


def processor_time(workers: list[psutil.Process]) -> float:
    return sum(sum(worker.cpu_times()[:2]) for worker in workers)


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
