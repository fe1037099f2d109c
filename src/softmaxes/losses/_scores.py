"""The losses of given scores: what users call."""

from __future__ import annotations

from softmaxes import _rules
from softmaxes._arrays import Array, Axis, checked
from softmaxes._backends import called, value

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
    r"""
    Return the loss of scores against labels, one number for each slice.

    .. math:: y = -\sum_i q_i \log p_i, \qquad p = \operatorname{softmax}(x)

    Parameters
    ----------
    logits : array, shape (..., n, ...)
        Scores :math:`x`, in nats. Real; integers and booleans are promoted to the default real
        dtype of the library. Lists and numbers become NumPy arrays.
    labels : array, shape (..., ...) or (..., n, ...)
        Integers, of the shape of `logits` without `axis`: the number of the class, from 0 to n - 1,
        whose :math:`q_i` is 1. With several axes the last one named counts fastest. Or real numbers
        :math:`q_i`, of the shape of `logits`. These are a measure: they need not sum to 1.
    axis : int, tuple of ints or None, default: -1
        Axis or axes of the classes, ``n`` in all; None for all axes.
    where : bool array, broadcastable to `logits`, optional
        True for the classes that take part. The derivative by all others is 0, whatever stands
        there. ``where=valid[..., None]`` leaves out whole rows.
    label_smoothing : float, default: 0
        Share :math:`\epsilon` in [0, 1] of the labels that is spread evenly over the m classes that
        take part and are not -inf: :math:`(1 - \epsilon) q_i + \epsilon \sum_j q_j / m` stands for
        :math:`q_i`.

    Returns
    -------
    array, the shape of `logits` without `axis`
        The loss, in nats, in [0, inf] where no label is negative, in the dtype of `logits`,
        promoted with that of real `labels`.

    Raises
    ------
    TypeError
        If `logits` is not real, `labels` neither integer nor real floating, `where` not boolean,
        `label_smoothing` not a number, `axis` not made of integers, or if the arrays belong to
        different libraries.
    ValueError
        If `axis` is out of bounds or repeated, if `labels` does not have one of the two shapes or
        `where` does not broadcast to `logits`, if `label_smoothing` is not in [0, 1], or if a known
        integer label is not in 0 to n - 1 and its row not empty. (A traced one makes the loss and
        the gradient of its row NaN.)

    See Also
    --------
    log_softmax : The logarithms of all the probabilities.
    kl_divergence : The loss less the entropy of the labels.
    entropy : The least loss, where the labels are the probabilities.

    Notes
    -----
    All terms have one sign, so that nothing cancels: within 6 ulp of the exact result where no
    label is negative, also on a confident row, whose loss may be far smaller than the rounding error
    of 1 [1]_. Float16 and bfloat16 are computed in float32 and rounded once.

    The gradient by `logits` is :math:`Q p_i - q_i` with :math:`Q = \sum_j q_j`, which is
    :math:`p_i - q_i` for a distribution; where one class is dominant its entry is minus the sum of
    the others. The Hessian is :math:`Q (\operatorname{diag}(p) - p p^\top)`. The derivative by a real
    label is :math:`-\log p_i`, and 0 where that is infinite.

    A label 0 contributes 0, also where the probability is 0. Any other label on a masked or -inf
    class makes the loss +inf; the gradient stays finite, with :math:`Q p_i - q_i` at the classes that
    are not masked. A row with nothing to choose from (all masked, all -inf, or no class) has loss 0
    and gradient 0, whatever its label. With one ``+inf`` the loss is 0 for that class, and +inf for
    any other; with several it is NaN for these. A NaN makes its own row NaN. A 0-d `logits` has one
    class, with loss 0.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and
       softmax functions", IMA J. Numer. Anal. 41(4), 2311-2330, 2021.
       doi:10.1093/imanum/draa038

    Examples
    --------
    >>> import numpy as np
    >>> import softmaxes as sm
    >>> logits = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0]])
    >>> print(sm.cross_entropy(logits, [0, 2]))
    [0.40760596 3.09492296]
    >>> print(sm.cross_entropy(logits, [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]))
    [0.90760596 3.09492296]

    A confident, right answer: its loss is small, and its gradient too, but neither is 0 as in the
    formula:

    >>> x = np.array([20.0, 0.0, 0.0], dtype=np.float32)
    >>> print(np.log(np.sum(np.exp(x))) - x[0])
    0.0
    >>> loss, pullback = sm.vjp(sm.cross_entropy, x, 0)
    >>> print(loss, pullback(np.float32(1)))
    4.1223074e-09 [-4.1223074e-09  2.0611537e-09  2.0611537e-09]

    A row without classes is left out, whatever its label:

    >>> valid = np.array([True, False])
    >>> print(sm.cross_entropy(logits, [0, -100], where=valid[:, None]))
    [0.40760596 0.        ]
    """
    call = checked(
        logits=logits, labels=labels, axis=axis, where=where, label_smoothing=label_smoothing
    )
    return value(_rules.cross_entropy, call)


def kl_divergence(
    p_logits: Array, q_logits: Array, /, axis: Axis = -1, *, where: Array = None
) -> Array:
    r"""
    Return the divergence of one softmax from another, one number for each slice.

    .. math:: y = \sum_i p_i \log \frac{p_i}{q_i}, \qquad p = \operatorname{softmax}(x), \quad
        q = \operatorname{softmax}(z)

    Parameters
    ----------
    p_logits : array, shape (..., n, ...)
        Scores :math:`x` of the distribution that weighs the logarithms, in nats. Real; integers and
        booleans are promoted to the default real dtype of the library. Lists and numbers become
        NumPy arrays.
    q_logits : array, broadcastable with `p_logits`
        Scores :math:`z` of the other distribution, in nats.
    axis : int, tuple of ints or None, default: -1
        Axis or axes of the classes, ``n`` in all; None for all axes.
    where : bool array, broadcastable to the scores, optional
        True for the classes that take part, in both distributions. The derivatives by all others
        are 0, whatever stands there.

    Returns
    -------
    array, the common shape of the scores without `axis`
        The divergence, in nats, in [0, inf], in the promoted dtype of the scores.

    Raises
    ------
    TypeError
        If `p_logits` or `q_logits` is not real, `where` not boolean, `axis` not made of integers,
        or if the arrays belong to different libraries.
    ValueError
        If `axis` is out of bounds or repeated, or if the shapes do not broadcast.

    See Also
    --------
    cross_entropy : For a `p` that is given as such.
    entropy : What is lost to the cross-entropy here.

    Notes
    -----
    Within 6 ulp of the exact result, also where the distributions are close: there the terms
    :math:`p_i \log (p_i / q_i)` of both signs cancel, and the divergence [1]_ is summed instead from
    :math:`p_i (r_i + e^{-r_i} - 1)` with :math:`r_i = \log (p_i / q_i)`, which are not negative. They
    have the same sum, because :math:`\sum_i p_i e^{-r_i} = \sum_i q_i = 1`. Float16 and bfloat16 are
    computed in float32 and rounded once.

    The gradient by `p_logits` is :math:`J r` with the Jacobian
    :math:`J = \operatorname{diag}(p) - p p^\top` of softmax, that by `q_logits` is
    :math:`q - p`. Both are 0 where p and q are equal; there the Hessian is :math:`J`.

    A class of probability 0 in p, because it is masked or -inf, contributes 0. One of probability 0
    in q alone makes the divergence +inf; in the gradient its :math:`r_i` counts as 0, so that it
    stays finite. A row with nothing to choose from in p has divergence 0 and derivative 0. One
    ``+inf`` is a distribution on one class; several give NaN, and so does a NaN in its own row. 0-d
    scores give 0.

    References
    ----------
    .. [1] S. Kullback, R. A. Leibler, "On information and sufficiency", Ann. Math. Statist. 22(1),
       79-86, 1951. doi:10.1214/aoms/1177729694

    Examples
    --------
    >>> import numpy as np
    >>> import softmaxes as sm
    >>> print(sm.kl_divergence([2.0, 1.0, 0.0], [0.0, 0.0, 0.0]))
    0.2662167068281708

    Two distributions that are close, by the formula as it stands and by this function:

    >>> p_logits, q_logits = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0 + 1e-9])
    >>> p, q = sm.softmax(p_logits), sm.softmax(q_logits)
    >>> divergence = sm.kl_divergence(p_logits, q_logits)
    >>> print(f"{divergence:.4g}", bool(abs(np.sum(p * np.log(p / q)) / divergence - 1) > 0.5))
    1.113e-19 True
    """
    call = checked(p_logits=p_logits, q_logits=q_logits, axis=axis, where=where)
    return value(_rules.kl_divergence, call)


def entropy(logits: Array, /, axis: Axis = -1, *, where: Array = None) -> Array:
    r"""
    Return the entropy of a softmax, one number for each slice.

    .. math:: y = -\sum_i p_i \log p_i, \qquad p = \operatorname{softmax}(x)

    Parameters
    ----------
    logits : array, shape (..., n, ...)
        Scores :math:`x`, in nats. Real; integers and booleans are promoted to the default real
        dtype of the library. Lists and numbers become NumPy arrays.
    axis : int, tuple of ints or None, default: -1
        Axis or axes of the classes, ``n`` in all; None for all axes.
    where : bool array, broadcastable to `logits`, optional
        True for the classes that take part. The derivative by all others is 0, whatever stands
        there.

    Returns
    -------
    array, the shape of `logits` without `axis`
        The entropy, in nats, in [0, log n], in the dtype of `logits`. Integers and booleans give
        the default real dtype of the library.

    Raises
    ------
    TypeError
        If `logits` is not real, `where` not boolean, `axis` not made of integers, or if the arrays
        belong to different libraries.
    ValueError
        If `axis` is out of bounds or repeated, or if `where` does not broadcast to `logits`.

    See Also
    --------
    cross_entropy : The loss against labels, of which this is the least.
    kl_divergence : By how much that loss exceeds this.

    Notes
    -----
    All terms have one sign, so that nothing cancels: within 6 ulp of the exact result, also on a
    confident row. Float16 and bfloat16 are computed in float32 and rounded once.

    The gradient is :math:`-p_i (\log p_i + y)`, minus the product of the Jacobian of softmax and
    :math:`\log p`, computed from it. By the entropy of an event of probability 0, which is 0 [1]_,
    a class that is masked or -inf contributes 0 to the value and to the derivatives.

    A row with nothing to choose from has entropy 0 and derivative 0, and so has a row with one
    ``+inf``. Several are NaN, since no limit exists, and so is a row with a NaN. A 0-d `logits`
    gives 0.

    References
    ----------
    .. [1] C. E. Shannon, "A mathematical theory of communication", Bell Syst. Tech. J. 27(3),
       379-423, 1948. doi:10.1002/j.1538-7305.1948.tb01338.x

    Examples
    --------
    >>> import numpy as np
    >>> import softmaxes as sm
    >>> print(sm.entropy([2.0, 1.0, 0.0]))
    0.8323955818399388

    A class that is out of question, in the formula as it stands and in this function:

    >>> p = sm.softmax([0.0, 0.0, -800.0])
    >>> with np.errstate(divide="ignore", invalid="ignore"):
    ...     print(-np.sum(p * np.log(p)), sm.entropy([0.0, 0.0, -800.0]))
    nan 0.6931471805599453
    """
    return called(_rules.entropy, "logits", logits, axis, where=where)
