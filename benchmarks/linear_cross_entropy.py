"""
Print time and memory of `linear_cross_entropy` next to the loss of logits that are formed.

    python benchmarks/linear_cross_entropy.py [--small] [--repeats 5]

Time is the least of some repetitions, which alternate between the two; memory is the size of the
temporaries in XLA's own account of the compiled function.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import softmaxes as sm

MIB = 1 << 20


class Problem(NamedTuple):
    """Features (N, H), weights (V, H) and labels (N,)."""

    features: jax.Array
    weights: jax.Array
    labels: jax.Array


def problem(n: int, h: int, v: int) -> Problem:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((n, h), dtype="float32")
    weights = rng.standard_normal((v, h), dtype="float32") / np.float32(h**0.5)
    return Problem(*map(jnp.asarray, (features, weights, rng.integers(0, v, n))))


def plain(
    features: Any, weights: Any, labels: Any, valid: Any = None, smoothing: float = 0.0
) -> Any:
    """Return the mean loss of optax."""
    logits = features @ weights.T
    if smoothing:
        q = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
        return jnp.mean(optax.softmax_cross_entropy(logits, q))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(losses if valid is None else jnp.where(valid, losses, 0))


def tiled(
    features: Any, weights: Any, labels: Any, valid: Any = None, smoothing: float = 0.0
) -> Any:
    where = None if valid is None else valid[:, None]
    loss = partial(sm.losses.linear_cross_entropy, where=where, label_smoothing=smoothing)
    return jnp.mean(loss(features, weights, labels))


def value_and_grad(loss: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    return jax.value_and_grad(partial(loss, **options), (0, 1))


def jvp(loss: Callable[..., Any], moving: tuple[int, ...]) -> Callable[..., Any]:
    def f(*arrays: Any) -> Any:
        of_moving = lambda *m: loss(*_with(arrays, moving, m))
        start = tuple(arrays[i] for i in moving)
        return jax.jvp(of_moving, start, tuple(a[::-1] for a in start))

    return f


def hvp(loss: Callable[..., Any], moving: tuple[int, ...]) -> Callable[..., Any]:
    def f(*arrays: Any) -> Any:
        of_moving = lambda *m: loss(*_with(arrays, moving, m))
        start = tuple(arrays[i] for i in moving)
        gradient = jax.grad(of_moving, tuple(range(len(moving))))
        return jax.jvp(gradient, start, tuple(a[::-1] for a in start))[1]

    return f


def _with(arrays: Any, places: Any, values: Any) -> list[Any]:
    arrays = list(arrays)
    for i, value in zip(places, values, strict=True):
        arrays[i] = value
    return arrays


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--repeats", type=int, default=3)
    a = p.parse_args()
    import sys

    base = problem(4096, 256, 32768)
    odd = problem(4099, 256, 32771)
    valid = jnp.arange(4096) % 4 != 0
    rows = {
        "vg": (lambda l: value_and_grad(l), base),
        "odd": (lambda l: value_and_grad(l), odd),
        "ignored": (lambda l: value_and_grad(l, valid=valid), base),
        "smooth": (lambda l: value_and_grad(l, smoothing=0.1), base),
        "jvp F": (lambda l: jvp(l, (0,)), base),
        "jvp W": (lambda l: jvp(l, (1,)), base),
        "jvp FW": (lambda l: jvp(l, (0, 1)), base),
        "hvp F": (lambda l: hvp(l, (0,)), base),
        "hvp FW": (lambda l: hvp(l, (0, 1)), base),
        "grad F": (lambda l: jax.grad(l), base),
        "value": (lambda l: l, base),
    }
    for k, (mk, pr) in rows.items():
        out = []
        fs = [jax.jit(mk(l)).lower(*pr).compile() for l in (plain, tiled)]
        for f in fs:
            jax.block_until_ready(f(*pr))
        ts = [[], []]
        cs = [[], []]
        for _ in range(a.repeats):
            for i, f in enumerate(fs):
                t = time.perf_counter()
                c = time.process_time()
                jax.block_until_ready(f(*pr))
                ts[i].append(time.perf_counter() - t)
                cs[i].append(time.process_time() - c)
        m = [f.memory_analysis().temp_size_in_bytes / MIB for f in fs]
        print(
            f"{k:8} wall {min(ts[0]):.2f} {min(ts[1]):.2f} ratio {min(ts[1]) / min(ts[0]):.2f} cpu {min(cs[0]):.2f} {min(cs[1]):.2f} ratio {min(cs[1]) / min(cs[0]):.2f} temp {m[0]:.0f} {m[1]:.1f} 1/{m[0] / m[1]:.0f}",
            flush=True,
        )


main()
