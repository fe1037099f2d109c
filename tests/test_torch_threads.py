"""PyTorch's threads, lent to NumPy."""

import os
import threading

import numpy as np
import pytest


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

    team(work, 8)
    assert len(used) == 3
    assert threading.get_ident() in used


def test_every_thread_has_the_context_of_the_call(team):
    found = set()
    with np.errstate(divide="raise"):
        team(lambda: found.add(np.geterr()["divide"]), 3)
    assert found == {"raise"}


def test_an_error_on_a_thread_of_pytorch_is_one_of_the_call(team):
    def work():
        raise ValueError("nothing works")

    with pytest.raises(ValueError, match="nothing works"):
        team(work, 3)


def test_a_fork_has_none_of_the_threads(team, monkeypatch):
    from softmaxes._backends import _torch_threads

    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert _torch_threads.team() is None
