"""``python -m softmaxes bench``: how long a call takes here, beside the peers that are installed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

import softmaxes as sm
from softmaxes._cli.report import Table, track
from softmaxes._cli.timing import DRIFT, Times, turns

__all__ = ["NAMES", "Library", "Line", "last_axis", "libraries", "run", "scores", "tables"]

Array = Any
Function = Callable[..., Array]

NAMES = ("softmax", "log_softmax", "logsumexp")
SHAPES = ((8,), (4096, 64), (256, 4096), (1, 1_000_000))


class Library(NamedTuple):
    """An array library, its own functions of our names, and how they are called there."""

    name: str
    peer: str
    functions: Any
    array: Callable[[Array], Array]
    prepared: Callable[[Function], Function]  # compiled, or made to wait for the result


class Line(NamedTuple):
    """What was timed, and the times."""

    library: str
    peer: str
    function: str
    shape: tuple[int, ...]
    times: Times


def run(clock: str) -> list[Line]:
    """Time every function on every library that has a peer here."""
    cases = [
        (library, name, shape) for library in libraries() for shape in SHAPES for name in NAMES
    ]
    return [_line(*case, clock) for case in track(cases, "timing", len(cases))]


def libraries() -> tuple[Library, ...]:
    """Return the libraries whose peers are installed; this imports them."""
    return tuple(library for name, make in MAKERS.items() if find_spec(name) for library in make())


def scores(shape: tuple[int, ...], dtype: str = "float32") -> Array:
    """Return normal random scores."""
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def tables(lines: Iterable[Line], clock: str) -> Iterator[Table]:
    """Yield the table of the lines."""
    columns = {
        "library": "",
        "peer": "",
        "function": "",
        "shape": "",
        "ours_ns": ".3g",
        "peer_ns": ".3g",
        "peer_/_ours": ".2f",
        "steady": "",
    }
    rows = [
        (
            *line[:3],
            " × ".join(map(str, line.shape)),
            1e9 * line.times.ours / np.prod(line.shape),
            1e9 * line.times.theirs / np.prod(line.shape),
            line.times.ratio,
            "yes" if line.times.steady else "no",
        )
        for line in lines
    ]
    yield Table(
        "times", "Time for each entry of float32, beside the peer", columns, rows, _text(clock)
    )


def _text(clock: str) -> str:
    return (
        f"Medians of {clock} time, the two in turns; above 1 the peer takes longer. A copy of an array is\n"
        f"timed with each line: where it drifts by more than {DRIFT:.0%} the line is not steady, and its\n"
        "ratio proves nothing."
    )


def _line(library: Library, name: str, shape: tuple[int, ...], clock: str) -> Line:
    x = library.array(scores(shape))
    ours, theirs = (
        partial(library.prepared(partial(last_axis, getattr(of, name))), x)
        for of in (sm, library.functions)
    )
    return Line(library.name, library.peer, name, shape, turns(ours, theirs, clock=clock))


def last_axis(f: Function, x: Array) -> Array:
    """Return f of the rows, where a compiler may not see the axis."""
    return f(x, -1)


def _of_scipy() -> tuple[Library, ...]:
    special = import_module("scipy.special")
    return (Library("numpy", "scipy.special", special, np.asarray, lambda f: f),)


def _of_jax() -> tuple[Library, ...]:
    jax = import_module("jax")

    def waiting(f: Function) -> Function:
        return lambda *arguments: f(*arguments).block_until_ready()

    make = partial(Library, peer="jax.nn", functions=jax.nn, array=jax.numpy.asarray)
    return (
        make("jax", prepared=waiting),
        make("jax jit", prepared=lambda f: waiting(jax.jit(f))),
    )


def _of_torch() -> tuple[Library, ...]:
    torch = import_module("torch")
    return (Library("torch", "torch", torch, torch.asarray, lambda f: f),)


# package -> the libraries that have their peer in it
MAKERS = {"scipy": _of_scipy, "jax": _of_jax, "torch": _of_torch}
