"""The arguments of a call, in canonical form or refused."""

from __future__ import annotations

import math
import numbers
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from softmaxes._arrays._kinds import (
    REQUIRED,
    Array,
    Namespace,
    Scores,
    as_array,
    as_option,
    as_real,
    familiar,
    is_kind,
    is_mask_of,
    known,
    last_name,
    result_dtype,
    unwrapped,
    working_dtype,
)
from softmaxes._arrays._labels import checked_smoothing, fitting_labels
from softmaxes._arrays._shapes import (
    Axes,
    Axis,
    axes_from_the_end,
    broadcast,
    broadcast_shape,
    fitting,
    reduced_shape,
    shape_of,
)
from softmaxes._arrays._trees import mapped

__all__ = [
    "Arrays",
    "Call",
    "Outline",
    "call_without_scores",
    "checked",
    "checked_like",
    "is_alone",
    "outlined",
]

# Of scores alone: dtype, shape, axis, keepdims, library. All calls that share it are worked alike.
Outline: TypeAlias = tuple[Any, tuple[int, ...], Axis, bool, Namespace]


class Arrays(NamedTuple):
    """The arrays of a call, or their tangents; None where there is none."""

    x: Array
    where: Array = None
    temperature: Array = None
    weights: Array = None
    labels: Array = None  # integers, one for each slice, or weights like x
    label_smoothing: Array = None
    q_logits: Array = None


class Call(NamedTuple):
    """
    A call whose arguments have been checked.

    The arrays have as many axes as x, the scores, whose name is `name`. Axes count from the end, so
    that others may stand in front. The work is done in the dtype `working`, the result is rounded
    to `dtype`. `given` is the shape of x as it came, `shape` after others have broadcast it,
    `reduced` the latter without the axes, or with them of length 1 if the call says so.
    """

    name: str
    arrays: Arrays
    axis: Axes
    working: Any
    dtype: Any
    given: tuple[int, ...]
    shape: tuple[int, ...]
    reduced: tuple[int, ...]
    xp: Namespace

    @property
    def scores(self) -> Scores:
        return Scores(self.name, self.arrays.x, self.xp)

    def shaped(self, a: Array, shape: tuple[int, ...]) -> Array:
        """Return a result in its shape, where lengths may not be known."""
        if None not in shape:
            a = a if a.shape == shape else self.xp.reshape(a, shape)
        elif a.ndim > len(shape):
            a = self.xp.squeeze(a, axis=self.axis)
        return unwrapped(a, xp=self.xp)

    def in_working_precision(self, a: Array) -> Array:
        """Return a, unless it is a mask or class numbers, in the dtype to compute in."""
        if is_kind(a.dtype, ("bool", "integral"), self.xp):
            return a
        return self.xp.astype(a, self.working, copy=False)


def checked(*, axis: Any, keepdims: Any = False, **arguments: Any) -> Call:
    """
    Return the arguments in canonical form, or raise TypeError or ValueError.

    The first of the arguments are the scores, under the name that the function gives them.
    """
    (name, x), *others = arguments.items()
    options = dict(others)
    call = _of_known(name, x, options, axis, keepdims)
    return _of_any(name, x, options, axis, keepdims) if call is None else call


def _of_known(name: str, x: Any, options: dict[str, Any], axis: Any, keepdims: Any) -> Call | None:
    """Return the call of which nothing but the outline is to be checked: of scores, a mask like them, a number."""
    if any(option in REQUIRED for option in options) or (xp := familiar(x)) is None:
        return None
    where, temperature = options.get("where"), options.get("temperature")
    if where is not None and not is_mask_of(where, x):
        return None
    if temperature is not None and not (type(temperature) is float and temperature >= 0.0):
        return None
    if not is_alone(axis, keepdims, options | {"where": None, "temperature": None}):
        return None
    call = call_without_scores(name, outlined(x, axis, keepdims, xp))
    if call is None:
        return None
    scores = Scores(name, x, xp)
    t = fitting("temperature", as_real(temperature, call.working, scores), scores)
    return call._replace(arrays=Arrays(x, where, t))


def is_alone(axis: Any, keepdims: Any, options: dict[str, Any]) -> bool:
    """Tell whether nothing is asked besides scores, along axes that are plain numbers."""
    for option in options.values():
        if option is not None:
            return False
    return type(keepdims) is bool and (axis is None or type(axis) is int or _are_ints(axis))


def _are_ints(axes: Any) -> bool:
    return type(axes) is tuple and axes != () and all(type(axis) is int for axis in axes)


def outlined(x: Any, axis: Any, keepdims: Any, xp: Namespace) -> Outline:
    """Return all that is to be checked of an array of a familiar library."""
    return x.dtype, tuple(x.shape), axis, keepdims, xp


@lru_cache(maxsize=1024)
def call_without_scores(name: str, outline: Outline) -> Call | None:
    """Return the call with an outline, None if its scores are a scalar or not real floating."""
    dtype, shape, axis, keepdims, xp = outline
    if not shape or not is_kind(dtype, "real floating", xp):
        return None
    dtype = dtype.newbyteorder("=") if hasattr(dtype, "newbyteorder") else dtype
    axes = axes_from_the_end(axis, name, len(shape))
    reduced = reduced_shape(shape, axes, keepdims)
    working = working_dtype(dtype, xp)
    return Call(name, Arrays(None), axes, working, dtype, shape, shape, reduced, xp)


def _of_any(name: str, x: Any, options: dict[str, Any], axis: Any, keepdims: Any) -> Call:
    """Return the call of anything, converted and aligned, or refuse it."""
    scores = Scores(name, *as_array(name, x))
    given, xp = shape_of(scores.array), scores.xp
    options = {option: as_option(option, value, scores) for option, value in options.items()}
    real = {option: a for option, a in options.items() if not _selects(option, a, xp)}
    dtype = result_dtype(xp, **{name: scores.array}, **real)
    working = working_dtype(dtype, xp)
    options |= _promoted(real, working, scores)
    if not is_kind(scores.array.dtype, "real floating", xp):
        # Before any subtraction, as integers would wrap; a narrow array is kept.
        scores = scores._replace(array=xp.astype(scores.array, working))
    arrays, axes = _aligned(scores, axis, options)
    shape = shape_of(arrays.x)
    reduced = reduced_shape(shape, axes, keepdims)
    call = Call(name, arrays, axes, working, dtype, given, shape, reduced, xp)
    return call if axes else _entry_by_entry(call)


def checked_like(name: str, v: Any, call: Call, shape: tuple[int, ...]) -> Array:
    """Return a tangent or cotangent, checked: real, of the library and of the given shape."""
    v = as_option(name, v, call.scores)
    if v is None:
        raise TypeError(f"{name} must be an array of shape {shape}, got None")
    v = as_real(v, call.working, call.scores)
    if shape_of(v) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(v.shape)}")
    return v


def _selects(option: str, a: Any, xp: Namespace) -> bool:
    """Tell a mask and class numbers, which have no part in the arithmetic."""
    return option == "where" or (option == "labels" and is_kind(a.dtype, "integral", xp))


def _promoted(real: dict[str, Any], dtype: Any, scores: Scores) -> dict[str, Array]:
    """Return numbers and arrays as arrays of the dtype, once they are known to be good."""
    temperature, weights = real.get("temperature"), real.get("weights")
    if temperature is not None and _known_to_be_bad(temperature, scores.xp):
        raise ValueError(f"temperature must lie in [0, inf], got {temperature}")
    if isinstance(weights, numbers.Real) and not _fits(weights, scores.xp.finfo(dtype)):
        raise ValueError(f"weights must be 0 or a normal {last_name(dtype)} number, got {weights}")
    if "label_smoothing" in real:
        real = real | {"label_smoothing": checked_smoothing(real["label_smoothing"])}
    return {option: as_real(a, dtype, scores) for option, a in real.items()}


def _aligned(scores: Scores, axis: Any, options: dict[str, Array]) -> tuple[Arrays, Axes]:
    """Return the arrays with as many axes as the scores, which weights and q_logits may broadcast."""
    partners = [option for option in ("weights", "q_logits") if options.get(option) is not None]
    for partner in partners:
        shape = broadcast_shape(partner, options[partner], scores)
        if shape != shape_of(scores.array):
            scores = scores._replace(array=scores.xp.broadcast_to(scores.array, shape))
    axes = axes_from_the_end(axis, scores.name, scores.array.ndim)
    if options.get("labels") is not None:
        labels = fitting_labels(options["labels"], options["where"], scores, axes)
        options = options | {"labels": labels}
    fitted = {option: fitting(option, a, scores) for option, a in options.items()}
    if "q_logits" in options:  # a softmax of its own, of every entry
        fitted["q_logits"] = broadcast(fitted["q_logits"], shape_of(scores.array), scores.xp)
    return Arrays(scores.array, **fitted), axes


def _entry_by_entry(call: Call) -> Call:
    """Return the call without axes: every entry is a slice of its own, as is a scalar."""
    alone = mapped(lambda a: a[..., None], call.arrays)
    return call._replace(arrays=alone, axis=(-1,))


def _known_to_be_bad(temperature: Any, xp: Namespace) -> bool:
    """Tell whether a temperature is negative or NaN; False where its values are not known yet."""
    if isinstance(temperature, numbers.Real):
        return not float(temperature) >= 0.0
    return known(lambda t, xp: not xp.all(t >= 0), temperature, xp=xp)


def _fits(number: Any, limits: Any) -> bool:
    size = abs(float(number))
    return not 0.0 < size < float(limits.smallest_normal) and not limits.max < size < math.inf
