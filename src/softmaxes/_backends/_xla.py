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
from functools import cache
from itertools import count
from struct import Struct
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from softmaxes._arrays import Array

__all__ = ["DTYPES", "HANDLER", "arrays_of", "numbered", "registered"]

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
FRAME = Struct(
    f"NPPPi{BUFFERS}{BUFFERS}{BUFFERS}"
)  # API, context, stage, arguments, results, attributes
BUFFER = Struct("NPiPnP")  # dtype, data, rank, lengths
ATTRIBUTE = Struct("iNP")  # dtype, length, numbers
EXTENSION = Struct("NiPP")  # kind, next, metadata
METADATA = Struct("NNPii")  # size, version
ERROR = Struct("NPPi")  # message, code
API = Struct("NPNPiiPP")  # version, internal, new error

_Handler = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
_names = map("softmaxes_{}".format, count())
_works: list[Callable[[int], None]] = []


def numbered(work: Callable[[int], None]) -> int:
    """Return the number for which the handler calls `work` of the address of a frame."""
    _works.append(work)
    return len(_works) - 1


def _handle(frame: int) -> Any:
    """Do what a frame asks for: the work of the first number of its only attribute."""
    _, extension, api, _, stage, *_ = _read(FRAME, frame)
    if extension:
        _tell_version(extension)
    elif stage == EXECUTION:
        try:
            _works[_number(frame)](frame)
        except BaseException as error:  # noqa: BLE001  none finds its way through XLA
            return _new_error(api, f"{type(error).__name__}: {error}")
    return None


_handler = _Handler(_handle)
HANDLER: int = ctypes.cast(_handler, ctypes.c_void_p).value or 0  # its address


@cache
def registered(handler: int) -> str:
    """Return the name by which XLA calls a handler, that of this module or one for which it does what is left."""
    name = next(_names)
    known = jax.ffi.pycapsule(ctypes.c_void_p(handler))
    jax.ffi.register_ffi_target(name, known, platform="cpu", api_version=1)
    return name


def _read(of: Struct, address: int) -> tuple[Any, ...]:
    return of.unpack(ctypes.string_at(address, of.size))


def arrays_of(frame: int) -> list[Array]:
    """Return the arguments and results of a call."""
    fields = _read(FRAME, frame)
    (n, _, arguments), (m, _, results) = fields[7:10], fields[12:15]
    return [*_arrays(n, arguments), *_arrays(m, results)]


def _number(frame: int) -> int:
    *_, attributes = _read(FRAME, frame)
    (only,) = _read(Struct("P"), attributes)
    _, _, numbers = _read(ATTRIBUTE, only)
    number: int
    (number,) = _read(Struct("q"), numbers)
    return number


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
