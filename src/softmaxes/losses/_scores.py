"""The losses of given scores."""

from __future__ import annotations

from softmaxes import _rules
from softmaxes._arrays import Array, Axis, checked
from softmaxes._backends import apply

__all__ = ["cross_entropy", "entropy", "kl_divergence"]


def cross_entropy(
    logits: Array,
    labels: Array,
    /,
    axis: Axis = -1,
    *,
    where: Array = None,
    label_smoothing: float = 0.0,
) -> Array:
    call = checked(
        logits=logits, labels=labels, axis=axis, where=where, label_smoothing=label_smoothing
    )
    return call.shaped(apply(_rules.cross_entropy, call), call.reduced)


def kl_divergence(
    p_logits: Array, q_logits: Array, /, axis: Axis = -1, *, where: Array = None
) -> Array:
    call = checked(p_logits=p_logits, q_logits=q_logits, axis=axis, where=where)
    return call.shaped(apply(_rules.kl_divergence, call), call.reduced)


def entropy(logits: Array, /, axis: Axis = -1, *, where: Array = None) -> Array:
    call = checked(logits=logits, axis=axis, where=where)
    return call.shaped(apply(_rules.entropy, call), call.reduced)
