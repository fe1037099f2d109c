"""
PyTorch's own threads, by the OpenMP library that it is linked with.

Between two calls they stay awake for a while: beside them, others would wait for a processor.

References
----------
.. [1] GCC, "GOMP_parallel", libgomp/parallel.c.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import torch

from softmaxes._backends._threads import Team

__all__ = ["team"]

_Work = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_PROCESS = os.getpid()  # a fork copies no threads, and the library would wait for them


def team() -> Team | None:
    """Return PyTorch's threads, of which this is one; None where they cannot be had."""
    return None if os.getpid() != _PROCESS else _team


def _at_once(work: Callable[[], None], workers: int) -> None:
    workers = min(workers, torch.get_num_threads())
    contexts, errors = [copy_context() for _ in range(workers)], []

    def share(_: Any) -> None:
        try:
            contexts.pop().run(work)
        except BaseException as error:  # noqa: BLE001  none finds its way through C
            errors.append(error)

    _parallel(_Work(share), None, workers, 0)
    for error in errors:
        raise error


def _entry_point() -> Any:
    """Return what runs a function on several threads [1]_; None where the library is not GNU's, nor like it."""
    try:
        parallel = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (AttributeError, OSError):
        return None
    parallel.argtypes = _Work, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint
    parallel.restype = None
    return parallel


_parallel = _entry_point()
_team = None
if _parallel is not None:
    _address = ctypes.cast(_parallel, ctypes.c_void_p).value or 0
    _team = Team(_at_once, _address, torch.get_num_threads)
