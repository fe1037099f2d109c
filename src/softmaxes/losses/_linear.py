"""The loss of scores that are a matrix product, which is not formed."""

from __future__ import annotations

from softmaxes import _rules
from softmaxes._arrays import Array, checked_product
from softmaxes._backends import apply_to_product

__all__ = ["linear_cross_entropy"]


def linear_cross_entropy(
    features: Array,
    weights: Array,
    labels: Array,
    /,
    *,
    bias: Array = None,
    where: Array = None,
    label_smoothing: float = 0.0,
    tile_bytes: int | None = None,
) -> Array:
    product = checked_product(
        features=features,
        weights=weights,
        bias=bias,
        labels=labels,
        where=where,
        label_smoothing=label_smoothing,
        tile_bytes=tile_bytes,
    )
    return product.call.shaped(apply_to_product(_rules.cross_entropy, product), product.call.reduced)
