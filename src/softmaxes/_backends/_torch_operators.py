"""
NumPy's compiled loops as one operator of PyTorch, which its compiler calls as it stands.

There is no formula to compile then. In the graph a function has a name, and no derivative: the rules
take none through it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import torch

from softmaxes import _rules
from softmaxes._arrays import Array, Arrays, Axes, leaves
from softmaxes._backends import _numpy
from softmaxes._backends import _torch_shared as _shared

__all__ = ["by_loops"]

FEW = 1 << 16  # entries, below which the way to NumPy is longer than the work
RULES, PARTS = ("softmax", "log_softmax", "logsumexp"), ("primal", "vjp", "pull")
FUNCTIONS = {
    f"{rule} {part}": getattr(getattr(_rules, rule), part) for rule, part in product(RULES, PARTS)
}
NAMES = {f: name for name, f in FUNCTIONS.items()}


def by_loops(f: Callable[..., Array], axis: Axes, *arguments: Any) -> Array | None:
    """Return f(*arguments), a node of the graph; None where there is no loop, or little to do."""
    tensors = leaves(arguments)
    if f not in NAMES or not _is_for_loops(NAMES[f], axis, tensors[0], arguments):
        return None
    y: Array = torch.ops.softmaxes.by_loops(NAMES[f], axis, tensors)
    return y


def _is_for_loops(name: str, axis: Axes, first: Array, arguments: Any) -> bool:
    (arrays,) = (a for a in arguments if isinstance(a, Arrays))
    rule, part = name.split()
    is_here = first.device.type == "cpu" and first.dtype in _shared.DTYPES
    is_long = is_here and first.numel() >= FEW and first.is_contiguous()
    has_pull = _numpy.has_pull(FUNCTIONS[f"{rule} pull"], axis, arrays._replace(x=first))
    return is_long and has_pull and (part != "vjp" or _numpy.are_rows(first, axis))


def _arguments(name: str, *tensors: Array) -> tuple[Any, ...]:
    """Return scores, and a mask if there is one, or probabilities, as the function takes them."""
    if name.endswith("primal"):
        return (Arrays(*tensors),)
    *given, u = tensors
    return (*given, Arrays(None), u) if name.endswith("vjp") else (Arrays(*given), u)


def _by_loops(name: str, axis: list[int], tensors: list[Array]) -> Array:
    arguments = _arguments(name, *(a.detach().numpy() for a in tensors))
    y = _shared.computed(FUNCTIONS[name], tuple(axis), tensors[0].dtype, *arguments)
    return y.contiguous()


def _like_by_loops(name: str, axis: list[int], tensors: list[Array]) -> Array:
    """Return a tensor of the shape of the result, in which nothing need stand."""
    first, *_ = tensors
    lengths = enumerate(first.shape, -first.ndim)
    is_reduced = name == "logsumexp primal"
    return first.new_empty([1 if is_reduced and a in axis else n for a, n in lengths])


OPERATOR = "softmaxes::by_loops"
torch.library.define(OPERATOR, "(str name, int[] axis, Tensor[] tensors) -> Tensor")
torch.library.impl(OPERATOR, "cpu", _by_loops)
torch.library.register_fake(OPERATOR, _like_by_loops)
# Else a call takes half as long again, to find that nothing is to be differentiated.
_library = torch.library.Library("softmaxes", "FRAGMENT")
_library.impl("by_loops", torch.library.fallthrough_kernel, "Autograd")
