"""
What every function asks of its arguments: one library, real dtypes, valid axes, fitting shapes.

The only file that asks array-api-compat. Every error names the argument, what it was and what was
expected.
"""

from __future__ import annotations

import math
import numbers
import operator
import sys
from collections.abc import Callable
from contextlib import nullcontext
from types import NoneType
from typing import Any, NamedTuple, TypeAlias

import array_api_extra as xpx
from array_api_compat import array_namespace, is_array_api_obj
from array_api_compat import device as device_of
from array_api_compat import numpy as np

__all__ = [
    "Array",
    "Arrays",
    "Axes",
    "Axis",
    "Call",
    "Namespace",
    "checked",
    "checked_alike",
    "checked_like",
    "checked_slices",
    "checked_values",
    "device",
    "leaves",
    "library",
    "mapped",
    "quiet",
    "unwrapped",
    "zeros",
]

Array: TypeAlias = Any  # the array libraries have no common type yet
Namespace: TypeAlias = Any
Axes: TypeAlias = tuple[int, ...]
Axis: TypeAlias = int | Axes | None

# Narrower than float32: computed in float32, rounded once at the end.
NARROW = ("float16", "bfloat16", "float8")


class Kind(NamedTuple):
    """What an argument is made of, in words and in the dtypes of the standard."""

    adjective: str
    noun: str
    dtypes: tuple[str, ...]


# What becomes an array of the library of x, or of NumPy where there is no x.
PLAIN = (numbers.Number, np.bool, list, tuple)

REAL = Kind("real", "number", ("bool", "integral", "real floating"))
BOOLEAN = Kind("boolean", "boolean", ("bool",))


class Arrays(NamedTuple):
    """The arrays of a call, or their tangents; None where there is none."""

    x: Array
    where: Array = None
    temperature: Array = None
    weights: Array = None


class Call(NamedTuple):
    """
    A call whose arguments have been checked.

    The arrays have as many axes as x. Axes count from the end, so that others may stand in front.
    The work is done in the dtype `working`, the result is rounded to `dtype`. `given` is the shape
    of x as it came, `shape` after weights have broadcast it, `reduced` the latter without the axes,
    or with them of length 1 if the call says so.
    """

    arrays: Arrays
    axis: Axes
    working: Any
    dtype: Any
    given: tuple[int, ...]
    shape: tuple[int, ...]
    reduced: tuple[int, ...]
    xp: Namespace

    def shaped(self, a: Array, shape: tuple[int, ...]) -> Array:
        """Return a result in its shape."""
        return unwrapped(self.xp.reshape(a, shape), xp=self.xp)

    def in_working_precision(self, a: Array) -> Array:
        """Return a, unless it is a mask, in the dtype to compute in."""
        if _is_kind(a.dtype, "bool", self.xp):
            return a
        return self.xp.astype(a, self.working, copy=False)


def checked(
    x: Any,
    axis: Any,
    *,
    where: Any = None,
    temperature: Any = None,
    weights: Any = None,
    keepdims: Any = False,
) -> Call:
    """Return the arguments in canonical form, or raise TypeError or ValueError."""
    x, xp = _array("x", x)
    given = tuple(x.shape)
    where = _option("where", where, x, xp, BOOLEAN)
    temperature = _option("temperature", temperature, x, xp)
    weights = _option("weights", weights, x, xp)
    dtype = _result_dtype(xp, x=x, temperature=temperature, weights=weights)
    working = _working(dtype, xp)
    arrays = _promoted(Arrays(x, where, temperature, weights), working, xp)
    x = arrays.x
    if weights is not None:
        x = xp.broadcast_to(x, _broadcast("weights", arrays.weights, x))
    axes, shape = _axes(axis, x.ndim), tuple(x.shape)
    reduced = _reduced(shape, axes, keepdims)
    options = zip(Arrays._fields[1:], arrays[1:], strict=True)
    arrays = Arrays(x, *(_fitting(name, a, x, xp) for name, a in options))
    if not axes:  # every entry is a slice of its own, as is a scalar
        arrays = Arrays(*(a if a is None else xp.reshape(a, (*a.shape, 1)) for a in arrays))
        axes = (-1,)
    return Call(arrays, axes, working, dtype, given, shape, reduced, xp)


def checked_like(name: str, v: Any, call: Call, shape: tuple[int, ...]) -> Array:
    """Return a tangent or cotangent, checked: real, of the library and of the given shape."""
    v = _option(name, v, call.arrays.x, call.xp)
    if v is None:
        raise TypeError(f"{name} must be an array of shape {shape}, got None")
    v = _as_real(v, call.working, call.arrays.x, call.xp)
    if tuple(v.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(v.shape)}")
    return v


def checked_values(values: Any, call: Call) -> tuple[Call, Array]:
    """
    Return the call in a dtype that holds the values too, and these, checked, in the form of its x.

    Values have the shape of x, or broadcast to it, and may have more axes in front.
    """
    x, xp = call.arrays.x, call.xp
    values = _option("values", values, x, xp)
    working = _working(_result_dtype(xp, x=x, values=values), xp)
    values = _as_real(values, working, x, xp)
    n = len(call.shape)
    if not _broadcasts_to(tuple(values.shape)[max(0, values.ndim - n) :], call.shape):
        shapes = f"{tuple(values.shape)} does not broadcast to x of shape {call.shape}"
        raise ValueError(f"values of shape {shapes}, nor do its last {n} axes")
    shape = (1,) * (n - values.ndim) + tuple(values.shape) + (1,) * (x.ndim - n)
    return call._replace(working=working), xp.reshape(values, shape)


def checked_slices(name: str, tree: Any, call: Call) -> tuple[Call, Any]:
    """Return the call in a dtype that holds the tuple of arrays too, and these in slices of its x."""
    x, xp = call.arrays.x, call.xp
    tree = mapped(lambda leaf: _option(name, _array(name, leaf)[0], x, xp), tree)
    shape = _broadcast_shapes(*(tuple(a.shape) for a in leaves(tree)))
    if len(shape) > len(call.reduced) or not _broadcasts_to(shape, call.reduced):
        axes = f"x of shape {call.shape} has slices of shape {call.reduced}"
        raise ValueError(f"{name} of shape {shape} does not fit: {axes}")
    given = {f"{name}[{i}]": a for i, a in enumerate(leaves(tree))}
    working = _working(_result_dtype(xp, x=x, **given), xp)
    kept = tuple(1 if i - x.ndim in call.axis else n for i, n in enumerate(x.shape))

    def in_slices(a: Array) -> Array:
        return xp.reshape(xp.broadcast_to(a, call.reduced), kept)

    return call._replace(working=working), mapped(in_slices, tree)


def checked_alike(**trees: Any) -> tuple[list[Any], Namespace]:
    """Return tuples of arrays, in one dtype to compute in, that fit and are of one library."""
    found = {name: [_array(name, leaf) for leaf in leaves(tree)] for name, tree in trees.items()}
    (first, ((_, xp), *_)), *_ = found.items()
    for name, pairs in found.items():
        if any(own is not xp for _, own in pairs):
            others = " and ".join(library(own) for own in (xp, pairs[0][1]))
            raise TypeError(f"{first} and {name} must be arrays of one library, got {others}")
    shapes = {name: [tuple(a.shape) for a, _ in pairs] for name, pairs in found.items()}
    try:
        _broadcast_shapes(*(shape for of_one in shapes.values() for shape in of_one))
    except ValueError:
        were = " and ".join(f"{name} of shape {of_one[0]}" for name, of_one in shapes.items())
        raise ValueError(f"{were} do not broadcast") from None
    given = {f"{name}[{i}]": a for name, of in found.items() for i, (a, _) in enumerate(of)}
    working = _working(_result_dtype(xp, **given), xp)

    def alike(a: Array) -> Array:
        # An array of what may be a scalar; `asarray` of PyTorch would warn, or drop the gradient.
        return xp.astype(xp.reshape(a, a.shape), working, copy=False)

    return [mapped(alike, tree) for tree in trees.values()], xp


def zeros(shape: Any, *, dtype: Any, device: Any, xp: Any) -> Array:
    """Return zeros of a library, NumPy by default, in a dtype to compute in, float32 by default."""
    xp = np if xp is None else xp
    dtype = xp.float32 if dtype is None else _working(dtype, xp)
    a = unwrapped(xp.zeros(shape, dtype=dtype, device=device), xp=xp)
    if not _is_kind(a.dtype, "real floating", _namespace(a)):
        raise TypeError(f"dtype must be a real floating dtype, got {_name(a.dtype)}")
    return a


def unwrapped(a: Array, *, xp: Namespace) -> Array:
    """Return a result as a scalar where NumPy's own functions do, not as a 0-d array."""
    return a[()] if library(xp) == "numpy" else a


def library(xp: Namespace) -> str:
    """Return the name of an array library."""
    return str(xp.__name__).removeprefix("array_api_compat.")


def device(a: Array) -> Any:
    """Return the device of an array."""
    return a.device if library(_namespace(a)) == "torch" else device_of(a)


def quiet(xp: Namespace) -> Any:
    """Silence the warnings of NumPy: inf - inf and 0 / 0 are handled by the formulas."""
    return nullcontext() if library(xp) == "torch" else np.errstate(all="ignore")


def mapped(f: Callable[[Array], Array], tree: Any) -> Any:
    """Return the tuples of tuples of arrays with f applied to every array; None stays None."""
    if tree is None:
        return None
    if not isinstance(tree, tuple):
        return f(tree)
    parts = [mapped(f, part) for part in tree]
    return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)


def leaves(tree: Any) -> list[Array]:
    """Return the arrays of the tuples of tuples."""
    found: list[Array] = []
    mapped(found.append, tree)
    return found


def _array(name: str, value: Any, kind: Kind = REAL) -> tuple[Array, Namespace]:
    """Return an array of the kind, made by NumPy if it was none, and its library."""
    a = _made_by_numpy(name, value, kind) if isinstance(value, PLAIN) else value
    xp = _namespace(a)
    if xp is None or _name(type(a)) == "MaskedArray":
        raise TypeError(
            f"{name} must be an array, a sequence of {kind.noun}s or a {kind.noun}, "
            f"got {type(a).__module__}.{type(a).__qualname__}"
        )
    if not _is_kind(a.dtype, kind.dtypes, xp):
        was = repr(value) if isinstance(value, (int, float, complex)) else f"dtype {_name(a.dtype)}"
        raise TypeError(f"{name} must be {kind.adjective}, got {was}")
    return a, xp


def _namespace(a: Any) -> Namespace:
    """Return the library of an array, None of anything else."""
    # Asked first, since the compiler of PyTorch warns of the caches in array-api-compat.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(a, torch.Tensor):
        from array_api_compat import torch as xp

        return xp
    return array_namespace(a) if is_array_api_obj(a) else None


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


def _option(name: str, value: Any, x: Array, xp: Namespace, kind: Kind = REAL) -> Array:
    """Return an array of the library of x, a real number, or None."""
    if value is None:
        return None
    if isinstance(value, numbers.Real) and kind is REAL:
        return _number(name, value)
    a, own = _array(name, value, kind)
    if isinstance(value, PLAIN):
        return xp.asarray(a.tolist(), device=device(x))
    if own is not xp:
        raise TypeError(
            f"x and {name} must be arrays of one library, got {library(xp)} and {library(own)}"
        )
    return a


def _number(name: str, value: Any) -> float:
    """Return a real number as Python's, without NumPy if it is, since a compiler may look on."""
    try:
        return float(value if isinstance(value, (int, float)) else _array(name, value)[0])
    except OverflowError:
        raise ValueError(f"{name} must fit in float64, got a number that does not") from None


def _promoted(arrays: Arrays, dtype: Any, xp: Namespace) -> Arrays:
    """Return arrays of the dtype; x only where it is not floating, for a narrow one is kept."""
    x, where, temperature, weights = arrays
    if temperature is not None and _known_to_be_bad(temperature, xp):
        raise ValueError(f"temperature must lie in [0, inf], got {temperature}")
    if isinstance(weights, numbers.Real) and not _fits(weights, xp.finfo(dtype)):
        raise ValueError(f"weights must be 0 or a normal {_name(dtype)} number, got {weights}")
    if not _is_kind(x.dtype, "real floating", xp):
        x = xp.astype(x, dtype)  # before any subtraction: integers would wrap
    temperature, weights = (_as_real(a, dtype, x, xp) for a in (temperature, weights))
    return Arrays(x, where, temperature, weights)


def _result_dtype(xp: Namespace, **arrays: Any) -> Any:
    """Return the real floating dtype of the result; Python numbers do not count."""
    given = {name: a for name, a in arrays.items() if not isinstance(a, (numbers.Real, NoneType))}
    real = [a for a in given.values() if _is_kind(a.dtype, "real floating", xp)]
    if not real:
        return xpx.default_dtype(xp, "real floating")
    try:
        return xp.result_type(*given.values())
    except TypeError:  # integers and floats do not mix in every library
        pass
    try:
        default = [xpx.default_dtype(xp, "real floating")] if len(real) < len(given) else []
        return xp.result_type(*real, *default)
    except TypeError:
        dtypes = ", ".join(f"{name} of {_name(a.dtype)}" for name, a in given.items())
        raise TypeError(f"the arguments must have dtypes that promote, got {dtypes}") from None


def _working(dtype: Any, xp: Namespace) -> Any:
    """Return the dtype to compute in for a result of the dtype."""
    return xp.float32 if _name(dtype).startswith(NARROW) else dtype


def _as_real(a: Any, dtype: Any, x: Array, xp: Namespace) -> Array:
    """Return a number or an array as an array of the dtype; None stays None."""
    if a is None:
        return None
    with quiet(xp):
        if not isinstance(a, numbers.Real):
            return xp.astype(a, dtype, copy=False)
        return xp.asarray(a, dtype=dtype, device=device(x))


def _axes(axis: Any, ndim: int) -> Axes:
    """Return the axes counted from the end; a scalar has none to name but takes 0 and -1."""
    if axis is None:
        return tuple(range(-ndim, 0))
    try:
        axes = tuple(operator.index(a) for a in (axis if isinstance(axis, tuple) else (axis,)))
    except TypeError:
        raise TypeError(f"axis must be an int, a tuple of ints or None, got {axis!r}") from None
    if ndim == 0 and len(axes) == 1 and axes[0] in (-1, 0):
        return ()
    if any(not -ndim <= a < ndim for a in axes):
        raise ValueError(f"axis {axis} is out of bounds for x with {ndim} axes")
    axes = tuple(a - ndim if a >= 0 else a for a in axes)
    if len(set(axes)) < len(axes):
        raise ValueError(f"axis must not repeat an axis, got {axis}")
    return axes


def _reduced(shape: tuple[int, ...], axes: Axes, keepdims: Any) -> tuple[int, ...]:
    """Return the shape without the axes, or with them of length 1."""
    if not isinstance(keepdims, (bool, np.bool)):
        raise TypeError(f"keepdims must be a bool, got {keepdims!r}")
    ndim = len(shape)
    if keepdims:
        return tuple(1 if a - ndim in axes else n for a, n in enumerate(shape))
    return tuple(n for a, n in enumerate(shape) if a - ndim not in axes)


def _broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that all broadcast to; lengths may be symbols of a compiler."""
    ndim = max(0, *map(len, shapes))
    padded = ((1,) * (ndim - len(shape)) + shape for shape in shapes)
    return tuple(_common_length(lengths) for lengths in zip(*padded, strict=True))


def _common_length(lengths: tuple[int, ...]) -> int:
    length, *others = [n for n in lengths if n != 1] or [1]
    if any(n != length for n in others):
        raise ValueError(f"the lengths {lengths} do not broadcast")
    return length


def _broadcast(name: str, a: Array, x: Array) -> tuple[int, ...]:
    try:
        return _broadcast_shapes(tuple(a.shape), tuple(x.shape))
    except ValueError:
        raise _misfit(name, a, x) from None


def _broadcasts_to(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Tell whether a shape broadcasts to another."""
    try:
        return _broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def _fitting(name: str, a: Array, x: Array, xp: Namespace) -> Array:
    """Return the option with as many axes as x, once it is known to broadcast to x."""
    if a is None:
        return None
    if _broadcast(name, a, x) != tuple(x.shape):
        raise _misfit(name, a, x)
    return xp.reshape(a, (1,) * (x.ndim - a.ndim) + tuple(a.shape))


def _misfit(name: str, a: Array, x: Array) -> ValueError:
    shapes = f"{tuple(a.shape)} does not broadcast to x of shape {tuple(x.shape)}"
    return ValueError(f"{name} of shape {shapes}")


def _known_to_be_bad(temperature: Any, xp: Namespace) -> bool:
    """Tell whether a temperature is negative or NaN; False where its values are not known yet."""
    if isinstance(temperature, numbers.Real):
        return not float(temperature) >= 0.0
    if library(xp) == "dask.array" or (library(xp) == "torch" and xp.compiler.is_compiling()):
        return False
    try:
        if library(xp) == "jax.numpy":  # a comparison would be traced even where the values are not
            temperature, xp = np.asarray(temperature), np
        return not xp.all(temperature >= 0)
    except (TypeError, RuntimeError):  # traced by a compiler, or batched by PyTorch
        return False


def _fits(number: Any, limits: Any) -> bool:
    size = abs(float(number))
    return not 0.0 < size < float(limits.smallest_normal) and not limits.max < size < math.inf


def _is_kind(dtype: Any, kind: str | tuple[str, ...], xp: Namespace) -> bool:
    if _name(dtype).startswith(NARROW):  # NumPy knows some of these only by an extension
        return "real floating" in kind
    try:
        return bool(xp.isdtype(dtype, kind))
    except TypeError:
        return False


def _name(thing: Any) -> str:
    """Return the last part of a dtype's, a type's or a module's name."""
    return str(getattr(thing, "__name__", thing)).rpartition(".")[2]
