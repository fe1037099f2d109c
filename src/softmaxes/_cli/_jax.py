"""What the command line asks of JAX; the only file of the command line that says ``import jax``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .backends import Backend
from .classifier import loss
from .newton import Minimum, minimise

__all__ = ["Jax", "device", "double_precision", "train"]

Array = Any


def double_precision() -> AbstractContextManager[Any]:
    """Allow float64 for the length of a ``with`` block; the global setting stays as it is."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64  # JAX before 0.8

    return enable_x64(True)


def device() -> str:
    """Name the device that JAX computes on."""
    first = jax.devices()[0]
    return f"{first.platform} ({first.device_kind})"


def train(features: Array, targets: Array, penalty: float) -> Minimum:
    """Train in JAX: compiled ``jax.grad`` of the loss, and ``jax.jvp`` of that gradient."""
    with double_precision():
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


class Jax(Backend):
    """JAX, eager or compiled, with the derivatives that JAX itself takes through our rules."""

    flushes_subnormals = True

    def __init__(self, name: str, compile: Callable[..., Any]) -> None:
        super().__init__(name, jnp)
        self.compile = compile

    def session(self) -> AbstractContextManager[Any]:
        return double_precision()

    def value(self, function: Callable[..., Array], x: Array, **options: Any) -> Array:
        return self.compile(partial(function, **options))(x)

    def jvp(self, function: Callable[..., Array], x: Array, v: Array, **options: Any) -> Array:
        f = partial(function, **options)
        return self.compile(lambda x, v: jax.jvp(f, (x,), (v,))[1])(x, v)

    def vjp(self, function: Callable[..., Array], x: Array, u: Array, **options: Any) -> Array:
        f = partial(function, **options)
        return self.compile(lambda x, u: jax.vjp(f, x)[1](u)[0])(x, u)

    def hvp(self, function: Callable[..., Array], x: Array, v: Array, **options: Any) -> Array:
        gradient = jax.grad(lambda x: function(x, **options).sum())
        return self.compile(lambda x, v: jax.jvp(gradient, (x,), (v,))[1])(x, v)


def backends() -> tuple[Backend, ...]:
    """Return JAX eager and JAX compiled."""
    return Jax("jax", lambda f: f), Jax("jax jit", jax.jit)
