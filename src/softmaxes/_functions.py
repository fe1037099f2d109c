"""What users call: the signature, the docstring, one line of work."""

from __future__ import annotations

from softmaxes import _rules
from softmaxes._arrays import Array, Axis
from softmaxes._backends import called

__all__ = ["log_softmax", "logsumexp", "softmax"]


def softmax(
    x: Array, /, axis: Axis = -1, *, where: Array = None, temperature: Array = None
) -> Array:
    r"""
    Map scores to probabilities.

    .. math:: p_i = \frac{e^{x_i / \tau}}{\sum_j e^{x_j / \tau}}

    Parameters
    ----------
    x : array, shape (..., n, ...)
        Scores (logits), in nats. Real; integers and booleans are promoted to a real floating dtype
        before anything is subtracted. Lists and numbers become NumPy arrays.
    axis : int, tuple of ints or None, default: -1
        Axis or axes along which the probabilities sum to 1, with ``n`` entries in all; None for all
        axes.
    where : bool array, broadcastable to `x`, optional
        True for the entries that take part. All others have probability 0 and derivative 0,
        whatever stands there.
    temperature : float or array, broadcastable to `x`, default: 1
        Temperature :math:`\tau` in [0, inf]. One for each slice is applied after the maximum is
        subtracted, so that it cannot overflow. Where entries of a slice have different ones, `x` is
        divided first, and may overflow. Differentiable.

    Returns
    -------
    array, same shape as `x`
        Probabilities, each in [0, 1], in the dtype of `x`, promoted with that of an array or list
        of `temperature`. Integers and booleans alone give the default real dtype of the library.

    Raises
    ------
    TypeError
        If `x` or `temperature` is not real, `where` not boolean, `axis` not made of integers, or if
        the arrays belong to different libraries.
    ValueError
        If `axis` is out of bounds or repeated, if `where` or `temperature` does not broadcast to
        `x`, or if a known `temperature` is negative or NaN (a traced one gives NaN).

    See Also
    --------
    log_softmax : Its logarithm, without underflow.
    logsumexp : The function whose gradient this is.

    Notes
    -----
    Within 8 ulp of the exact result in every entry, however small (on JAX, which takes subnormal
    numbers for 0, ``n`` times the smallest normal number more); float16 and bfloat16 are computed
    in float32 and rounded once. The maximum is subtracted first [1]_. The Jacobian is
    :math:`(\operatorname{diag}(p) - p p^\top) / \tau`; its rows sum to 0.

    An entry ``-inf`` has probability 0, and so has every entry of a slice with nothing else (or
    nothing at all): no NaN. One ``+inf`` takes all the probability; several are NaN, since no limit
    exists, and the others 0. A NaN makes its own slice NaN. Temperature 0 is the limit: uniform
    over the maxima; temperature inf is uniform over the entries that take part. The one entry of a
    0-d `x` has probability 1.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and
       softmax functions", IMA J. Numer. Anal. 41(4), 2311-2330, 2021.
       doi:10.1093/imanum/draa038

    Examples
    --------
    >>> import numpy as np
    >>> import softmaxes as sm
    >>> print(sm.softmax([1, 2, 3, 4]))
    [0.0320586  0.08714432 0.23688282 0.64391426]

    Scores whose exponentials overflow, by the formula as it stands and by this function:

    >>> x = np.array([1000.0, 1001.0])
    >>> with np.errstate(over="ignore", invalid="ignore"):
    ...     print(np.exp(x) / np.sum(np.exp(x)))
    [nan nan]
    >>> print(sm.softmax(x))
    [0.26894142 0.73105858]

    A row with nothing to choose from:

    >>> print(sm.softmax([[1.0, 2.0], [3.0, 4.0]], where=[[True, True], [False, False]]))
    [[0.26894142 0.73105858]
     [0.         0.        ]]
    """
    return called(_rules.softmax, "x", x, axis, where=where, temperature=temperature)


def log_softmax(
    x: Array, /, axis: Axis = -1, *, where: Array = None, temperature: Array = None
) -> Array:
    r"""
    Map scores to log-probabilities.

    .. math:: \log p_i = \frac{x_i}{\tau} - \log \sum_j e^{x_j / \tau}

    Parameters
    ----------
    x : array, shape (..., n, ...)
        Scores (logits), in nats. Real; integers and booleans are promoted to a real floating dtype
        before anything is subtracted. Lists and numbers become NumPy arrays.
    axis : int, tuple of ints or None, default: -1
        Axis or axes along which the probabilities sum to 1, with ``n`` entries in all; None for all
        axes.
    where : bool array, broadcastable to `x`, optional
        True for the entries that take part. All others have log-probability -inf and derivative 0,
        whatever stands there.
    temperature : float or array, broadcastable to `x`, default: 1
        Temperature :math:`\tau` in [0, inf]. One for each slice is applied after the maximum is
        subtracted, so that it cannot overflow. Where entries of a slice have different ones, `x` is
        divided first, and may overflow. Differentiable.

    Returns
    -------
    array, same shape as `x`
        Log-probabilities, in nats, each in [-inf, 0], in the dtype of `x`, promoted with that of an
        array or list of `temperature`. Integers and booleans alone give the default real dtype of
        the library.

    Raises
    ------
    TypeError
        If `x` or `temperature` is not real, `where` not boolean, `axis` not made of integers, or if
        the arrays belong to different libraries.
    ValueError
        If `axis` is out of bounds or repeated, if `where` or `temperature` does not broadcast to
        `x`, or if a known `temperature` is negative or NaN (a traced one gives NaN).

    See Also
    --------
    softmax : The probabilities.
    logsumexp : What is subtracted from the scores.

    Notes
    -----
    Relatively accurate in every entry, within 6 ulp, also in the dominant one, where the
    log-probability may be far smaller than the rounding error of 1 [1]_; float16 and bfloat16 are
    computed in float32 and rounded once. The Jacobian is :math:`(I - 1 p^\top) / \tau`, with
    entries :math:`(\delta_{ij} - p_j) / \tau`.

    An entry ``-inf`` stays -inf; unless it is masked, its derivative is that of any other entry. A
    slice with nothing else is -inf everywhere, with derivative 0. One ``+inf`` gives 0 there and
    -inf elsewhere; several are NaN, and the others -inf. A NaN makes its own slice NaN.
    Temperatures 0 and inf give the logarithm of what softmax gives. A 0-d `x` gives 0.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and
       softmax functions", IMA J. Numer. Anal. 41(4), 2311-2330, 2021.
       doi:10.1093/imanum/draa038

    Examples
    --------
    Where the probability underflows, its logarithm does not:

    >>> import numpy as np
    >>> import softmaxes as sm
    >>> print(sm.softmax([0.0, -800.0]), sm.log_softmax([0.0, -800.0]))
    [1. 0.] [  -0. -800.]

    Where the probability rounds to 1, its logarithm is not 0:

    >>> print(sm.log_softmax([0.0, -40.0]))
    [-4.24835426e-18 -4.00000000e+01]
    """
    return called(_rules.log_softmax, "x", x, axis, where=where, temperature=temperature)


def logsumexp(
    x: Array,
    /,
    axis: Axis = None,
    *,
    where: Array = None,
    weights: Array = None,
    keepdims: bool = False,
) -> Array:
    r"""
    Return the logarithm of a sum of exponentials.

    .. math:: y = \log \sum_i w_i e^{x_i}

    Parameters
    ----------
    x : array, shape (..., n, ...)
        Scores (logits), in nats. Real; integers and booleans are promoted to a real floating dtype
        before anything is subtracted. Lists and numbers become NumPy arrays.
    axis : int, tuple of ints or None, default: None
        Axis or axes to sum over; None for all axes.
    where : bool array, broadcastable to `x`, optional
        True for the entries that take part; whatever stands at the others is ignored, and their
        derivative is 0.
    weights : float or array, broadcastable with `x`, default: 1
        Weights :math:`w` of the exponentials (SciPy's ``b``). A weight 0 removes its entry, even
        inf or NaN. Weights may be negative; a negative sum gives NaN. Differentiable, also at 0.
    keepdims : bool, default: False
        Whether the summed axes stay, with length 1.

    Returns
    -------
    array, the shape of `x` broadcast with `weights`, without `axis`
        The logarithm of the sum, in nats, in [-inf, inf], in the dtype of `x`, promoted with that
        of an array or list of `weights`. Integers and booleans alone give the default real dtype of
        the library. With `keepdims` the summed axes have length 1.

    Raises
    ------
    TypeError
        If `x` or `weights` is not real, `where` not boolean, `axis` not made of integers,
        `keepdims` not a bool, or if the arrays belong to different libraries.
    ValueError
        If `axis` is out of bounds or repeated, or if the shapes do not broadcast.

    See Also
    --------
    softmax : Its gradient.
    log_softmax : The scores less this function of them.

    Notes
    -----
    Without weights, the error is at most 6 ulp of the larger of ``abs(max(x))`` and ``abs(y)``; no
    relative accuracy is possible where the two nearly cancel. With positive weights, 1 counts
    beside them; with weights of both signs the sum may cancel, and there is no bound. Float16 and
    bfloat16 are computed in float32 and rounded once. The maximum is subtracted first [1]_.

    Without weights, the gradient by `x` is :math:`p = \operatorname{softmax}(x)` and the Hessian
    :math:`\operatorname{diag}(p) - p p^\top`; with them, the gradient is
    :math:`q_i = w_i e^{x_i - y}` and the Hessian :math:`\operatorname{diag}(q) - q q^\top`. The
    gradient by `weights` is :math:`e^{x_i - y}`.

    The sum over nothing (no entry, all masked, all -inf) is 0 and its logarithm -inf, with
    derivative 0. One or several ``+inf`` give +inf, or NaN where one of them has a negative
    weight. A NaN makes its own slice NaN. A 0-d `x` is returned, plus log w with a weight.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and
       softmax functions", IMA J. Numer. Anal. 41(4), 2311-2330, 2021.
       doi:10.1093/imanum/draa038

    Examples
    --------
    >>> import numpy as np
    >>> import softmaxes as sm
    >>> print(sm.logsumexp([1000.0, 1000.0]))
    1000.6931471805599

    A small term beside a large one, in the formula as it stands and in this function:

    >>> print(np.log(1 + np.exp(-40.0)))
    0.0
    >>> print(sm.logsumexp([0.0, -40.0]))
    4.248354255291589e-18
    """
    return called(_rules.logsumexp, "x", x, axis, keepdims, where=where, weights=weights)
