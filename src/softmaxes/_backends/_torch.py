"""
PyTorch: the rules as one `torch.autograd.Function`.

Its derivatives are made of functions that have rules themselves, so there is one of every order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from typing import Any, TypeAlias

import torch
from array_api_compat import torch as xp
from torch.autograd import forward_ad

from softmaxes import _rules, _states
from softmaxes._arrays import Array, Arrays, Axes, Axis, Call, checked, leaves, mapped
from softmaxes._backends import _torch_scores as _scores
from softmaxes._backends import _torch_shared as _shared
from softmaxes._rules import Rule, ingredients

__all__ = [
    "Flat",
    "Function",
    "alone",
    "applied",
    "apply",
    "compute",
    "computed",
    "in_graph",
    "in_its_dtypes",
    "in_one_node",
    "is_ordinary",
    "keep_from_the_compiler",
    "transposed",
]

Flat: TypeAlias = Sequence[Array]


def apply(rule: Rule, call: Call) -> Array:
    """Return the rule's function of the call's arrays."""
    keep_from_the_compiler()
    if not torch.compiler.is_compiling() and not _shared.can_move(call.arrays):
        f = _OfScores(rule, call.axis, call.working, call.dtype)
        y = f.by_numpy(rule.primal, f.wide(call.arrays))
        if y is not None:
            return y.to(call.dtype)
    return applied(rule.primal.__name__, call.axis, call.working, call.dtype, call.arrays)


def compute(f: Callable[..., Array], jvp: Callable[..., Array], *arguments: Any) -> Array:
    """Return a formula of states, differentiated by its JVP."""
    keep_from_the_compiler()
    return computed(f.__name__, jvp.__name__, arguments)


def is_ordinary(x: Array, axis: Axis) -> bool:
    """Tell whether scores alone are such that nothing in a call of them is to be refused or converted."""
    is_there = axis is None or (isinstance(axis, int) and -x.ndim <= axis < x.ndim)
    return x.ndim > 0 and x.is_floating_point() and is_there


def in_one_node(function: str, name: str, x: Array, axis: int | None, keepdims: bool) -> Array:
    """Return a function of ordinary scores of that name, checked out of sight of the compiler."""
    # What it has seen, it looks at again in every call: a tenth of the time of a million entries.
    keep_from_the_compiler()
    return alone(function, name, x, axis, keepdims)


# What a compiler keeps as one node of its graph, which holds names and numbers but no functions.


def alone(function: str, name: str, x: Array, axis: int | None, keepdims: bool) -> Array:
    """Return the function that has the rule of this name, in the shape of the result."""
    rule, call = getattr(_rules, function), checked(**{name: x}, axis=axis, keepdims=keepdims)
    y = applied(function, call.axis, call.working, call.dtype, call.arrays)
    return call.shaped(y, call.reduced if rule.reduces else call.shape)


def applied(name: str, axis: Axes, working: Any, dtype: Any, arrays: Arrays) -> Array:
    """Return the function that has the rule of this name."""
    return Function.apply(_OfScores(getattr(_rules, name), axis, working, dtype), *arrays)


def computed(name: str, jvp: str, arguments: tuple[Any, ...]) -> Array:
    """Return the formula of this name."""
    template = mapped(lambda _: 0, arguments)
    f = _OfStates(getattr(_states, name), getattr(_states, jvp), template)
    arrays = leaves(arguments)
    ndim = max(a.ndim for a in arrays)
    return Function.apply(f, *(a[(None,) * (ndim - a.ndim)] for a in arrays))


def in_graph(f: Callable[..., Array]) -> None:
    """Let `torch.compile` put a function into its graph without looking into it."""
    torch.compiler.allow_in_graph(f)


def keep_from_the_compiler() -> None:
    # It would look into the functions and differentiate the formulas. Of what it looks into it
    # executes the imports only; and where none is at work, importing the compiler takes seconds.
    if torch.compiler.is_compiling():
        from softmaxes._backends import _torch_compiled  # noqa: F401


@dataclass(frozen=True)
class _OfScores:
    """The function of a rule, computed in the dtype `working` and rounded to `dtype`."""

    rule: Rule
    axis: Axes
    working: Any
    dtype: Any

    def value(self, *arrays: Array) -> Array:
        y = self.evaluated(self.rule.primal, self.wide(arrays)).to(self.dtype)
        return y.view_as(y) if any(y is a for a in arrays) else y  # as a Function must

    def tangent(self, y: Array, arrays: Flat, tangents: Flat) -> Array:
        p, d = ingredients(self.rule, partial(self.known, y, arrays), Arrays(*tangents))
        arrays, tangents = self.wide(arrays), self.wide(tangents)
        return self.rule.jvp(p, d, arrays, tangents, axis=self.axis, xp=xp).to(self.dtype)

    def cotangents(self, y: Array, arrays: Flat, u: Array, needs: Sequence[bool]) -> Flat:
        if not self.needs_only_x(needs):
            return transposed(partial(self.tangent, y, arrays), arrays, u, needs)
        can_move, none = _shared.can_move([y, *arrays, u]), [None for _ in arrays[1:]]
        given = self.wide(arrays), u.to(self.working)
        if y is None and not can_move:
            g = _shared.pulled(self.rule.pull, self.axis, self.working, *given)
            if g is not None:
                return g, *none
        p, _ = ingredients(self.rule, partial(self.known, y, arrays), Arrays(None))
        evaluated = self.by_pytorch if can_move else self.evaluated
        return evaluated(self.rule.vjp, p, *given), *none

    def evaluated(self, f: Callable[..., Array], *arguments: Any) -> Array:
        """Return f(*arguments), by NumPy where that can be."""
        y = self.by_numpy(f, *arguments)
        return self.by_pytorch(f, *arguments) if y is None else y

    def by_numpy(self, f: Callable[..., Array], *arguments: Any) -> Array | None:
        y = _shared.by_rows(f, self.axis, self.working, *arguments)
        if y is None or not leaves(arguments)[0].is_contiguous():
            return y
        return y.contiguous()  # as PyTorch's own functions keep it, for those who call `view`

    def by_pytorch(self, f: Callable[..., Array], *arguments: Any) -> Array:
        of = _scores.formula(f, self.axis, arguments) if _shared.is_recorded() else f
        return of(*arguments, axis=self.axis, xp=xp)

    def kept(self, y: Array, arrays: Flat, needs: Sequence[bool]) -> Flat:
        """Return y and the arrays, None for those that the derivatives can do without."""
        x, _, *options = arrays
        # A narrow input is half the size of the probabilities.
        if self.rule.probabilities is not None or x.dtype != self.working:
            return None, *arrays
        if self.needs_only_x(needs):  # where the mask is False the probabilities are 0
            return y, None, None, *options
        return y, *arrays

    def needs_only_x(self, needs: Sequence[bool]) -> bool:
        return self.rule.vjp is not None and not any(needs[1:])

    def known(self, y: Array, arrays: Flat, rule: Rule) -> Array:
        """Return the function of a rule before it is rounded, which is y if that is kept."""
        if rule is self.rule and y is not None:
            return y
        return Function.apply(replace(self, rule=rule, dtype=self.working), *arrays)

    def wide(self, arrays: Flat) -> Arrays:
        real = (a is not None and a.is_floating_point() for a in arrays)
        pairs = zip(arrays, real, strict=True)
        return Arrays(*(a.to(self.working) if is_real else a for a, is_real in pairs))


@dataclass(frozen=True)
class _OfStates:
    """A formula of tuples of arrays, of which the template has the form."""

    f: Callable[..., Array]
    jvp: Callable[..., Array]
    template: Any

    def value(self, *arrays: Array) -> Array:
        return self.f(*self.shaped(arrays), xp=xp)

    def tangent(self, y: Array, arrays: Flat, tangents: Flat) -> Array:
        pairs = zip(arrays, tangents, strict=True)
        moving = (torch.zeros_like(a) if v is None else v for a, v in pairs)
        return self.jvp(y, self.shaped(arrays), self.shaped(moving), xp=xp)

    def cotangents(self, y: Array, arrays: Flat, u: Array, needs: Sequence[bool]) -> Flat:
        return transposed(partial(self.tangent, y, arrays), arrays, u, needs)

    def kept(self, y: Array, arrays: Flat, needs: Sequence[bool]) -> Flat:
        return y, *arrays

    def shaped(self, arrays: Iterable[Array]) -> Any:
        flat = iter(arrays)
        return mapped(lambda _: next(flat), self.template)


class Function(torch.autograd.Function):
    """One of the above, differentiable in every mode and to every order."""

    @staticmethod
    def forward(f: Any, *arrays: Array) -> Array:
        with in_its_dtypes(arrays):
            return f.value(*arrays)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, y: Array) -> None:
        ctx.f, *arrays = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_forward(*ctx.f.kept(y, arrays, (True,) * len(arrays)))
        ctx.save_for_backward(*ctx.f.kept(y, arrays, ctx.needs_input_grad[1:]))

    @staticmethod
    def backward(ctx: Any, u: Array) -> Any:
        if u is None:
            return (None,) * len(ctx.needs_input_grad)
        y, *arrays = ctx.saved_tensors  # once: a checkpoint does not hand them out again
        with in_its_dtypes([y, *arrays]):
            return None, *ctx.f.cotangents(y, arrays, u, ctx.needs_input_grad[1:])

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Array) -> Array:
        # What is saved moves itself, in this direction and perhaps in an outer one, which counts.
        still = partial(forward_ad.unpack_dual, level=0)
        y, *arrays = (None if a is None else still(a).primal for a in ctx.saved_tensors)
        with forward_ad._set_fwd_grad_enabled(True), in_its_dtypes([y, *arrays]):
            return ctx.f.tangent(y, arrays, tangents)

    @staticmethod
    def vmap(info: Any, in_dims: Any, f: Any, *arrays: Array) -> tuple[Array, int]:
        # Axes count from the end, so the batch can stand in front.
        def batch_first(a: Array, d: int | None) -> Array:
            if a is None or d is not None:
                return a if a is None else a.movedim(d, 0)
            return a.expand(info.batch_size, *a.shape)

        return Function.apply(f, *map(batch_first, arrays, in_dims[1:])), 0


# PyTorch asks for it at every call, and else would find it out anew.
setattr(Function.forward, "__signature__", signature(Function.forward))  # noqa: B010


def in_its_dtypes(arrays: Flat) -> Any:
    """Compute in the dtypes of the arrays: autocast would round the factors of a product."""
    kind = next(a.device.type for a in arrays if a is not None)
    would_round = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if would_round else nullcontext()


def transposed(
    linear: Callable[[Flat], Array], arrays: Flat, u: Array, needs: Sequence[bool]
) -> Flat:
    """Return the cotangents of the arrays that need one, by the transpose of the JVP."""
    n = range(len(arrays))
    zeros = {i: torch.zeros_like(arrays[i]) for i in n if needs[i]}
    _, pullback = torch.func.vjp(lambda v: linear([v.get(i) for i in n]), zeros)
    (found,) = pullback(u)
    return [found.get(i) for i in n]
