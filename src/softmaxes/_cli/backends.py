"""The array libraries that are installed, and how each one calls our functions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from array_api_compat import is_numpy_namespace
from numpy.typing import NDArray

import softmaxes as sm

__all__ = ["NAMESPACES", "Backend", "installed", "namespace", "value"]

Array = Any
Function = Callable[..., Array]
Call = Callable[..., Array]

# name on the command line -> the module that speaks the array API standard
NAMESPACES = {
    "numpy": "array_api_compat.numpy",
    "array-api-strict": "array_api_strict",
    "jax": "jax.numpy",
    "torch": "array_api_compat.torch",
    "dask": "array_api_compat.dask.array",
    "cupy": "array_api_compat.cupy",
}


def namespace(name: str) -> Any:
    """Import a library's namespace; None where it is not installed."""
    try:
        return import_module(NAMESPACES[name])
    except ImportError:
        return None


@dataclass(frozen=True)
class Backend:
    """
    An array library, and how to call a function and its derivatives there.

    The four callables take the function, the scores, for a derivative a vector, and what else the
    function takes; its options are keyword arguments. They return function(x), J v, the transposed
    J times u, and the Hessian of the sum of function(x) times v.
    """

    name: str
    value: Call
    jvp: Call
    vjp: Call
    hvp: Call
    xp: Any
    session: Callable[[], AbstractContextManager[Any]] = nullcontext  # the context to compute in
    flushes_subnormals: bool = False
    traces: bool = False  # functions are compiled before they see a value

    def dtype(self, name: str) -> Any:
        """Return the library's dtype of that name, or None."""
        if name == "bfloat16" and is_numpy_namespace(self.xp):
            return _ml_dtypes_bfloat16()
        return getattr(self.xp, name, None)

    def array(self, x: object, dtype: str) -> Array:
        """Make an array of the library."""
        own = np.array(x)  # a copy: PyTorch warns of an array that it may not write to
        return self.xp.asarray(own, dtype=self.dtype(dtype))

    def numpy(self, y: Array) -> NDArray[np.float64]:
        """Read an array back; every dtype that is measured is exact in float64."""
        if str(y.dtype).endswith("bfloat16"):  # not known to NumPy
            y = self.xp.astype(y, self.xp.float32)
        return np.asarray(y).astype(np.float64)


def installed() -> tuple[Backend, ...]:
    """Return every backend that can be measured here."""
    libraries = ("numpy", "array-api-strict", "torch")
    found = [Backend(n, value, _jvp, _vjp, _hvp, xp) for n in libraries if (xp := namespace(n))]
    if namespace("jax"):
        from softmaxes._cli import _jax

        found.extend(_jax.backends())
    return tuple(found)


def value(function: Function, x: Array, *rest: Array, **options: Any) -> Array:
    """Return the value of a function, whatever the library."""
    return function(x, *rest, **options)


def _jvp(function: Function, x: Array, v: Array, *rest: Array, **options: Any) -> Array:
    return sm.jvp(function, x, v, *rest, **options)[1]


def _vjp(function: Function, x: Array, u: Array, *rest: Array, **options: Any) -> Array:
    return sm.vjp(function, x, *rest, **options)[1](u)


def _hvp(function: Function, x: Array, v: Array, *rest: Array, **options: Any) -> Array:
    return sm.hvp(function, x, v, *rest, **options)


def _ml_dtypes_bfloat16() -> Any:
    try:
        return np.dtype(import_module("ml_dtypes").bfloat16)
    except ImportError:
        return None
