"""The array libraries that are installed, and how each one calls our functions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

import softmaxes as sm

__all__ = ["NAMESPACES", "Backend", "installed", "namespace"]

Array = Any

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


class Backend:
    """An array library, with the derivatives that `softmaxes` itself offers there."""

    flushes_subnormals = False

    def __init__(self, name: str, xp: Any) -> None:
        self.name, self.xp = name, xp

    def session(self) -> AbstractContextManager[Any]:
        """Return the context to compute in."""
        return nullcontext()

    def dtype(self, name: str) -> Any:
        """Return the library's dtype of that name, or None."""
        return getattr(self.xp, name, None)

    def array(self, x: object, dtype: str) -> Array:
        """Make an array of the library."""
        return self.xp.asarray(np.asarray(x), dtype=self.dtype(dtype))

    def numpy(self, y: Array) -> NDArray[np.float64]:
        """Read an array back; every format we measure is exact in float64."""
        if y.dtype == self.dtype("bfloat16"):
            y = self.xp.astype(y, self.xp.float32)
        return np.asarray(y).astype(np.float64)

    def value(self, function: Callable[..., Array], x: Array, **options: Any) -> Array:
        """Return function(x)."""
        return function(x, **options)

    def jvp(self, function: Callable[..., Array], x: Array, v: Array, **options: Any) -> Array:
        """Return J v."""
        return sm.jvp(function, x, v, **options)[1]

    def vjp(self, function: Callable[..., Array], x: Array, u: Array, **options: Any) -> Array:
        """Return the transpose of J, times u."""
        return sm.vjp(function, x, **options)[1](u)

    def hvp(self, function: Callable[..., Array], x: Array, v: Array, **options: Any) -> Array:
        """Return the Hessian of the sum of function(x), times v."""
        return sm.hvp(function, x, v, **options)


class Numpy(Backend):
    """NumPy, whose bfloat16 comes from ml_dtypes."""

    def dtype(self, name: str) -> Any:
        if name != "bfloat16":
            return super().dtype(name)
        try:
            return np.dtype(import_module("ml_dtypes").bfloat16)
        except ImportError:
            return None


def installed() -> tuple[Backend, ...]:
    """Return every backend that can be measured here."""
    found: list[Backend] = [Numpy("numpy", namespace("numpy"))]
    if xp := namespace("array-api-strict"):
        found.append(Backend("array-api-strict", xp))
    if namespace("jax"):
        from . import _jax

        found.extend(_jax.backends())
    if xp := namespace("torch"):
        found.append(Backend("torch", xp))
    return tuple(found)
