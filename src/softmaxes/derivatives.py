"""The rules, callable on any array: no automatic differentiation engine is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from softmaxes._arrays import Array
from softmaxes._linearised import linearised

__all__ = ["hvp", "jacobian", "jvp", "vjp"]

Argnames: TypeAlias = str | tuple[str, ...] | None


def jvp(
    function: Callable[..., Array],
    x: Array,
    v: Array,
    /,
    *rest: Array,
    argnames: Argnames = None,
    **options: Any,
) -> tuple[Array, Array]:
    r"""
    Return the value of a function and its derivative in a direction.

    .. math:: \dot y = J v, \qquad J = \frac{\partial y}{\partial x}

    Parameters
    ----------
    function : callable
        A public function of this package, for instance `softmaxes.softmax`.
    x : array, shape (..., n, ...)
        Scores, in nats, as `function` takes them.
    v : array, same shape as `x`
        Tangent: the direction in which `x` moves.
    *rest : array
        Further positional arguments of `function`.
    argnames : str or tuple of str, optional
        Names of the arguments to differentiate by: by default the first, here called `x`. Only
        `linear_cross_entropy` has others, its `weights` and `bias`. For a tuple of names, `v` is a
        tuple of arrays, of the shapes of the arguments.
    **options : Any
        Keyword arguments of `function`.

    Returns
    -------
    y : array
        ``function(x, *rest, **options)``.
    dy : array, same shape as `y`
        Its directional derivative.

    Raises
    ------
    TypeError
        If `function` has no rule, if `v` is not a real array of the library of `x`, and where
        `function` raises it.
    ValueError
        If `v` does not have the shape of `x`, and where `function` raises it.

    See Also
    --------
    vjp : The transposed product.
    jacobian : The whole matrix.
    hvp : The second derivative.

    Notes
    -----
    The Jacobian of softmax is :math:`\operatorname{diag}(p) - p p^\top`, that of log_softmax
    :math:`I - 1 p^\top`, that of logsumexp :math:`p^\top`. Forward mode [1]_ forms the product
    without the matrix. An entry of probability 0 contributes 0, whatever `v` holds there. The
    products are centred at a dominant entry, so that they stay relatively accurate where 1 - p
    rounds to 0. A temperature divides the first two; with weights, :math:`q_i = w_i e^{x_i - y}`
    stands for p in the third. With respect to `x` only; the other arguments are constants.

    References
    ----------
    .. [1] A. Griewank, A. Walther, "Evaluating Derivatives", SIAM, 2008.
       doi:10.1137/1.9780898717761

    Examples
    --------
    A confident row, where 1 - p is 0 in floating point and p (1 - p) would be lost:

    >>> import numpy as np
    >>> import softmaxes as sm
    >>> p, dp = sm.jvp(sm.softmax, np.array([40.0, 0.0]), np.array([1.0, 0.0]))
    >>> print(1 - p[0], dp)
    0.0 [ 4.24835426e-18 -4.24835426e-18]
    """
    at_x = linearised(function, x, rest, argnames, options)
    return at_x.y, at_x.jvp(v)


def vjp(
    function: Callable[..., Array],
    x: Array,
    /,
    *rest: Array,
    argnames: Argnames = None,
    **options: Any,
) -> tuple[Array, Callable[[Array], Any]]:
    r"""
    Return the value of a function and its pullback.

    .. math:: \bar x = J^\top u, \qquad J = \frac{\partial y}{\partial x}

    Parameters
    ----------
    function : callable
        A public function of this package, for instance `softmaxes.softmax`.
    x : array, shape (..., n, ...)
        Scores, in nats, as `function` takes them.
    *rest : array
        Further positional arguments of `function`.
    argnames : str or tuple of str, optional
        Names of the arguments to differentiate by: by default the first, here called `x`. Only
        `linear_cross_entropy` has others, its `weights` and `bias`. For a tuple of names, `pullback`
        returns a tuple.
    **options : Any
        Keyword arguments of `function`.

    Returns
    -------
    y : array
        ``function(x, *rest, **options)``.
    pullback : callable
        ``pullback(u)`` takes a cotangent of the shape of `y` to the cotangent of `x`; with the
        gradient of a loss by `y` it returns the gradient of the loss by `x`.

    Raises
    ------
    TypeError
        If `function` has no rule, and where `function` raises it; from `pullback`, if `u` is not a
        real array of the library of `x`.
    ValueError
        Where `function` raises it; from `pullback`, if `u` does not have the shape of `y`.

    See Also
    --------
    jvp : The product with the Jacobian itself.
    jacobian : The whole matrix.
    hvp : The second derivative.

    Notes
    -----
    The pullback uses the probabilities computed with the value; calling it evaluates no
    exponential. The transposed Jacobians are, for softmax,
    :math:`\operatorname{diag}(p) - p p^\top`, for log_softmax :math:`I - p 1^\top` and for
    logsumexp :math:`p`; reverse mode [1]_ forms their products without the matrix. Masked entries
    and empty slices have cotangent 0.

    References
    ----------
    .. [1] A. Griewank, A. Walther, "Evaluating Derivatives", SIAM, 2008.
       doi:10.1137/1.9780898717761

    Examples
    --------
    The gradient of the loss -log p at a confident, right answer is small but not 0:

    >>> import numpy as np
    >>> import softmaxes as sm
    >>> logits = np.array([20.0, 0.0, 0.0], dtype=np.float32)
    >>> log_p, pullback = sm.vjp(sm.log_softmax, logits)
    >>> with np.printoptions(precision=5):
    ...     print(pullback(np.array([-1.0, 0.0, 0.0], dtype=np.float32)))
    [-4.12231e-09  2.06115e-09  2.06115e-09]
    """
    at_x = linearised(function, x, rest, argnames, options)
    return at_x.y, at_x.pullback()


def jacobian(function: Callable[..., Array], x: Array, /, *rest: Array, **options: Any) -> Array:
    r"""
    Return the matrix of all first derivatives of a function.

    .. math:: J_{ij} = \frac{\partial y_i}{\partial x_j}

    Parameters
    ----------
    function : callable
        A public function of this package, for instance `softmaxes.softmax`.
    x : array, shape (..., n, ...)
        Scores, in nats, as `function` takes them.
    *rest : array
        Further positional arguments of `function`.
    **options : Any
        Keyword arguments of `function`.

    Returns
    -------
    array, shape ``y.shape + x.shape``
        The Jacobian, in the layout of ``jax.jacobian``.

    Raises
    ------
    TypeError
        If `function` has no rule, and where `function` raises it.
    ValueError
        Where `function` raises it.

    See Also
    --------
    jvp : Its product with a vector, without the matrix.
    vjp : The product of its transpose with a vector.

    Notes
    -----
    The Jacobian of softmax is :math:`p_i (\delta_{ij} - p_j)`, whose rows sum to 0, since the
    probabilities sum to 1. That of log_softmax is :math:`\delta_{ij} - p_j` and that of logsumexp
    :math:`p_j`. One product is formed for each entry of `x`, all at once [1]_: for `size` entries
    the work takes ``size**2`` entries of memory or more, for logsumexp too.

    References
    ----------
    .. [1] A. Griewank, A. Walther, "Evaluating Derivatives", SIAM, 2008.
       doi:10.1137/1.9780898717761

    Examples
    --------
    >>> import numpy as np
    >>> import softmaxes as sm
    >>> print(sm.jacobian(sm.softmax, np.array([40.0, 0.0])))
    [[ 4.24835426e-18 -4.24835426e-18]
     [-4.24835426e-18  4.24835426e-18]]
    """
    return linearised(function, x, rest, None, options).jacobian()


def hvp(
    function: Callable[..., Array],
    x: Array,
    v: Array,
    /,
    *rest: Array,
    argnames: Argnames = None,
    **options: Any,
) -> Any:
    r"""
    Return the second derivative of the sum of a function's outputs, applied to a vector.

    .. math:: H v, \qquad H = \frac{\partial^2}{\partial x^2} \sum_i y_i(x)

    Parameters
    ----------
    function : callable
        A public function of this package, for instance `softmaxes.logsumexp`.
    x : array, shape (..., n, ...)
        Scores, in nats, as `function` takes them.
    v : array, same shape as `x`
        The vector.
    *rest : array
        Further positional arguments of `function`.
    argnames : str or tuple of str, optional
        Names of the arguments to differentiate by: by default the first, here called `x`. Only
        `linear_cross_entropy` has others, its `weights` and `bias`. For a tuple of names, `v` and
        the result are tuples.
    **options : Any
        Keyword arguments of `function`.

    Returns
    -------
    array, same shape as `x`
        The product of the Hessian with `v`.

    Raises
    ------
    TypeError
        If `function` has no rule, if `v` is not a real array of the library of `x`, and where
        `function` raises it.
    ValueError
        If `v` does not have the shape of `x`, and where `function` raises it.

    See Also
    --------
    jvp : The first derivative, in a direction.
    vjp : The first derivative, transposed.

    Notes
    -----
    The Hessian of logsumexp is :math:`\operatorname{diag}(p) - p p^\top`, the Jacobian of softmax.
    That of the sum of a log_softmax is -n times as much, with n the number of entries that are not
    masked, divided by :math:`\tau^2` with a temperature. The sum of a softmax is 1 and has none.
    The matrix is not formed [1]_.

    References
    ----------
    .. [1] A. Griewank, A. Walther, "Evaluating Derivatives", SIAM, 2008.
       doi:10.1137/1.9780898717761

    Examples
    --------
    At tied maxima, where differentiating the shifted formula goes wrong:

    >>> import numpy as np
    >>> import softmaxes as sm
    >>> print(sm.hvp(sm.logsumexp, np.array([1.0, 1.0]), np.array([1.0, 0.0])))
    [ 0.25 -0.25]
    """
    return linearised(function, x, rest, argnames, options).hvp(v)
