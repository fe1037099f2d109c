"""PyTorch's tensors, eager and compiled, beside PyTorch's own kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch

import softmaxes as sm
from measures import FACES, Pair
from measures.on_jax import SHAPES
from softmaxes._cli.bench import scores

__all__ = ["compiled", "eager", "times"]

Function = Callable[..., Any]


def times(prepare: Callable[[Function], Function]) -> Iterator[Pair]:
    """Yield the functions with their gradients."""
    for (kind, shape), name in product(SHAPES.items(), FACES):
        x = torch.asarray(scores(shape)).requires_grad_()
        u = torch.asarray(np.random.default_rng(2).standard_normal(shape), dtype=x.dtype)
        both = (prepare(getattr(of, name)) for of in (sm, torch))
        yield Pair(f"{name}, {kind}", *(partial(backward, f, x, u) for f in both))


def backward(f: Function, x: Any, u: Any) -> Any:
    return torch.autograd.grad(f(x, -1), x, u)


def eager(f: Function) -> Function:
    return f


def compiled(f: Function) -> Function:
    def own(x: Any, axis: int) -> Any:
        return f(x, axis)

    # All functions are one piece of code, of which no more kinds of calls than the limit are compiled.
    torch._dynamo.config.recompile_limit = 2 * len(SHAPES) * len(FACES)
    return torch.compile(own, dynamic=False)
