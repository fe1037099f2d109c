"""What users call: the signature, the docstring, one check, one line of work."""

from __future__ import annotations

from softmaxes import _rules
from softmaxes._arrays import Array, Axis, checked
from softmaxes._backends import apply

__all__ = ["log_softmax", "logsumexp", "softmax"]


def softmax(
    x: Array, /, axis: Axis = -1, *, where: Array = None, temperature: Array = None
) -> Array:
    call = checked(x, axis, where=where, temperature=temperature)
    return call.xp.reshape(apply(_rules.softmax, call), call.shape)


def log_softmax(
    x: Array, /, axis: Axis = -1, *, where: Array = None, temperature: Array = None
) -> Array:
    call = checked(x, axis, where=where, temperature=temperature)
    return call.xp.reshape(apply(_rules.log_softmax, call), call.shape)


def logsumexp(
    x: Array,
    /,
    axis: Axis = None,
    *,
    where: Array = None,
    weights: Array = None,
    keepdims: bool = False,
) -> Array:
    call = checked(x, axis, where=where, weights=weights)
    y = apply(_rules.logsumexp, call)
    return call.xp.reshape(y, call.kept if keepdims else call.reduced)
