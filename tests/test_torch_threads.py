"""PyTorch's threads, lent to NumPy."""

import os
import threading
from contextlib import nullcontext

import numpy as np
import pytest

from softmaxes._backends._compiled import loops


@pytest.fixture
def team(torch):
    from softmaxes._backends import _torch_threads

    if (team := _torch_threads.team()) is None:
        pytest.skip("PyTorch lends no threads here")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield team
    torch.set_num_threads(before)


def test_pytorch_lends_as_many_threads_as_it_has_itself(team):
    used, all_are_there = set(), threading.Barrier(3)

    def work():
        all_are_there.wait(timeout=60)
        used.add(threading.get_ident())

    team.call(work, 8)
    assert len(used) == 3
    assert threading.get_ident() in used


def test_every_thread_has_the_context_of_the_call(team):
    found = set()
    with np.errstate(divide="raise"):
        team.call(lambda: found.add(np.geterr()["divide"]), 3)
    assert found == {"raise"}


def test_an_error_on_a_thread_of_pytorch_is_one_of_the_call(team):
    def work():
        raise ValueError("nothing works")

    with pytest.raises(ValueError, match="nothing works"):
        team.call(work, 3)


@pytest.mark.skipif(loops() is None, reason="no loops are compiled")
@pytest.mark.parametrize("is_too_large", [False, True])
def test_a_loop_runs_on_the_threads_of_pytorch_and_fails_in_the_call(team, is_too_large):
    from numba import njit

    from softmaxes._backends._numba._team import in_team
    from softmaxes._backends._numba._vectors import add_to

    @njit
    def loop(calls, is_too_large):
        add_to(calls, 0, 1)
        if is_too_large:
            raise MemoryError

    calls = np.zeros(1, np.int64)
    with pytest.raises(MemoryError) if is_too_large else nullcontext():
        in_team(loop)(team.parallel, team.limit(), calls, is_too_large)
    assert calls == 3


def test_a_fork_has_none_of_the_threads(team, monkeypatch):
    from softmaxes._backends import _torch_threads

    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert _torch_threads.team() is None
