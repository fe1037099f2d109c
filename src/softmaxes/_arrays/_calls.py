"""The arguments of a call, in canonical form or refused."""

from __future__ import annotations

import math
import numbers
from typing import Any, NamedTuple

from array_api_compat import is_dask_array, is_jax_array
from array_api_compat import numpy as np

from softmaxes._arrays._kinds import (
    BOOLEAN,
    Array,
    Namespace,
    as_array,
    as_option,
    as_real,
    is_kind,
    last_name,
    result_dtype,
    unwrapped,
    working_dtype,
)
from softmaxes._arrays._shapes import (
    Axes,
    axes_from_the_end,
    broadcast_shape,
    fitting,
    reduced_shape,
)

__all__ = ["Arrays", "Call", "checked", "checked_like"]


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
        if is_kind(a.dtype, "bool", self.xp):
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
    x, xp = as_array("x", x)
    given = tuple(x.shape)
    where = as_option("where", where, x, xp, BOOLEAN)
    temperature = as_option("temperature", temperature, x, xp)
    weights = as_option("weights", weights, x, xp)
    dtype = result_dtype(xp, x=x, temperature=temperature, weights=weights)
    working = working_dtype(dtype, xp)
    arrays = _promoted(Arrays(x, where, temperature, weights), working, xp)
    x = arrays.x
    if weights is not None:
        x = xp.broadcast_to(x, broadcast_shape("weights", arrays.weights, x))
    axes, shape = axes_from_the_end(axis, x.ndim), tuple(x.shape)
    reduced = reduced_shape(shape, axes, keepdims)
    options = zip(Arrays._fields[1:], arrays[1:], strict=True)
    arrays = Arrays(x, *(fitting(name, a, x, xp) for name, a in options))
    if not axes:  # every entry is a slice of its own, as is a scalar
        arrays = Arrays(*(a if a is None else xp.reshape(a, (*a.shape, 1)) for a in arrays))
        axes = (-1,)
    return Call(arrays, axes, working, dtype, given, shape, reduced, xp)


def checked_like(name: str, v: Any, call: Call, shape: tuple[int, ...]) -> Array:
    """Return a tangent or cotangent, checked: real, of the library and of the given shape."""
    v = as_option(name, v, call.arrays.x, call.xp)
    if v is None:
        raise TypeError(f"{name} must be an array of shape {shape}, got None")
    v = as_real(v, call.working, call.arrays.x, call.xp)
    if tuple(v.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(v.shape)}")
    return v


def _promoted(arrays: Arrays, dtype: Any, xp: Namespace) -> Arrays:
    """Return arrays of the dtype; x only where it is not floating, for a narrow one is kept."""
    x, where, temperature, weights = arrays
    if temperature is not None and _known_to_be_bad(temperature, xp):
        raise ValueError(f"temperature must lie in [0, inf], got {temperature}")
    if isinstance(weights, numbers.Real) and not _fits(weights, xp.finfo(dtype)):
        raise ValueError(f"weights must be 0 or a normal {last_name(dtype)} number, got {weights}")
    if not is_kind(x.dtype, "real floating", xp):
        x = xp.astype(x, dtype)  # before any subtraction: integers would wrap
    temperature, weights = (as_real(a, dtype, x, xp) for a in (temperature, weights))
    return Arrays(x, where, temperature, weights)


def _known_to_be_bad(temperature: Any, xp: Namespace) -> bool:
    """Tell whether a temperature is negative or NaN; False where its values are not known yet."""
    if isinstance(temperature, numbers.Real):
        return not float(temperature) >= 0.0
    if is_dask_array(temperature):
        return False
    try:
        if is_jax_array(temperature):  # a comparison would be traced even where the values are not
            temperature, xp = np.asarray(temperature), np
        return not xp.all(temperature >= 0)
    except TypeError:  # traced by a compiler
        return False


def _fits(number: Any, limits: Any) -> bool:
    size = abs(float(number))
    return not 0.0 < size < float(limits.smallest_normal) and not limits.max < size < math.inf
