"""The loss of scores that are a matrix product, which is not formed."""

from __future__ import annotations

from softmaxes import _rules
from softmaxes._arrays import Array, checked_product
from softmaxes._backends import of_products

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
    r"""
    Return the cross-entropy of scores that are a matrix product, without forming the product.

    .. math:: y = -\sum_i q_i \log p_i, \qquad p = \operatorname{softmax}(W f + b)

    Parameters
    ----------
    features : array, shape (..., H)
        Features :math:`f`, one vector for each example. Real; integers and booleans are promoted to
        the default real dtype of the library. Lists become NumPy arrays.
    weights : array, shape (n, H)
        Weights :math:`W`, one row for each class.
    labels : array, shape (...) or (..., n)
        Integers, of the shape of `features` without its last axis: the number of the class, from 0
        to n - 1. Or real numbers :math:`q_i`, one for each class: a measure, which need not sum
        to 1.
    bias : array, shape (n,), optional
        Bias :math:`b`, one number for each class.
    where : bool array, broadcastable to shape (..., n), optional
        True for the classes that take part. ``where=valid[..., None]`` leaves out whole examples,
        whatever their features and labels.
    label_smoothing : float, default: 0
        Share :math:`\epsilon` in [0, 1] of the labels that is spread evenly over the m classes that
        take part and are not -inf: :math:`(1 - \epsilon) q_i + \epsilon \sum_j q_j / m` stands for
        :math:`q_i`.
    tile_bytes : int, optional
        How much memory the scores, in tiles of whole rows, and what is made of them may take. At
        least one row is formed at a time. By default 48 MiB, and 1 GiB where JAX computes on an
        accelerator.

    Returns
    -------
    array, the shape of `features` without its last axis
        The loss of each example, in nats, in [0, inf] where no label is negative, in the
        promoted dtype of the arrays.

    Raises
    ------
    TypeError
        If `features`, `weights` or `bias` is not real, `labels` neither integer nor real floating,
        `where` not boolean, `label_smoothing` not a number, `tile_bytes` not an integer, or if the
        arrays belong to different libraries.
    ValueError
        If the shapes do not fit, if `label_smoothing` is not in [0, 1] or `tile_bytes` less than 1,
        or if a known integer label is not in 0 to n - 1 and its row not masked. (A traced one makes
        the loss and the gradient of its row NaN.)

    See Also
    --------
    cross_entropy : The same of given scores.

    Notes
    -----
    The values are those of `cross_entropy` for the scores ``x = features @ weights.T + bias``,
    accumulated in float32 where the operands are narrower, and as accurate, given these.

    The Jacobian by the features is :math:`(Q p - q)^\top W` with :math:`Q = \sum_i q_i`, the Hessian
    :math:`Q\, W^\top (\operatorname{diag}(p) - p p^\top) W`. JAX and PyTorch differentiate by the
    features, weights, bias and real labels, to any order and in every mode, and first derivatives
    keep no scores. In JAX the gradients of a mean or a sum are computed along with the values, at
    the cost of three products. Where the examples have different cotangents, and by real labels, two
    more are needed: so leave examples out by `where`, not by a factor. In PyTorch the gradients cost
    four. On every library `softmaxes.vjp`, `softmaxes.jvp` and `softmaxes.hvp` differentiate by the
    features or, with ``argnames=("features", "weights", "bias")``, by any of the three.

    A label on a masked class, or on one with the score -inf, has the loss +inf. Where no class takes
    part, loss and gradient are 0. A score that is NaN makes the loss of its own example NaN, and so
    does a label on one of several that are +inf. The loss of one example is 0-d. The gradient
    by the weights is a sum over the examples; a weight of a masked class must be finite, as it is
    multiplied by 0.

    References
    ----------
    .. [1] E. Wijmans, B. Huval, A. Hertzberg, V. Koltun, P. Kraehenbuehl, "Cut your losses in
       large-vocabulary language models", 2024. doi:10.48550/arXiv.2411.09009

    Examples
    --------
    >>> import numpy as np
    >>> import softmaxes as sm
    >>> features = np.array([[1.0, 0.0], [0.0, 20.0]])
    >>> weights = np.array([[2.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    >>> print(sm.linear_cross_entropy(features, weights, [0, 0]))
    [4.07605964e-01 4.12230724e-09]

    The same loss, when no more than one row of scores may be formed at a time:

    >>> print(sm.linear_cross_entropy(features, weights, [0, 0], tile_bytes=1))
    [4.07605964e-01 4.12230724e-09]

    In single precision the formula loses the second one, which is small but not 0:

    >>> x = (features @ weights.T).astype(np.float32)
    >>> print((np.log(np.sum(np.exp(x), axis=1)) - x[:, 0])[1])
    0.0
    """
    product = checked_product(
        features=features,
        weights=weights,
        bias=bias,
        labels=labels,
        where=where,
        label_smoothing=label_smoothing,
        tile_bytes=tile_bytes,
    )
    y = of_products(product.call.xp).values(_rules.cross_entropy, product)
    return product.call.shaped(y, product.call.reduced)
