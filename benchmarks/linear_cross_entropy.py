"""
Print time and memory of `linear_cross_entropy` next to the loss of scores that are formed.

    python benchmarks/linear_cross_entropy.py

Both are compiled by JAX, and run in turn. The ratios are those of the least times, and of the medians;
processor time stands beside that on the wall, which other work on the machine disturbs. Memory is
what XLA says it needs for temporaries. Names of cases as arguments choose among them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import softmaxes as sm

N, H, V = 4096, 256, 32768
REPEATS = 5
VALID = jnp.arange(N) % 4 != 0


def problem(n: int = N, h: int = H, v: int = V) -> tuple[Any, ...]:
    """Return features, weights and labels."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((n, h), dtype="float32")
    weights = rng.standard_normal((v, h), dtype="float32") / np.float32(h**0.5)
    return tuple(map(jnp.asarray, (features, weights, rng.integers(0, v, n))))


def plain(
    labels: Any, features: Any, weights: Any, *, valid: Any = 1.0, smoothing: float = 0.0
) -> Any:
    """Return the mean loss as one would write it with optax."""
    logits = features @ weights.T
    if smoothing:
        soft = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[1]), smoothing)
        return optax.softmax_cross_entropy(logits, soft).mean()
    return (valid * optax.softmax_cross_entropy_with_integer_labels(logits, labels)).mean()


def tiled(
    labels: Any, features: Any, weights: Any, *, valid: Any = None, smoothing: float = 0.0
) -> Any:
    """Return the same mean loss without the logits."""
    where = None if valid is None else valid[:, None]
    loss = sm.linear_cross_entropy(
        features, weights, labels, where=where, label_smoothing=smoothing
    )
    return loss.mean()


def value_and_grad(loss: Callable[..., Any]) -> Callable[..., Any]:
    return jax.value_and_grad(loss, (0, 1))


def jvp(loss: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *a: jax.jvp(loss, a, tuple(b[::-1] for b in a))


def hvp(loss: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *a: jax.jvp(jax.grad(loss, (0, 1)), a, tuple(b[::-1] for b in a))[1]


def jvp_by_weights(loss: Callable[..., Any]) -> Callable[..., Any]:
    return lambda f, w: jax.jvp(partial(loss, f), (w,), (w[::-1],))


CASES: dict[str, tuple[Any, dict[str, Any], tuple[int, int, int]]] = {
    "value and gradient": (value_and_grad, {}, (N, H, V)),
    "N and V odd": (value_and_grad, {}, (N + 3, H, V + 3)),
    "a quarter ignored": (value_and_grad, {"valid": VALID}, (N, H, V)),
    "smoothing 0.1": (value_and_grad, {"smoothing": 0.1}, (N, H, V)),
    "jvp": (jvp, {}, (N, H, V)),
    "jvp by weights": (jvp_by_weights, {}, (N, H, V)),
    "hvp": (hvp, {}, (N, H, V)),
    "8 V": (value_and_grad, {}, (N // 8, H, 8 * V)),
    "8 N": (value_and_grad, {}, (8 * N, H, V // 8)),
}


def compiled(transform: Any, loss: Any, labels: Any, arrays: Any, options: Any) -> Any:
    def f(labels: Any, *arrays: Any) -> Any:
        return transform(partial(loss, labels, **options))(*arrays)

    return jax.jit(f).lower(labels, *arrays).compile()


def clocked(f: Any, *arguments: Any) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    jax.block_until_ready(f(*arguments))
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    print(
        f"{'':20}  wall s: plain tiled   min median   cpu s: plain tiled   min median   MiB: plain tiled"
    )
    chosen = sys.argv[1:] or list(CASES)
    for name in chosen:
        transform, options, size = CASES[name]
        features, weights, labels = problem(*size)
        both = [
            compiled(transform, f, labels, (features, weights), options) for f in (plain, tiled)
        ]
        runs = [[clocked(f, labels, features, weights) for f in both] for _ in range(REPEATS + 1)]
        least, median = np.min(runs[1:], axis=0), np.median(runs[1:], axis=0)
        print(f"{name:20}", end="")
        for (p, t), (m_p, m_t) in zip(least.T, median.T, strict=True):
            print(f"{p:15.2f} {t:5.2f} {t / p:5.2f} {m_t / m_p:6.2f}", end="")
        p, t = (f.memory_analysis().temp_size_in_bytes / 2**20 for f in both)
        print(f"{p:13.0f} {t:5.1f}", flush=True)


if __name__ == "__main__":
    main()
