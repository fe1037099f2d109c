"""Axes counted from the end, and shapes that fit."""

from __future__ import annotations

import operator
from typing import Any, TypeAlias

from array_api_compat import numpy as np

from softmaxes._arrays._kinds import Array, Namespace, Scores

__all__ = [
    "Axes",
    "Axis",
    "are_single",
    "axes_from_the_end",
    "broadcast",
    "broadcast_shape",
    "broadcast_shapes",
    "broadcasts_to",
    "fitting",
    "kept_shape",
    "known_lengths",
    "reduced_shape",
    "shape_of",
    "with_axes",
]

Axes: TypeAlias = tuple[int, ...]
Axis: TypeAlias = int | Axes | None


def axes_from_the_end(axis: Any, name: str, ndim: int) -> Axes:
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
        raise ValueError(f"axis {axis} is out of bounds for {name} with {ndim} axes")
    axes = tuple(a - ndim if a >= 0 else a for a in axes)
    if len(set(axes)) < len(axes):
        raise ValueError(f"axis must not repeat an axis, got {axis}")
    return axes


def shape_of(a: Array) -> tuple[Any, ...]:
    """Return the shape of an array, with None for the lengths that are not known, NaN in Dask."""
    return tuple(None if isinstance(n, float) else n for n in a.shape)


def are_single(a: Array, axis: Axes) -> bool:
    """Tell whether slices along the axes are known to have one entry each."""
    return all(isinstance(n, int) and n == 1 for n in (a.shape[i] for i in axis))


def known_lengths(name: str, a: Array, axes: Axes) -> list[int]:
    """Return the lengths of the axes, or raise ValueError where one is not known."""
    shape = shape_of(a)
    lengths = [shape[axis] for axis in axes]  # a list, for the compiler of PyTorch
    if None in lengths:
        hint = "call its method compute_chunk_sizes() first"
        raise ValueError(f"{name} must have known lengths, got shape {tuple(a.shape)}: {hint}")
    return lengths


def with_axes(a: Array, axes: Axes, ndim: int) -> Array:
    """Return an array that may be without the axes with them, of length 1, and with ndim in all."""
    if a.ndim == ndim:
        return a
    return a[tuple(None if i in axes else slice(None) for i in range(-ndim, 0))]


def kept_shape(shape: tuple[int, ...], axes: Axes) -> tuple[int, ...]:
    """Return the shape with the axes of length 1."""
    return tuple(1 if a - len(shape) in axes else n for a, n in enumerate(shape))


def reduced_shape(shape: tuple[int, ...], axes: Axes, keepdims: Any) -> tuple[int, ...]:
    """Return the shape without the axes, or with them of length 1."""
    if not isinstance(keepdims, (bool, np.bool)):
        raise TypeError(f"keepdims must be a bool, got {keepdims!r}")
    if keepdims:
        return kept_shape(shape, axes)
    return tuple(n for a, n in enumerate(shape) if a - len(shape) not in axes)


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that all broadcast to; lengths may be symbols of a compiler, or None."""
    ndim = max(0, *map(len, shapes))
    padded = ((1,) * (ndim - len(shape)) + shape for shape in shapes)
    return tuple(_common_length(lengths) for lengths in zip(*padded, strict=True))


def _common_length(lengths: tuple[int, ...]) -> int:
    length, *others = [n for n in lengths if n != 1] or [1]
    if any(n != length for n in others):
        raise ValueError(f"the lengths {lengths} do not broadcast")
    return length


def broadcast_shape(name: str, a: Array, scores: Scores) -> tuple[int, ...]:
    """Return the common shape of an option and the scores."""
    try:
        return broadcast_shapes(shape_of(a), shape_of(scores.array))
    except ValueError:
        raise _misfit(name, a, scores) from None


def broadcasts_to(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Tell whether a shape broadcasts to another."""
    try:
        return broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def broadcast(a: Array, shape: tuple[Any, ...], xp: Namespace) -> Array:
    """Return an array in a shape, as it is where that is its own, of lengths known or not."""
    return a if shape_of(a) == shape else xp.broadcast_to(a, shape)


def fitting(name: str, a: Array, scores: Scores) -> Array:
    """Return the option with as many axes as the scores, once it is known to broadcast to them."""
    if a is None:
        return None
    if broadcast_shape(name, a, scores) != shape_of(scores.array):
        raise _misfit(name, a, scores)
    missing = scores.array.ndim - a.ndim
    return a[(*(None,) * missing, ...)] if missing else a


def _misfit(name: str, a: Array, scores: Scores) -> ValueError:
    expected = f"{scores.name} of shape {tuple(scores.array.shape)}"
    return ValueError(f"{name} of shape {tuple(a.shape)} does not broadcast to {expected}")
