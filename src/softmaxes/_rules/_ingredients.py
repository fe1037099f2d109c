"""What the derivatives of a rule are written in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from softmaxes._arrays import Array, Arrays
from softmaxes._rules._losses import cross_entropy, kl_divergence, reference
from softmaxes._rules._normalisers import density, log_softmax
from softmaxes._rules._rule import Rule

__all__ = ["ingredients"]


def ingredients(
    rule: Rule, value: Callable[[Rule], Array], tangents: Arrays
) -> tuple[Any, Array | None]:
    """Return p and d for the JVP of a rule, where value(rule) is its output for the same arrays."""
    p = value(rule.probabilities or rule)
    if rule.beside is not None:
        p = p, value(rule.beside)
    if rule is density or tangents.weights is not None:
        return p, value(density)
    if rule is cross_entropy and tangents.labels is not None:
        return p, value(log_softmax)
    if rule is kl_divergence and tangents.q_logits is not None:
        return p, value(reference)
    return p, None
