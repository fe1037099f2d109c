"""
PyTorch's tensors in the memory of the processor, computed by NumPy, tile by tile, where they lie.

Computed by PyTorch, each operation of a formula is a pass over the whole memory. Nothing is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from softmaxes._arrays import Array, Arrays, Axes, Call, leaves, mapped
from softmaxes._backends import _numpy
from softmaxes._backends._compiled import loops
from softmaxes._backends._threads import beside_threads_that_stay
from softmaxes._backends._torch_threads import team

__all__ = ["DTYPES", "by_rows", "can_move", "computed", "is_recorded", "pulled"]

DTYPES = {torch.float32: np.dtype("float32"), torch.float64: np.dtype("float64")}


def by_rows(f: Callable[..., Array], axis: Axes, working: Any, *arguments: Any) -> Array | None:
    """Return f(*arguments), or None where the tensors are not NumPy's to read."""
    if is_recorded():
        return _recorded(f, axis, *arguments)
    given = _read(arguments)
    return given and computed(f, axis, working, *given)


def pulled(
    f: Callable[..., Array], axis: Axes, working: Any, arrays: Arrays, u: Array
) -> Array | None:
    """Return the cotangents of scores by the `pull` of a rule, or None where no loop is compiled for it."""
    has_pull = _numpy.has_pull(f, axis, arrays)
    return by_rows(f, axis, working, arrays, u) if has_pull else None


def computed(f: Callable[..., Array], axis: Axes, working: Any, *arguments: Any) -> Array:
    """Return f(*arguments) of arrays of NumPy, as a tensor."""
    call = _call(axis, DTYPES[working])
    with beside_threads_that_stay(team()):
        if (known := _numpy.as_rows(f, call, *arguments)) is not None:
            rows, shape = known
            y = torch.empty(shape, dtype=working)  # from the start of a line, unlike NumPy's
            _numpy.write_rows(f, call, rows, y.numpy(), *arguments)
            return y
        if loops() is None or f not in loops().PULLS:
            return torch.from_numpy(_numpy.by_rows(f, call, *arguments))
        arrays, u = arguments
        out = np.empty_like(arrays.x, order="C")
        _numpy.written(f, call, arrays, u, out=out)
        return torch.from_numpy(out)


@cache
def _call(axis: Axes, dtype: Any) -> Call:
    return Call("x", Arrays(None), axis, dtype, dtype, (), (), (), np)


def _recorded(f: Callable[..., Array], axis: Axes, *arguments: Any) -> Array | None:
    """Return f(*arguments) as a node of a compiler's graph, or None where it makes better code."""
    is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # since 2.7
    if loops() is None or not torch.compiler.is_compiling() or is_exporting():
        return None
    from softmaxes._backends._torch_operators import by_loops

    return by_loops(f, axis, *arguments)


def _read(arguments: Any) -> Any:
    """Return tensors as arrays of NumPy, or None where they are not NumPy's to read."""
    if not all(map(_is_plain, leaves(arguments))):
        return None
    try:
        return mapped(lambda a: a.detach().numpy(), arguments)
    except RuntimeError:  # a tensor of a transformation has no memory of its own
        return None


def can_move(arrays: Sequence[Any]) -> bool:
    """Tell whether a derivative of what is computed of the tensors may be asked for."""
    # Within a transformation it may, and a batch refuses to tell whether it moves.
    if torch._C._functorch.maybe_current_level() is not None:
        return True
    tensors = [a for a in arrays if a is not None]
    recorded = torch.is_grad_enabled() and any(a.requires_grad for a in tensors)
    return recorded or any(forward_ad.unpack_dual(a).tangent is not None for a in tensors)


def _is_plain(a: Any) -> bool:
    is_tensor = type(a) in (torch.Tensor, torch.nn.Parameter)
    return is_tensor and a.device.type == "cpu" and a.layout is torch.strided


def is_recorded() -> bool:
    """Tell whether something notes the operations that are carried out."""
    return bool(torch._C._len_torch_dispatch_stack())
