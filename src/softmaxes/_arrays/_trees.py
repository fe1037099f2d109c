"""Tuples of tuples of arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from softmaxes._arrays._kinds import Array

__all__ = ["leaves", "mapped"]


def mapped(f: Callable[[Array], Array], tree: Any) -> Any:
    """Return the tuples of tuples of arrays with f applied to every array; None stays None."""
    if tree is None:
        return None
    if not isinstance(tree, tuple):
        return f(tree)
    parts: list[Any] = [None if part is None else mapped(f, part) for part in tree]
    return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)


def leaves(tree: Any) -> list[Array]:
    """Return the arrays of the tuples of tuples."""
    if not isinstance(tree, tuple):
        return [] if tree is None else [tree]
    return [leaf for part in tree if part is not None for leaf in leaves(part)]
