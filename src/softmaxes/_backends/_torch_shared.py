"""
PyTorch's tensors in the memory of the processor, computed by NumPy, tile by tile, where they lie.

Computed by PyTorch, each operation of a formula is a pass over the whole memory. Nothing is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from softmaxes._arrays import Array, Arrays, Axes, Call, leaves, mapped
from softmaxes._backends import _numpy

__all__ = ["by_rows", "can_move", "is_recorded"]

DTYPES = {torch.float32: np.dtype("float32"), torch.float64: np.dtype("float64")}


def by_rows(f: Callable[..., Array], axis: Axes, working: Any, *arguments: Any) -> Array | None:
    """Return f(*arguments), or None where the tensors are not NumPy's to read."""
    tensors = leaves(arguments)
    if not all(map(_is_plain, tensors)) or is_recorded():
        return None
    try:
        shared = mapped(lambda a: a.detach().numpy(), arguments)
    except RuntimeError:  # a tensor of a transformation has no memory of its own
        return None
    dtype = DTYPES[working]
    call = Call("x", Arrays(None), axis, dtype, dtype, (), (), (), np)
    return torch.from_numpy(_numpy.by_rows(f, call, *shared))


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
