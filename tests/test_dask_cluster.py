"""On a cluster of processes, a worker that dies costs a retry and not a wrong number."""

import os
import signal
import time
from functools import partial

import numpy as np
import pytest

import softmaxes as sm

dask = pytest.importorskip("dask", reason="dask is not installed")
da = pytest.importorskip("dask.array", reason="dask is not installed")
distributed = pytest.importorskip("distributed", reason="distributed is not installed")

CHUNKS = 40
PATIENCE = 120  # seconds in which a worker is reached, or given up


def noted(chunk, file):
    """Return a chunk after a while, and note in a file that it was made."""
    time.sleep(0.05)
    with file.open("a") as log:
        log.write("made\n")
    return chunk


@pytest.fixture
def client():
    options = {"processes": True, "threads_per_worker": 1, "dashboard_address": None}
    timeouts = dict.fromkeys(("connect", "tcp"), f"{PATIENCE}s")
    with (
        dask.config.set({"distributed.comm.timeouts": timeouts}),
        distributed.LocalCluster(n_workers=2, **options) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the process that is killed
@pytest.mark.parametrize("function", [sm.logsumexp, sm.softmax])
def test_a_killed_worker_costs_a_retry_and_not_a_wrong_number(function, client, tmp_path):
    x = np.random.default_rng(0).normal(scale=10, size=(4, 10 * CHUNKS))
    file = tmp_path / "made"
    chunks = da.from_array(x, chunks=(4, 10)).map_blocks(partial(noted, file=file), meta=x[:0, :0])
    victim, *_ = client.run(os.getpid).values()

    future = client.compute(function(chunks, axis=-1))
    while not file.exists() or len(file.read_text().splitlines()) < CHUNKS // 2:
        time.sleep(0.01)
    assert not future.done()
    os.kill(victim, signal.SIGKILL)

    expected = function(da.from_array(x, chunks=(4, 10)), axis=-1).compute(scheduler="threads")
    # The other worker may have asked the victim for a chunk, and then tries for as long to reach it.
    np.testing.assert_array_equal(future.result(timeout=2 * PATIENCE), expected)
    assert len(file.read_text().splitlines()) > CHUNKS
