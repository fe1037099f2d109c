"""
Print the time per entry on NumPy next to SciPy's: ``python benchmarks/rows.py``.

Every line alternates between the two libraries in one process and shows medians of processor time,
over all threads, since that of the clock depends on what else runs. A copy of the array, measured
before and after each line, tells how steady the machine is: a line during which it drifts by more
than a tenth is marked.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable
from functools import partial

import numpy as np
import scipy.special

import softmaxes as sm

NAMES = ("softmax", "log_softmax", "logsumexp")
SHAPES = {
    "a vocabulary": (512, 5_000),
    "short rows": (40_000, 64),
    "one long row": (1, 2_000_000),
}
REPEATS = 5


def main() -> None:
    print("| array | dtype | function | ours, ns | SciPy, ns | SciPy ÷ ours | steady |")
    print("|---|---|---|---|---|---|---|")
    for dtype in ("float32", "float64"):
        for kind, shape in SHAPES.items():
            x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
            for name in NAMES:
                compare(f"{kind} {shape}", name, x, axis=-1)
        x = np.random.default_rng(0).standard_normal(SHAPES["a vocabulary"]).astype(dtype)
        mask = np.random.default_rng(1).random(x.shape) < 0.5
        masked = np.where(mask, x, -np.inf)
        for name in NAMES:
            compare(f"axis 0 {x.shape}", name, x, axis=0)
            compare(f"masked {x.shape}", name, x, masked, axis=-1, where=mask)
            compare("8 entries", name, x[0, :8], axis=-1, calls=200)
    print()
    memory(np.ones((512, 5_000), "float32"))


def compare(
    label: str,
    name: str,
    x: np.ndarray,
    scipys: np.ndarray | None = None,
    *,
    axis: int,
    calls: int = 1,
    **options: np.ndarray,
) -> None:
    """Print one line; SciPy, which has no masks, is given -inf."""
    ours = partial(getattr(sm, name), x, axis=axis, **options)
    theirs = partial(getattr(scipy.special, name), x if scipys is None else scipys, axis=axis)
    control = np.ones(2_000_000, "float32")
    seconds: dict[str, list[float]] = {"ours": [], "theirs": [], "copy": []}
    for _ in range(REPEATS):
        seconds["copy"].append(timed(control.copy, 5))
        seconds["ours"].append(timed(ours, calls))
        seconds["theirs"].append(timed(theirs, calls))
    a, b = (1e9 * statistics.median(seconds[who]) / x.size for who in ("ours", "theirs"))
    quartiles = statistics.quantiles(seconds["copy"])
    steady = "yes" if quartiles[2] <= 1.1 * quartiles[0] else "no"
    print(
        f"| {label} | {x.dtype} | {name} | {a:.3g} | {b:.3g} | {b / a:.2f} | {steady} |", flush=True
    )


def timed(f: Callable[[], object], calls: int) -> float:
    start = time.process_time()
    for _ in range(calls):
        f()
    return (time.process_time() - start) / calls


def memory(x: np.ndarray) -> None:
    """Print the memory taken beyond the result, in multiples of the input."""
    for name in NAMES:
        for library in (sm, scipy.special):
            f = partial(getattr(library, name), x, axis=-1)
            f()
            tracemalloc.start()
            result = f()
            peak = tracemalloc.get_traced_memory()[1] - result.nbytes
            tracemalloc.stop()
            module = library.__name__.partition(".")[0]
            print(f"{module}.{name}: {peak / x.nbytes:.2f} of the input beyond the result")


if __name__ == "__main__":
    main()
