"""What an argument is made of: its library, its kind, the dtype to compute in, what is known of it."""

from __future__ import annotations

import numbers
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from types import ModuleType, NoneType
from typing import Any, NamedTuple, TypeAlias

import array_api_extra as xpx
from array_api_compat import array_namespace, is_array_api_obj
from array_api_compat import device as device_of
from array_api_compat import numpy as np

__all__ = [
    "Array",
    "Namespace",
    "Scores",
    "as_array",
    "as_option",
    "as_real",
    "device",
    "familiar",
    "is_compiled_by_torch",
    "is_kind",
    "is_mask_of",
    "known",
    "last_name",
    "library",
    "namespace_of",
    "quiet",
    "refuse_strangers",
    "replaced",
    "result_dtype",
    "unwrapped",
    "working_dtype",
]

Array: TypeAlias = Any  # the array libraries have no common type yet
Namespace: TypeAlias = Any

# The classes of JAX's arrays that are there, as they come: those that it traces have others.
EAGER_JAX: set[type] = set()

# Narrower than float32: computed in float32, rounded once at the end.
NARROW = ("float16", "bfloat16", "float8")

# What libraries raise of dtypes that do not promote.
NOT_PROMOTED = TypeError, ValueError


class Kind(NamedTuple):
    """What an argument is made of, in words and in the dtypes of the standard."""

    adjective: str
    noun: str
    dtypes: tuple[str, ...]


class Scores(NamedTuple):
    """The scores of a call, under the name that the function gives them, and their library."""

    name: str
    array: Array
    xp: Namespace


# What becomes an array of the library of x, or of NumPy where there is no x.
PLAIN = (numbers.Number, np.bool, list, tuple)

REAL = Kind("real", "number", ("bool", "integral", "real floating"))
KINDS = {
    "where": Kind("boolean", "boolean", ("bool",)),
    "labels": Kind("integer or real floating", "number", ("integral", "real floating")),
}
REQUIRED = ("labels", "q_logits")  # by the functions that have them


def as_array(name: str, value: Any, kind: Kind = REAL) -> tuple[Array, Namespace]:
    """Return an array of the kind, made by NumPy if it was none, and its library."""
    a = _made_by_numpy(name, value, kind) if isinstance(value, PLAIN) else value
    xp = namespace_of(a)
    if xp is None or last_name(type(a)) == "MaskedArray":
        raise TypeError(
            f"{name} must be an array, a sequence of {kind.noun}s or a {kind.noun}, "
            f"got {type(a).__module__}.{type(a).__qualname__}{_advice(a)}"
        )
    if not is_kind(a.dtype, kind.dtypes, xp):
        was = (
            repr(value)
            if isinstance(value, (int, float, complex))
            else f"dtype {last_name(a.dtype)}"
        )
        raise TypeError(f"{name} must be {kind.adjective}, got {was}")
    return a, xp


def _advice(a: Any) -> str:
    """Return what to do with an array whose axes have names, nothing for anything else."""
    if not type(a).__module__.startswith("xarray."):
        return ""
    return "; call through xarray.apply_ufunc, or hand over the .data of a DataArray"


def namespace_of(a: Any) -> Namespace:
    """Return the library of an array, None of anything else."""
    if type(a) is np.ndarray:
        return np
    # Asked first, since the compiler of PyTorch warns of the caches in array-api-compat.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(a, torch.Tensor):
        from array_api_compat import torch as xp

        return xp
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(a, jax.Array):
        return jax.numpy
    return array_namespace(a) if is_array_api_obj(a) else None


def familiar(a: Any) -> Namespace:
    """Return the library of an array of its own, of which all is in its dtype and shape; None of others."""
    if type(a) is np.ndarray:
        return np
    jax: Any = sys.modules.get("jax")
    if type(a) in EAGER_JAX:
        return jax.numpy
    if jax is not None and isinstance(a, jax.Array):
        if not isinstance(a, jax.core.Tracer):
            EAGER_JAX.add(type(a))
        return jax.numpy
    torch = sys.modules.get("torch")
    if torch is None or type(a) is not torch.Tensor or is_compiled_by_torch(a):
        return None  # its compiler warns of the caches in which the answers are
    return namespace_of(a)


def is_mask_of(where: Any, x: Any) -> bool:
    """Tell whether scores and their mask are arrays of NumPy, of one shape."""
    are_arrays = type(where) is type(x) is np.ndarray
    return are_arrays and where.dtype == bool and where.shape == x.shape


def is_compiled_by_torch(a: Any) -> bool:
    """Tell whether the compiler of PyTorch looks at what is done with a tensor."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and type(a) is torch.Tensor and torch.compiler.is_compiling()


def _made_by_numpy(name: str, value: Any, kind: Kind) -> Array:
    try:
        a = np.asarray(value)
        if a.dtype == object and all(isinstance(entry, numbers.Real) for entry in a.flat):
            a = np.asarray(a, dtype=float)  # large integers, fractions
        return a
    except OverflowError:
        raise ValueError(f"{name} must fit in float64, got a number that does not") from None
    except ValueError as error:
        raise ValueError(
            f"{name} must be a rectangular sequence of {kind.noun}s: {error}"
        ) from None
    except (TypeError, RuntimeError) as error:  # arrays of another library among the entries
        raise TypeError(f"{name} must be an array or a sequence of {kind.noun}s: {error}") from None


def as_option(name: str, value: Any, scores: Scores) -> Array:
    """Return an array of the library of the scores, a real number, or None."""
    if value is None and name not in REQUIRED:
        return None
    kind = KINDS.get(name, REAL)
    if isinstance(value, numbers.Real) and kind is REAL:
        return _number(name, value)
    a, own = as_array(name, value, kind)
    if isinstance(value, PLAIN):
        return scores.xp.asarray(a.tolist(), device=device(scores.array))
    refuse_strangers(name, a, own, scores)
    return a


def refuse_strangers(name: str, a: Array, own: Namespace, scores: Scores) -> None:
    """Raise an error for an array of another library or device than the scores."""
    names = f"{scores.name} and {name}"
    if own is not scores.xp:
        libraries = f"{library(scores.xp)} and {library(own)}"
        raise TypeError(f"{names} must be arrays of one library, got {libraries}")
    if a.ndim and _are_apart(a, scores.array, own):  # a scalar may stay on the host
        devices = f"{device(scores.array)} and {device(a)}"
        raise ValueError(f"{names} must be arrays on one device, got {devices}")


def _are_apart(a: Array, b: Array, xp: Namespace) -> bool:
    """Tell whether two arrays are tied to two devices."""
    if library(xp) != "jax.numpy":
        return bool(getattr(a, "device", None) != getattr(b, "device", None))
    try:  # JAX moves what is not committed, and refuses itself what is on several
        places = [one.devices() for one in (a, b) if one.committed]
    except TypeError:  # traced
        return False
    return [len(place) for place in places] == [1, 1] and places[0] != places[1]


def _number(name: str, value: Any) -> float:
    """Return a real number as Python's, without NumPy if it is, since a compiler may look on."""
    try:
        return float(value if isinstance(value, (int, float)) else as_array(name, value)[0])
    except OverflowError:
        raise ValueError(f"{name} must fit in float64, got a number that does not") from None


def result_dtype(xp: Namespace, **arrays: Any) -> Any:
    """Return the real floating dtype of the result; Python numbers do not count."""
    given = {name: a for name, a in arrays.items() if not isinstance(a, (numbers.Real, NoneType))}
    real = [a for a in given.values() if is_kind(a.dtype, "real floating", xp)]
    if not real:
        return xpx.default_dtype(xp, "real floating")
    try:
        return xp.result_type(*given.values())
    except NOT_PROMOTED:  # integers and floats do not mix in every library
        pass
    try:
        default = [xpx.default_dtype(xp, "real floating")] if len(real) < len(given) else []
        return xp.result_type(*real, *default)
    except NOT_PROMOTED:
        dtypes = ", ".join(f"{name} of {last_name(a.dtype)}" for name, a in given.items())
        raise TypeError(f"the arguments must have dtypes that promote, got {dtypes}") from None


def working_dtype(dtype: Any, xp: Namespace) -> Any:
    """Return the dtype to compute in for a result of the dtype."""
    return xp.float32 if last_name(dtype).startswith(NARROW) else dtype


def as_real(a: Any, dtype: Any, scores: Scores) -> Array:
    """Return a number or an array as an array of the dtype; None stays None."""
    if a is None:
        return None
    with quiet(scores.xp):
        if not isinstance(a, numbers.Real):
            return scores.xp.astype(a, dtype, copy=False)
        if library(scores.xp) == "jax.numpy":
            return np.asarray(a, dtype=dtype)  # JAX puts it beside the scores, in less time
        return scores.xp.asarray(a, dtype=dtype, device=device(scores.array))


def known(condition: Callable[..., Any], *arrays: Array, xp: Namespace) -> bool:
    """Tell whether condition(*arrays, xp=xp) holds; False where the values are not known yet."""
    if library(xp) == "dask.array" or (library(xp) == "torch" and xp.compiler.is_compiling()):
        return False
    try:
        if library(xp) == "jax.numpy":  # a comparison would be traced even where the values are not
            arrays, xp = tuple(map(np.asarray, arrays)), np
        return bool(condition(*arrays, xp=xp))
    except (TypeError, RuntimeError):  # traced by a compiler, or batched by PyTorch
        return False


def unwrapped(a: Array, *, xp: Namespace) -> Array:
    """Return a result as a scalar where NumPy's own functions do, not as a 0-d array."""
    return a[()] if library(xp) == "numpy" else a


def is_kind(dtype: Any, kind: str | tuple[str, ...], xp: Namespace) -> bool:
    return (_is_kind_of_numpy if isinstance(dtype, np.dtype) else _is_kind)(dtype, kind, xp)


def _is_kind(dtype: Any, kind: str | tuple[str, ...], xp: Namespace) -> bool:
    if last_name(dtype).startswith(NARROW):  # NumPy knows some of these only by an extension
        return "real floating" in kind
    try:
        return bool(xp.isdtype(dtype, kind))
    except TypeError:
        return False


_is_kind_of_numpy = cache(_is_kind)  # the compiler of PyTorch warns of caches


def library(xp: Namespace) -> str:
    """Return the name of an array library."""
    return str(xp.__name__).removeprefix("array_api_compat.")


def replaced(xp: Any, **functions: Callable[..., Array]) -> Namespace:
    """Return the namespace of a library, with functions in the place of its own."""
    own = ModuleType(xp.__name__)
    vars(own).update(vars(xp), **functions)
    return own


def device(a: Array) -> Any:
    """Return the device of an array."""
    return a.device if library(namespace_of(a)) == "torch" else device_of(a)


def quiet(xp: Namespace) -> Any:
    """Silence the warnings of NumPy: inf - inf and 0 / 0 are handled by the formulas."""
    return nullcontext() if library(xp) == "torch" else np.errstate(all="ignore")


def last_name(thing: Any) -> str:
    """Return the last part of a dtype's, a type's or a module's name."""
    return (_last_name_in_numpy if isinstance(thing, np.dtype) else _last_name)(thing)


def _last_name(thing: Any) -> str:
    return str(getattr(thing, "__name__", thing)).rpartition(".")[2]


_last_name_in_numpy = cache(_last_name)
