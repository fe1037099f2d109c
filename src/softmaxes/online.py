"""The state of a softmax seen in pieces: a few numbers that merge in any order."""

from __future__ import annotations

import math
from typing import Any

from softmaxes import _rules, _states
from softmaxes._arrays import (
    Array,
    Axis,
    Call,
    checked,
    checked_alike,
    checked_slices,
    checked_values,
    mapped,
    unwrapped,
    zeros,
)
from softmaxes._backends import apply, compute, evaluate, value

__all__ = ["State", "empty", "expectation", "logsumexp", "merge", "softmax", "update"]


class State(_states.State):
    r"""
    Hold what is known of the scores seen so far.

    .. math:: \sum_i e^{x_i} = e^M + e^r R, \qquad r = 16 \operatorname{round}(M / 16)

    A tuple of arrays with one entry per slice, and so a pytree of JAX. Made by `empty` and `update`
    and read by `logsumexp`, `softmax` and `expectation`; to store or to send one, store or send its
    arrays.

    Attributes
    ----------
    maximum : array
        Largest score :math:`M`; -inf where nothing was seen.
    rest : array
        Sum :math:`R` of :math:`e^{x_i - r}` over all entries but one at the maximum; 0 where
        nothing else was seen.
    rest_low : array
        What the roundings of `rest` dropped.
    mean : array, optional
        Mean of the values under the softmax, with any axes in front; 0 where nothing was seen. None
        for a state without values.
    mean_low : array, optional
        What the roundings of `mean` dropped.

    See Also
    --------
    empty : The state of nothing.
    update : See one more piece.
    merge : Join two states.

    Notes
    -----
    Only the sum has a meaning, not how it is shared between the fields. The derivative of a state is
    that of the sum: the one of `maximum` by a score is a probability, not 0 or 1.

    References
    ----------
    .. [1] M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax", 2018.
       doi:10.48550/arXiv.1805.02867

    Examples
    --------
    >>> from softmaxes import online
    >>> state = online.update(online.empty(), [1.0, 3.0, 1.0])
    >>> print(state.maximum, state.rest_low, state.mean)
    3.0 0.0 None
    """

    __slots__ = ()


def empty(
    shape: int | tuple[int, ...] = (),
    *,
    mean_shape: int | tuple[int, ...] | None = None,
    dtype: Any = None,
    device: Any = None,
    xp: Any = None,
) -> State:
    r"""
    Return the state of nothing, the identity of `merge`.

    .. math:: \sum_{i \in \emptyset} e^{x_i} = 0

    Parameters
    ----------
    shape : int or tuple of ints, default: ()
        Shape of the slices: that of the pieces without their `axis`. States broadcast, so the
        default will do where the shape of a state may change, which it may not in ``lax.scan``.
    mean_shape : int or tuple of ints, optional
        Shape of the mean of the values, for pieces with values. It broadcasts too.
    dtype : dtype, default: float32
        Real dtype. The default is the narrowest that a state is kept in, so that the pieces decide;
        float16 and bfloat16 give float32.
    device : device, optional
        Device of the arrays, as `xp` names it.
    xp : namespace, default: numpy
        Array library, for instance ``jax.numpy``.

    Returns
    -------
    State
        Arrays of the given `shape`, with the maximum -inf.

    Raises
    ------
    TypeError
        If `dtype` is not a real floating dtype.

    See Also
    --------
    update : See a piece.

    Notes
    -----
    Its logsumexp is -inf, its expectation 0. Merged with another state of its dtype, or a wider
    one, it changes no bit.

    References
    ----------
    .. [1] M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax", 2018.
       doi:10.48550/arXiv.1805.02867

    Examples
    --------
    >>> from softmaxes import online
    >>> print(online.logsumexp(online.empty()))
    -inf
    """
    none = zeros(shape, dtype=dtype, device=device, xp=xp)
    if mean_shape is None:
        return State(none - math.inf, none, none)
    mean = zeros(mean_shape, dtype=dtype, device=device, xp=xp)
    return State(none - math.inf, none, none, mean, mean)


def update(
    state: State,
    x: Array,
    /,
    axis: Axis = -1,
    *,
    where: Array = None,
    values: Array = None,
) -> State:
    r"""
    Return the state after one more piece.

    .. math:: \sum_i e^{x_i} \leftarrow \sum_i e^{x_i} + \sum_{j = 1}^{n} e^{x_j}

    Parameters
    ----------
    state : State
        The state before, of shape ``(..., ...)``, or one that broadcasts with it.
    x : array, shape (..., n, ...)
        Scores (logits) of the piece, in nats, of any length n, also 0. Real; integers and booleans
        are promoted to the default real dtype of the library first. Lists and numbers become NumPy
        arrays.
    axis : int, tuple of ints or None, default: -1
        Axis or axes along which the entries of a slice lie; None for all axes.
    where : bool array, broadcastable to `x`, optional
        True for the entries that take part; whatever stands at the others is ignored, and their
        derivative is 0.
    values : float or array, optional
        Values whose mean under the softmax is wanted, broadcastable to `x`, or with axes in front
        of those of `x` for several values at each entry. Where the probability is 0, anything may
        stand.

    Returns
    -------
    State
        Arrays of the shape of `x` without `axis`; the mean with the axes of `values` in front. In
        the promoted dtype of state, `x` and `values`, float32 for float16 and bfloat16.

    Raises
    ------
    TypeError
        If `state` is no State, `x` or `values` not real, `where` not boolean, if the arrays belong
        to different libraries, or if only one of state and piece has values.
    ValueError
        If `axis` is out of bounds or repeated, or if the shapes do not broadcast.

    See Also
    --------
    merge : The same for two states.
    logsumexp : What was asked for.

    Notes
    -----
    The same as to merge the state of the piece. JAX differentiates a piece by the rule of logsumexp:
    no derivative is taken through its maximum.

    Entries ``-inf``, masked entries and pieces of length 0 leave the state as it is, with
    derivative 0. A NaN makes its own slice NaN, from then on. A 0-d `x` is one entry.

    References
    ----------
    .. [1] M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax", 2018.
       doi:10.48550/arXiv.1805.02867

    Examples
    --------
    >>> import softmaxes as sm
    >>> from softmaxes import online
    >>> state = online.empty()
    >>> for piece in ([1000.0, 1001.0], [1002.0], []):
    ...     state = online.update(state, piece)
    >>> print(online.logsumexp(state), sm.logsumexp([1000.0, 1001.0, 1002.0]))
    1002.4076059644444 1002.4076059644444

    A softmax with a sink, a score of 0 that takes its share of the probability and is not returned:

    >>> sink = online.update(online.empty(), 0.0)
    >>> print(online.softmax([0.0, 0.0], online.update(sink, [0.0, 0.0])))
    [0.33333333 0.33333333]
    """
    return _merged(state=state, x=_piece(x, axis, where, values))


def merge(a: State, b: State, /) -> State:
    r"""
    Return the state of all that two states have seen.

    .. math:: \sum_i e^{x_i} = \sum_{i \in a} e^{x_i} + \sum_{i \in b} e^{x_i}

    Parameters
    ----------
    a, b : State
        States of disjoint pieces, of one shape or of shapes that broadcast.

    Returns
    -------
    State
        Arrays of the common shape, in the promoted dtype.

    Raises
    ------
    TypeError
        If `a` or `b` is no State, if they belong to different libraries, or if only one has values.
    ValueError
        If the shapes do not broadcast.

    See Also
    --------
    update : The same for a state and a piece.

    Notes
    -----
    Commutative, with `empty` as its identity, exactly; associative up to rounding. So pieces may be
    merged in any order and any grouping: by ``functools.reduce``, in ``jax.lax.scan`` and
    ``jax.lax.associative_scan``, in the tree of a cluster or between processes. The logsumexp stays
    within the error bound of `softmaxes.logsumexp` for ten thousand pieces of one entry each, since
    what every rounding drops is carried along.

    References
    ----------
    .. [1] M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax", 2018.
       doi:10.48550/arXiv.1805.02867
    .. [2] T. J. Dekker, "A floating-point technique for extending the available precision", Numer.
       Math. 18, 224-242, 1971. doi:10.1007/BF01397083

    Examples
    --------
    >>> import functools
    >>> from softmaxes import online
    >>> states = [online.update(online.empty(), piece) for piece in ([1.0, 2.0], [3.0], [4.0])]
    >>> print(online.logsumexp(functools.reduce(online.merge, states)))
    4.440189698561196

    A thousand terms of 1e-18 beside 1, which a running sum of exponentials would drop one by one:

    >>> small = online.update(online.empty(), -41.4465)
    >>> state = online.update(online.empty(), 0.0)
    >>> for _ in range(1000):
    ...     state = online.merge(state, small)
    >>> print(f"{online.logsumexp(state):.4g}")
    1e-15
    """
    return _merged(a=a, b=b)


def logsumexp(state: State, /) -> Array:
    r"""
    Return the logarithm of the sum of the exponentials seen.

    .. math:: y = \log \sum_i e^{x_i}

    Parameters
    ----------
    state : State
        State of all the pieces.

    Returns
    -------
    array, the shape of `state`
        The logarithm of the sum, in nats, in [-inf, inf], in the dtype of the state: float32 also
        where the scores were float16 or bfloat16.

    Raises
    ------
    TypeError
        If `state` is no State.

    See Also
    --------
    softmax : Its gradient.
    softmaxes.logsumexp : The same for one array.

    Notes
    -----
    The error is at most 6 ulp of the larger of ``abs(max(x))`` and ``abs(y)``, as for one array.
    The gradient by the scores is softmax and the Hessian :math:`\operatorname{diag}(p) - p p^\top`,
    also at ties.

    The logarithm of nothing (no piece, all masked, all -inf) is -inf, with derivative 0. One or
    more ``+inf`` give +inf; the gradient is one-hot for one, and undefined for several.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and
       softmax functions", IMA J. Numer. Anal. 41(4), 2311-2330, 2021.
       doi:10.1093/imanum/draa038

    Examples
    --------
    A small term beside a large one is not lost:

    >>> from softmaxes import online
    >>> print(online.logsumexp(online.update(online.update(online.empty(), -40.0), 0.0)))
    4.248354255291589e-18
    """
    (state,), xp = checked_alike(state=_normaliser("state", state))
    return compute(_states.logsumexp, state, jvp=_states.logsumexp_jvp, xp=xp)


def softmax(x: Array, state: State, /, axis: Axis = -1, *, where: Array = None) -> Array:
    r"""
    Map the scores of a piece to their probabilities among all that was seen.

    .. math:: p_j = \frac{e^{x_j}}{\sum_i e^{x_i}}

    Parameters
    ----------
    x : array, shape (..., n, ...)
        Scores of a piece, in nats.
    state : State
        State of all the pieces, this one among them, of the shape of `x` without `axis`, or one
        that broadcasts to it.
    axis : int, tuple of ints or None, default: -1
        Axis or axes along which the entries of a slice lie; None for all axes.
    where : bool array, broadcastable to `x`, optional
        True for the entries that take part. All others have probability 0 and derivative 0.

    Returns
    -------
    array, same shape as `x`
        Probabilities, each in [0, 1], in the dtype of `x`.

    Raises
    ------
    TypeError
        If `x` is not real, `state` no State, `where` not boolean, or if the arrays belong to
        different libraries.
    ValueError
        If `axis` is out of bounds or repeated, or if the shapes do not broadcast.

    See Also
    --------
    softmaxes.softmax : The same for one array.
    expectation : A mean without the probabilities.

    Notes
    -----
    Relatively accurate in every entry, however small, within 8 ulp, as for one array. JAX
    differentiates it by `x` and by the scores in the state; the Jacobian by both together is
    :math:`\operatorname{diag}(p) - p p^\top`. It is not centred: at a confident entry an error of
    an ulp of 1 remains, where `softmaxes.softmax` has none.

    An entry ``-inf`` has probability 0. One ``+inf`` takes all the probability; several are NaN,
    since no limit exists, wherever they were seen, and the others 0. A NaN makes its own slice NaN.
    A score greater than all that was seen gets more than 1, and inf under an empty state.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and
       softmax functions", IMA J. Numer. Anal. 41(4), 2311-2330, 2021.
       doi:10.1093/imanum/draa038

    Examples
    --------
    >>> from softmaxes import online
    >>> state = online.update(online.update(online.empty(), [1, 2]), [3, 4])
    >>> print(online.softmax([1, 2], state), online.softmax([3, 4], state))
    [0.0320586  0.08714432] [0.23688282 0.64391426]
    """
    call = checked(x=x, axis=axis, where=where)
    call, state = checked_slices("state", _normaliser("state", state), call)
    x, state = mapped(call.in_working_precision, (call.arrays.x, state))
    if call.arrays.where is not None:
        x = call.xp.where(call.arrays.where, x, -call.xp.inf)
    p = compute(_states.softmax, x, state, jvp=_states.softmax_jvp, xp=call.xp)
    return call.shaped(call.xp.astype(p, call.dtype), call.shape)


def expectation(state: State, /) -> Array:
    r"""
    Return the mean of the values under the softmax.

    .. math:: \mathbb{E}[v] = \sum_i p_i v_i, \qquad p_i = \frac{e^{x_i}}{\sum_j e^{x_j}}

    Parameters
    ----------
    state : State
        State of all the pieces, seen with their values.

    Returns
    -------
    array, the shape of `state` with any axes of the values in front
        The mean, between the smallest value and the largest, in the dtype of the state.

    Raises
    ------
    TypeError
        If `state` is no State, or one without values.

    See Also
    --------
    update : Where the values enter.

    Notes
    -----
    The error is a few ulp of :math:`\sum_i p_i |v_i|`. With the scores themselves as values, the
    entropy of the softmax is ``logsumexp(state) - expectation(state)``.  The derivative by a score
    is :math:`p_j (v_j - \mathbb{E}[v])`.

    Over nothing the mean is 0, with derivative 0, and values with probability 0 do not count, even
    inf or NaN. With one score ``+inf`` it is the value there; with several it is NaN.

    References
    ----------
    .. [1] M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax", 2018.
       doi:10.48550/arXiv.1805.02867

    Examples
    --------
    A mean and the entropy in one pass, the values of a piece stacked in front:

    >>> import numpy as np
    >>> from softmaxes import online
    >>> x, v = np.log([0.5, 0.25, 0.25]), np.array([1.0, 2.0, 6.0])
    >>> state = online.empty(mean_shape=())
    >>> for piece in (slice(0, 2), slice(2, 3)):
    ...     state = online.update(state, x[piece], values=np.stack([v, x])[:, piece])
    >>> mean, mean_score = online.expectation(state)
    >>> print(mean, (online.logsumexp(state) - mean_score) / np.log(2))
    2.5 1.5
    """
    _normaliser("state", state)
    if state.mean is None:
        raise TypeError("state must have values, got one without: begin with empty(mean_shape=())")
    ((mean,),), xp = checked_alike(state=(state.mean,))
    return unwrapped(mean, xp=xp)


def _piece(x: Array, axis: Axis, where: Array, values: Array) -> State:
    """Return the state of one piece alone."""
    call = checked(x=x, axis=axis, where=where)
    if values is not None:
        call, values = checked_values(values, call)
    call = call._replace(dtype=call.working)
    maximum, excess = (value(rule, call) for rule in (_rules.maximum, _rules.excess))
    mean = None if values is None else _mean(call, values)
    return State(*compute(_states.piece, maximum, excess, mean, xp=call.xp))


def _mean(call: Call, values: Array) -> Array:
    p = apply(_rules.softmax, call)
    front = tuple(values.shape)[: values.ndim - p.ndim]
    return call.shaped(evaluate(_states.mean, call, p, values), front + call.reduced)


def _merged(**states: State) -> State:
    """Return the merge of two states, named as the arguments that they came in."""
    for name, state in states.items():
        _normaliser(name, state)
    (one, with_mean), (other, with_other) = ((n, s.mean is not None) for n, s in states.items())
    if with_mean != with_other:
        which, less = (one, other) if with_mean else (other, one)
        hint = "begin with empty(mean_shape=()), and give values with every piece"
        raise TypeError(f"{which} has values and {less} has none: {hint}")
    (a, b), xp = checked_alike(**states)
    merged: State = compute(_states.merge, a, b, xp=xp)
    return merged


def _normaliser(name: str, state: Any) -> State:
    """Return the state without its values, once it is known to be one."""
    if not isinstance(state, State):
        kind = f"{type(state).__module__}.{type(state).__qualname__}"
        raise TypeError(f"{name} must be a State, made by empty, update or merge, got {kind}")
    return State(*state[:3])
