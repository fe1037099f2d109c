"""Losses, one value for each slice of scores."""

from softmaxes.losses._linear import linear_cross_entropy
from softmaxes.losses._scores import cross_entropy, entropy, kl_divergence

__all__ = ["cross_entropy", "entropy", "kl_divergence", "linear_cross_entropy"]
