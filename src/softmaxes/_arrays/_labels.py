"""What the labels of a loss must be: class numbers in range, or weights of the shape of the scores."""

from __future__ import annotations

import math
import numbers
from functools import partial
from typing import Any

import array_api_extra as xpx

from softmaxes._arrays._kinds import Array, Namespace, Scores, is_kind, known
from softmaxes._arrays._shapes import Axes, known_lengths, reduced_shape, shape_of, with_axes

__all__ = ["checked_smoothing", "fitting_labels"]


def checked_smoothing(value: Any) -> Any:
    """Return the label smoothing, or None where it is 0."""
    if not isinstance(value, numbers.Real):
        raise TypeError(f"label_smoothing must be a number in [0, 1], got {value!r}")
    if not 0.0 <= float(value) <= 1.0:
        raise ValueError(f"label_smoothing must lie in [0, 1], got {value}")
    return value or None


def fitting_labels(labels: Array, where: Array, scores: Scores, axes: Axes) -> Array:
    """Return soft labels as they are, and one class number for each slice, with the axes kept."""
    shape, xp = shape_of(scores.array), scores.xp
    if is_kind(labels.dtype, "real floating", xp):
        _require("floating labels", labels, shape, f"that of {scores.name}")
        return labels
    reduced = reduced_shape(shape, axes, keepdims=False)
    _require("integer labels", labels, reduced, f"that of {scores.name} without the axis")
    # A number too large for the default dtype becomes negative, and so stays outside.
    labels = xp.astype(labels, xpx.default_dtype(xp, "integral"), copy=False)
    labels = with_axes(labels, axes, len(shape))
    n = math.prod(known_lengths(scores.name, scores.array, axes))
    outside = partial(_outside, n=n, axes=axes)
    if known(outside, labels, xp=xp):
        support = (scores.array,) if where is None else (scores.array, where)
        if known(outside, labels, *support, xp=xp):
            raise ValueError(f"labels must lie in 0 to {n - 1}, got {labels}")
    return labels


def _require(name: str, labels: Array, shape: tuple[int, ...], why: str) -> None:
    if shape_of(labels) != shape:
        raise ValueError(f"{name} must have shape {shape}, {why}, got {tuple(labels.shape)}")


def _outside(
    labels: Array, x: Array = None, where: Any = True, *, n: int, axes: Axes, xp: Namespace
) -> Any:
    """Tell whether a class number is none, in a slice that is not empty."""
    outside = (labels < 0) | (labels >= n)
    if x is not None:
        outside = outside & xp.any((x != -math.inf) & where, axis=axes, keepdims=True)
    return xp.any(outside)
