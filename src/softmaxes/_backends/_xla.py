"""
What XLA calls, on the CPU, with memory of its own: functions of NumPy's arrays.

The formats are those of the structures of its foreign function interface [1]_, as far as `VERSION` has
them; each begins with its size and its extensions. `jax.ffi` has all else of the interface.

References
----------
.. [1] OpenXLA, "XLA FFI C API", xla/ffi/api/c_api.h in `jax.ffi.include_dir()`.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from itertools import count
from struct import Struct
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from softmaxes._arrays import Array

__all__ = ["DTYPES", "arrays_of", "registered"]

VERSION = 0, 1
DTYPES = {
    1: np.dtype(np.bool_),
    11: np.dtype(np.float32),
    12: np.dtype(np.float64),
    16: np.dtype(jnp.bfloat16),
}
EXECUTION = 3  # the stage of a call in which there is something to compute
INTERNAL = 13  # the code of an error

BUFFERS = "NPnPP"  # how many, their kinds, their addresses
FRAME = Struct(f"NPPPi{BUFFERS}{BUFFERS}")  # API, context, stage, arguments, results
BUFFER = Struct("NPiPnP")  # dtype, data, rank, lengths
EXTENSION = Struct("NiPP")  # kind, next, metadata
METADATA = Struct("NNPii")  # size, version
ERROR = Struct("NPPi")  # message, code
API = Struct("NPNPiiPP")  # version, internal, new error

_numbers = count()
_handlers: list[Any] = []  # of which XLA knows but the addresses
_Handler = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)


def registered(work: Callable[[int], None]) -> str:
    """Return a name by which XLA calls `work` of the address of a frame; an error becomes one of XLA's."""

    def handler(frame: int) -> Any:
        _, extension, api, _, stage, *_ = _read(FRAME, frame)
        if extension:
            _tell_version(extension)
        elif stage == EXECUTION:
            try:
                work(frame)
            except BaseException as error:  # noqa: BLE001  none finds its way through XLA
                return _new_error(api, f"{type(error).__name__}: {error}")
        return None

    name = f"softmaxes_{next(_numbers)}"
    _handlers.append(_Handler(handler))
    known = jax.ffi.pycapsule(_handlers[-1])
    jax.ffi.register_ffi_target(name, known, platform="cpu", api_version=1)
    return name


def _read(of: Struct, address: int) -> tuple[Any, ...]:
    return of.unpack(ctypes.string_at(address, of.size))


def arrays_of(frame: int) -> list[Array]:
    """Return the arguments and results of a call."""
    *_, n, _, arguments, _, _, m, _, results = _read(FRAME, frame)
    return [*_arrays(n, arguments), *_arrays(m, results)]


def _arrays(n: int, addresses: int) -> list[Array]:
    return [_array(address) for address in _read(Struct(f"{n}P"), addresses)]


def _array(address: int) -> Array:
    """Return the array that is the memory of a buffer."""
    _, _, kind, data, rank, lengths = _read(BUFFER, address)
    shape, dtype = _read(Struct(f"{rank}n"), lengths), DTYPES[kind]
    memory = (ctypes.c_char * (math.prod(shape) * dtype.itemsize)).from_address(data)
    return np.frombuffer(memory, dtype).reshape(shape)


def _tell_version(extension: int) -> None:
    _, _, _, metadata = _read(EXTENSION, extension)
    size, own, inner, *_ = _read(METADATA, metadata)
    written = METADATA.pack(size, own, inner, *VERSION)
    ctypes.memmove(metadata, written, METADATA.size)


def _new_error(api: int, message: str) -> Any:
    text = ctypes.create_string_buffer(message.encode())
    error = ERROR.pack(ERROR.size, 0, ctypes.addressof(text), INTERNAL)
    arguments = ctypes.create_string_buffer(error)
    *_, create = _read(API, api)
    return _Handler(create)(ctypes.addressof(arguments))
