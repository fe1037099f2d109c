"""What the command line asks of JAX; the only file of the command line that says ``import jax``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from softmaxes._cli.backends import Backend, value
from softmaxes._cli.classifier import loss
from softmaxes._cli.newton import Minimum, minimise

__all__ = ["backends", "train"]

Array = Any
Function = Callable[..., Array]


def train(features: Array, targets: Array, penalty: float) -> Minimum:
    """Train in JAX: compiled ``jax.grad`` of the loss, and ``jax.jvp`` of that gradient."""
    with _double_precision():
        data = jnp.asarray(features), jnp.asarray(targets), penalty
        gradient = jax.jit(jax.grad(loss))

        @jax.jit
        def curvature(weights: Array, direction: Array, *data: Array) -> Array:
            return jax.jvp(lambda w: gradient(w, *data), (weights,), (direction,))[1]

        return minimise(
            lambda w: gradient(w, *data),
            lambda w, d: curvature(w, d, *data),
            jnp.zeros((features.shape[1], targets.shape[1])),
        )


def backends() -> tuple[Backend, ...]:
    """Return JAX eager and JAX compiled, with the derivatives JAX itself takes through our rules."""
    jit = partial(jax.jit, static_argnums=0, static_argnames="axis")
    make = partial(Backend, xp=jnp, session=_double_precision, flushes_subnormals=True)
    return (
        make("jax", value, _jvp, _vjp, _hvp),
        make("jax jit", jit(value), jit(_jvp), jit(_vjp), jit(_hvp), traces=True),
    )


def _jvp(function: Function, x: Array, v: Array, *rest: Array, **options: Any) -> Array:
    return jax.jvp(lambda x: function(x, *rest, **options), (x,), (v,))[1]


def _vjp(function: Function, x: Array, u: Array, *rest: Array, **options: Any) -> Array:
    return jax.vjp(lambda x: function(x, *rest, **options), x)[1](u)[0]


def _hvp(function: Function, x: Array, v: Array, *rest: Array, **options: Any) -> Array:
    gradient = jax.grad(lambda x: function(x, *rest, **options).sum())
    return jax.jvp(gradient, (x,), (v,))[1]


def _double_precision() -> Any:
    # For the length of a with block: the global setting stays as the user has it.
    return jax.enable_x64(True)
