"""The softmax classifier: minimise the mean of -log p(label) plus penalty/2 |weights|^2."""

from __future__ import annotations

from typing import Any

import numpy as np

import softmaxes as sm
from softmaxes._cli.newton import Minimum, minimise

__all__ = ["loss", "train"]

Array = Any


def loss(weights: Array, features: Array, targets: Array, penalty: float) -> Array:
    """Regularised mean negative log-likelihood; the targets are one-hot rows."""
    log_p = sm.log_softmax(features @ weights)
    return -(targets * log_p).sum() / len(features) + penalty / 2 * (weights * weights).sum()


def train(features: Array, targets: Array, penalty: float) -> Minimum:
    """Train in NumPy alone: gradients by ``sm.vjp``, Hessian products by ``sm.hvp``."""

    def gradient(weights: Array) -> Array:
        _, pullback = sm.vjp(sm.log_softmax, features @ weights)
        return features.T @ pullback(-targets / len(features)) + penalty * weights

    def curvature(weights: Array, direction: Array) -> Array:
        # -log p(label) is logsumexp minus one score, and a score has no curvature.
        scores, change = features @ weights, features @ direction
        product = sm.hvp(sm.logsumexp, scores, change, axis=-1)
        return features.T @ product / len(features) + penalty * direction

    return minimise(gradient, curvature, np.zeros((features.shape[1], targets.shape[1])))
