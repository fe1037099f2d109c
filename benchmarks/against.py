"""
Time this version in turns with another: ``nox -s against -- REVISION``.

Each version has a process of its own, and they take turns. A ratio is the time of this version divided
by that of the other: above 1 it has become slower. The exit status is 1 where three quarters of the
turns of a case say that it has, by more than a tenth.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

import softmaxes as sm

OWN = Path(__file__).parents[1] / "src"
FUNCTIONS = {f.__name__: f for f in (sm.softmax, sm.log_softmax, sm.logsumexp)}
SLOWER = 1.1
TURNS = 15
BATCH = 20e-3  # seconds; shorter calls are timed several at once

Work = Callable[[], Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("other", type=Path, nargs="?", help="the src folder of the other version")
    other = parser.parse_args().other
    if other is None:
        return serve()
    with timed(OWN) as ours, timed(other) as theirs:
        slower = [case for case in cases() if report(case, ours, theirs) > SLOWER]
    print(f"slower: {', '.join(slower) or 'none'}")
    return 1 if slower else 0


def cases() -> dict[str, Work]:
    """Return what is timed."""
    rng = np.random.default_rng(0)
    found = {}
    for name, f in FUNCTIONS.items():
        for dtype in ("float32", "float64"):
            x = rng.normal(size=(512, 5_000)).astype(dtype)
            found[f"NumPy {name}, {dtype}"] = partial(f, x, axis=-1)
            found[f"NumPy {name}, wide, {dtype}"] = partial(f, 100 * x, axis=-1)
            found[f"NumPy {name}, masked, {dtype}"] = partial(f, x, axis=-1, where=x < 1)
            found[f"NumPy {name}, axis 0, {dtype}"] = partial(f, x, axis=0)
        few = x[0, :8].copy()
        found[f"NumPy {name}, 8 entries"] = partial(f, few, axis=-1)
        found[f"NumPy {name}, 8 entries, masked"] = partial(f, few, axis=-1, where=few < 1)
        found[f"NumPy {name}, 8 entries of a list"] = partial(f, few.tolist(), axis=-1)
        found[f"JAX {name}, compiled"] = on_jax(partial(f, axis=-1), x)
        found[f"JAX gradient of {name}, compiled"] = on_jax(jax.grad(partial(total, f)), x)
        found[f"PyTorch gradient of {name}"] = partial(on_torch, f, torch.asarray(x[:, :500]))
    return found


def total(f: Callable[..., Any], x: Any) -> Any:
    return (f(x, axis=-1) ** 2).sum()


def on_jax(f: Callable[..., Any], x: Any) -> Work:
    x, f = jnp.asarray(x, "float32"), jax.jit(f)
    return lambda: f(x).block_until_ready()


def on_torch(f: Callable[..., Any], x: Any) -> Any:
    x = x.requires_grad_()
    return torch.autograd.grad(total(f, x), x)


# One version in a process -------------------------------------------------------------------------


def serve() -> int:
    """Answer the name of each case on standard input with the seconds that a call takes."""
    works = cases()
    for line in sys.stdin:
        print(seconds(works[line.strip()]), flush=True)
    return 0


def seconds(work: Work) -> float:
    once = lap(work, 1)
    return lap(work, max(1, min(1000, round(BATCH / once))))


def lap(work: Work, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - start) / calls


def timed(source: Path) -> subprocess.Popen[str]:
    """Start a process that times the version in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(source)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, __file__], env=environment, **pipes)


def ask(process: subprocess.Popen[str], case: str) -> float:
    print(case, file=process.stdin, flush=True)
    return float(process.stdout.readline())


def report(case: str, ours: subprocess.Popen[str], theirs: subprocess.Popen[str]) -> float:
    """Print the ratio of a case, and return what three quarters of the turns exceed."""
    ratios = [ask(ours, case) / ask(theirs, case) for _ in range(TURNS)]
    quarter, median, _ = statistics.quantiles(ratios)
    print(f"{median:6.2f}  {case}", flush=True)
    return quarter


if __name__ == "__main__":
    sys.exit(main())
