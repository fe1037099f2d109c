"""What `online` asks besides: values, states that fit a piece, states that fit each other."""

from __future__ import annotations

from typing import Any

from array_api_compat import numpy as np

from softmaxes._arrays._calls import Call
from softmaxes._arrays._kinds import (
    Array,
    Namespace,
    Scores,
    as_array,
    as_option,
    as_real,
    is_kind,
    last_name,
    namespace_of,
    refuse_strangers,
    result_dtype,
    unwrapped,
    working_dtype,
)
from softmaxes._arrays._shapes import broadcast_shapes, broadcasts_to, kept_shape
from softmaxes._arrays._trees import leaves, mapped

__all__ = ["checked_alike", "checked_slices", "checked_values", "zeros"]


def checked_values(values: Any, call: Call) -> tuple[Call, Array]:
    """
    Return the call in a dtype that holds the values too, and these, checked, in the form of its x.

    Values have the shape of x, or broadcast to it, and may have more axes in front.
    """
    x, xp = call.arrays.x, call.xp
    values = as_option("values", values, call.scores)
    working = working_dtype(result_dtype(xp, x=x, values=values), xp)
    values = as_real(values, working, call.scores)
    n = len(call.shape)
    if not broadcasts_to(tuple(values.shape)[max(0, values.ndim - n) :], call.shape):
        shapes = f"{tuple(values.shape)} does not broadcast to x of shape {call.shape}"
        raise ValueError(f"values of shape {shapes}, nor do its last {n} axes")
    shape = (1,) * (n - values.ndim) + tuple(values.shape) + (1,) * (x.ndim - n)
    return call._replace(working=working), xp.reshape(values, shape)


def checked_slices(name: str, tree: Any, call: Call) -> tuple[Call, Any]:
    """Return the call in a dtype that holds the tuple of arrays too, and these in slices of its x."""
    x, xp = call.arrays.x, call.xp
    tree = mapped(lambda leaf: as_option(name, as_array(name, leaf)[0], call.scores), tree)
    shape = broadcast_shapes(*(tuple(a.shape) for a in leaves(tree)))
    if len(shape) > len(call.reduced) or not broadcasts_to(shape, call.reduced):
        axes = f"x of shape {call.shape} has slices of shape {call.reduced}"
        raise ValueError(f"{name} of shape {shape} does not fit: {axes}")
    given = {f"{name}[{i}]": a for i, a in enumerate(leaves(tree))}
    working = working_dtype(result_dtype(xp, x=x, **given), xp)
    kept = kept_shape(tuple(x.shape), call.axis)

    def in_slices(a: Array) -> Array:
        return xp.reshape(xp.broadcast_to(a, call.reduced), kept)

    return call._replace(working=working), mapped(in_slices, tree)


def checked_alike(**trees: Any) -> tuple[list[Any], Namespace]:
    """Return tuples of arrays, in one dtype to compute in, that fit, of one library and device."""
    found = {name: [as_array(name, leaf) for leaf in leaves(tree)] for name, tree in trees.items()}
    (first, ((a, xp), *_)), *_ = found.items()
    for name, pairs in found.items():
        for other, own in pairs:
            refuse_strangers(name, other, own, Scores(first, a, xp))
    shapes = {name: [tuple(a.shape) for a, _ in pairs] for name, pairs in found.items()}
    try:
        broadcast_shapes(*(shape for of_one in shapes.values() for shape in of_one))
    except ValueError:
        were = " and ".join(f"{name} of shape {of_one[0]}" for name, of_one in shapes.items())
        raise ValueError(f"{were} do not broadcast") from None
    given = {f"{name}[{i}]": a for name, of in found.items() for i, (a, _) in enumerate(of)}
    working = working_dtype(result_dtype(xp, **given), xp)

    def alike(a: Array) -> Array:
        # An array of what may be a scalar; `asarray` of PyTorch would warn, or drop the gradient.
        return xp.astype(xp.reshape(a, a.shape), working, copy=False)

    return [mapped(alike, tree) for tree in trees.values()], xp


def zeros(shape: Any, *, dtype: Any, device: Any, xp: Any) -> Array:
    """Return zeros of a library, NumPy by default, in a dtype to compute in, float32 by default."""
    xp = np if xp is None else xp
    dtype = xp.float32 if dtype is None else working_dtype(dtype, xp)
    a = unwrapped(xp.zeros(shape, dtype=dtype, device=device), xp=xp)
    if not is_kind(a.dtype, "real floating", namespace_of(a)):
        raise TypeError(f"dtype must be a real floating dtype, got {last_name(a.dtype)}")
    return a
