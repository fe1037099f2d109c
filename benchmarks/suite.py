"""
Time and weigh the functions beside their peers: ``nox -s bench``, or ``python benchmarks/suite.py``.

Every measure is a number of ours beside one of a peer's, taken in turns in one process. A copy of an
array is timed with each: a measure during which it drifts by more than a tenth is marked, and the exit
status is 1. ``results/`` receives all measures as JSON, a table of them in Markdown, and a plot of the
time for each entry against the length of a row.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
import torch

import softmaxes as sm
from softmaxes._cli.bench import NAMES, last_axis, libraries, scores
from softmaxes._cli.report import track
from softmaxes._cli.timing import CLOCKS, turns

RESULTS = Path(__file__).parent / "results"
# What chooses instructions or memory; said with the results where it is set.
SETTINGS = ("NPY_DISABLE_CPU_FEATURES", "ATEN_CPU_CAPABILITY", "XLA_FLAGS", "GLIBC_TUNABLES")
PACKAGES = ("softmaxes", "numpy", "scipy", "jax", "torch")
FACES = ("softmax", "log_softmax")
BY_LENGTH = "softmax by length"
LENGTHS = tuple(8 << i for i in range(0, 18, 2))
ROWS = {"a vocabulary": (100, 50_257), "short rows": (65_536, 64), "one long row": (1, 4_000_000)}
COMPILED = {"(1, 1e6)": (1, 1_000_000), "(256, 4096)": (256, 4096), "(16384, 64)": (16_384, 64)}

Work = Callable[[], Any]


class Pair(NamedTuple):
    """Two calls to be timed in turns."""

    group: str
    case: str
    ours: Work
    theirs: Work


class Measure(NamedTuple):
    """A number of ours beside a peer's; `ratio` is theirs divided by ours, so more is better."""

    group: str
    case: str
    unit: str
    ours: float
    theirs: float
    ratio: float
    steady: bool = True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument(
        "--only", default="", help="groups whose name this regular expression finds"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    groups = [group for group in GROUPS if re.search(options.only, group)]
    measures = [
        measure
        for group in track(groups, "measuring", len(groups))
        for measure in measured(group, options.clock)
    ]
    lengths = by_length(options.clock) if re.search(options.only, BY_LENGTH) else []
    options.results.mkdir(exist_ok=True)
    write(options.results, measures, lengths, options.clock)
    return 0 if all(measure.steady for measure in measures) else 1


def measured(group: str, clock: str) -> Iterator[Measure]:
    """Yield the measures of a group, and print them as they come."""
    for case in GROUPS[group]():
        measure = timed(case, clock) if isinstance(case, Pair) else case
        print(f"{group}: {measure.case}: {measure.ratio:.2f}", file=sys.stderr, flush=True)
        yield measure._replace(group=group)


def timed(pair: Pair, clock: str) -> Measure:
    times = turns(pair.ours, pair.theirs, clock=clock, count=7)
    steady = times.steady
    return Measure(pair.group, pair.case, "s", times.ours, times.theirs, times.ratio, steady)


# NumPy --------------------------------------------------------------------------------------------


def on_numpy(names: tuple[str, ...], others: Any = scipy.special) -> Iterator[Pair]:
    for dtype, (kind, shape), name in product(("float32", "float64"), ROWS.items(), names):
        x = scores(shape, dtype)
        peer = getattr(others, name)
        theirs = partial(peer, torch.asarray(x) if others is torch else x, -1)
        yield Pair("", f"{name}, {kind}, {dtype}", partial(getattr(sm, name), x, -1), theirs)


def masked() -> Iterator[Pair]:
    for dtype, name in product(("float32", "float64"), NAMES):
        x = scores((512, 5_000), dtype)
        mask = np.random.default_rng(1).random(x.shape) < 0.5
        f = partial(getattr(sm, name), x, axis=-1)
        yield Pair("", f"{name}, {dtype}", partial(f, where=mask), f)


def other_axes() -> Iterator[Pair]:
    for dtype, name in product(("float32", "float64"), NAMES):
        x = scores((1_600, 1_600), dtype)
        f = partial(getattr(sm, name), x)
        yield Pair("", f"{name}, {dtype}", partial(f, axis=0), partial(f, axis=-1))


def small(on: str) -> Iterator[Pair]:
    for library, name in product(libraries(), NAMES):
        if library.name == on:
            x = library.array(scores((8,)))
            ours, theirs = (library.prepared(getattr(of, name)) for of in (sm, library.functions))
            yield Pair("", name, partial(ours, x), partial(theirs, x))


def extra_memory() -> Iterator[Measure]:
    for name in NAMES:
        x = scores((512, 5_000))
        ours, theirs = (extra(partial(getattr(of, name), x, -1)) for of in (sm, scipy.special))
        ours, theirs = ours / x.nbytes, theirs / x.nbytes
        yield Measure("", name, "of the input", ours, theirs, theirs / ours)


def extra(f: Work) -> int:
    """Return the bytes that a call takes beyond its result."""
    f()
    tracemalloc.start()
    result = f()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak - result.nbytes


def sums_over_axis_0() -> Iterator[Measure]:
    x = scores((1_000_000, 3))
    truth = scipy.special.logsumexp(x.astype("float64"), axis=0)
    ours, theirs = (
        float(np.abs(f(x, axis=0) - truth).max() / np.spacing(np.float32(truth.max())))
        for f in (sm.logsumexp, scipy.special.logsumexp)
    )
    yield Measure("", "logsumexp of (1e6, 3)", "ulp", ours, theirs, theirs / ours)


# JAX ----------------------------------------------------------------------------------------------


def compiled() -> Iterator[
    tuple[str, str, Callable[..., Any], Callable[..., Any], tuple[Any, ...]]
]:
    """Yield a case, whether of the value or the gradient, the two compiled functions, arguments."""
    for dtype, (kind, rows), axis, where, name in product(
        ("float32", "bfloat16"), COMPILED.items(), (-1, 0), (False, True), NAMES
    ):
        shape = rows if axis == -1 else rows[::-1]
        x = jnp.asarray(scores(shape), dtype)
        mask = jnp.asarray(np.random.default_rng(1).random(shape) < 0.5) if where else None
        options = f"axis {axis}{', masked' if where else ''}"
        both = [partial(getattr(of, name), axis=axis) for of in (sm, jax.nn)]
        values = [jax.jit(lambda x, mask, f=f: f(x, where=mask)) for f in both]
        case = f"{name}, {kind}, {options}, {dtype}"
        yield "value", case, *values, (x, mask)
        y = jax.eval_shape(values[0], x, mask)
        u = jnp.asarray(np.random.default_rng(2).standard_normal(y.shape), dtype)
        pullbacks = [jax.jit(partial(pulled_back, f)) for f in values]
        yield "gradient", case, *pullbacks, (x, mask, u)


def pulled_back(f: Callable[..., Any], x: Any, mask: Any, u: Any) -> Any:
    return jax.vjp(lambda x: f(x, mask), x)[1](u)


def on_jax(of: str) -> Iterator[Pair]:
    for what, case, ours, theirs, arguments in compiled():
        if what == of:
            a, b = (partial(waited, f, arguments) for f in (ours, theirs))
            yield Pair("", case, a, b)


def waited(f: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return jax.block_until_ready(f(*arguments))


def temporaries() -> Iterator[Measure]:
    for what, case, ours, theirs, arguments in compiled():
        if case == "softmax, (256, 4096), axis -1, bfloat16":
            a, b = (
                f.lower(*arguments).compile().memory_analysis().temp_size_in_bytes
                / arguments[0].nbytes
                for f in (ours, theirs)
            )
            yield Measure("", f"softmax, {what}", "of the input", a, b, b / a if a else math.inf)


def compilation() -> Iterator[Measure]:
    for what, case, ours, theirs, arguments in compiled():
        if case.endswith("(256, 4096), axis -1, float32"):
            a, b = (statistics.median(compile_times(f, arguments)) for f in (ours, theirs))
            yield Measure("", f"{case}, {what}", "s", a, b, b / a)


def compile_times(f: Any, arguments: tuple[Any, ...]) -> Iterator[float]:
    for _ in range(5):
        lowered = f.lower(*arguments)
        start = time.process_time()
        lowered.compile()
        yield time.process_time() - start


# PyTorch ------------------------------------------------------------------------------------------


def on_torch(prepare: Callable[[Any], Any]) -> Iterator[Pair]:
    for (kind, shape), name in product(COMPILED.items(), FACES):
        x = torch.asarray(scores(shape)).requires_grad_()
        u = torch.asarray(np.random.default_rng(2).standard_normal(shape), dtype=x.dtype)
        ours, theirs = (prepare(getattr(of, name)) for of in (sm, torch))
        yield Pair(
            "", f"{name}, {kind}", partial(backward, ours, x, u), partial(backward, theirs, x, u)
        )


def backward(f: Callable[..., Any], x: Any, u: Any) -> Any:
    return torch.autograd.grad(f(x, -1), x, u)


def torch_compiled(f: Callable[..., Any]) -> Callable[..., Any]:
    def own(x: Any, axis: int) -> Any:
        return f(x, axis)

    return torch.compile(own)


# What there is to measure, in the order of the table -----------------------------------------------

GROUPS: dict[str, Callable[[], Iterator[Pair | Measure]]] = {
    "NumPy softmax and log_softmax, beside SciPy": partial(on_numpy, FACES),
    "NumPy logsumexp, beside SciPy": partial(on_numpy, NAMES[2:]),
    "NumPy softmax, beside torch.softmax": partial(on_numpy, NAMES[:1], torch),
    "NumPy masked, beside unmasked": masked,
    "NumPy axis 0, beside the last axis": other_axes,
    "NumPy memory beyond the result, beside SciPy": extra_memory,
    "NumPy 8 entries, beside SciPy": partial(small, "numpy"),
    "JAX eager 8 entries, beside jax.nn": partial(small, "jax"),
    "JAX compiled value, beside jax.nn": partial(on_jax, "value"),
    "JAX compiled gradient, beside jax.nn": partial(on_jax, "gradient"),
    "JAX compiled bfloat16 temporaries, beside jax.nn": temporaries,
    "JAX time to compile, beside jax.nn": compilation,
    "PyTorch eager value and gradient, beside torch": partial(on_torch, lambda f: f),
    "PyTorch compiled value and gradient, beside torch": partial(on_torch, torch_compiled),
    "NumPy error of sums over axis 0, beside SciPy": sums_over_axis_0,
}


def by_length(clock: str) -> list[dict[str, Any]]:
    """Return the times of softmax of one row of each length, of a copy and of the exponential alone."""
    points = []
    for n in LENGTHS:
        x = scores((n,))
        times = turns(partial(np.exp, x), x.copy, clock=clock, count=5)
        points.append({"library": "numpy.exp alone", "n": n, "s": times.ours})
        points.append({"library": "a copy", "n": n, "s": times.theirs})
    for library, n in product(libraries(), LENGTHS):
        x = library.array(scores((n,)))
        ours, theirs = (
            partial(library.prepared(partial(last_axis, of.softmax)), x)
            for of in (sm, library.functions)
        )
        times = turns(ours, theirs, clock=clock, count=5)
        points.append({"library": f"softmaxes on {library.name}", "n": n, "s": times.ours})
        points.append({"library": f"{library.peer} ({library.name})", "n": n, "s": times.theirs})
    return points


# What is kept -------------------------------------------------------------------------------------


def write(to: Path, measures: list[Measure], lengths: list[dict[str, Any]], clock: str) -> None:
    about = {
        "machine": f"{processor()}, {jax.local_device_count()} JAX device, {torch.get_num_threads()} threads",
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        **{name: os.environ[name] for name in SETTINGS if name in os.environ},
        "clock": clock,
    }
    records = {
        "about": about,
        "measures": [measure._asdict() for measure in measures],
        "softmax_by_length": lengths,
    }
    (to / "results.json").write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    (to / "table.md").write_text(markdown(measures, about), encoding="utf-8")
    if lengths:
        plot(lengths, to / "softmax_by_length.svg")


def processor() -> str:
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text(encoding="utf-8").splitlines() if cpus.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else platform.processor()


def markdown(measures: list[Measure], about: dict[str, str]) -> str:
    """Return one line for each group: the geometric mean and the worst of its ratios."""
    lines = [
        ", ".join(f"{name} {value}" for name, value in about.items()) + ".",
        "",
        "| measure, peer ÷ ours | cases | geometric mean | worst | worst case | steady |",
        "|---|---|---|---|---|---|",
    ]
    for group in dict.fromkeys(measure.group for measure in measures):
        of = [measure for measure in measures if measure.group == group]
        mean = math.exp(statistics.fmean(math.log(measure.ratio) for measure in of))
        worst = min(of, key=lambda measure: measure.ratio)
        steady = sum(measure.steady for measure in of)
        lines.append(
            f"| {group} | {len(of)} | {mean:.2f} | {worst.ratio:.2f} | {worst.case} | {steady} of {len(of)} |"
        )
    return "\n".join(lines) + "\n"


def plot(points: list[dict[str, Any]], to: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot(
        xscale="log",
        yscale="log",
        xlabel="entries in the row",
        ylabel="softmax, ns for each entry",
    )
    for library in dict.fromkeys(point["library"] for point in points):
        of = [point for point in points if point["library"] == library]
        style = {"softmaxes": "-", "numpy.exp": ":", "a": ":"}.get(library.split()[0], "--")
        n = np.array([point["n"] for point in of])
        axes.plot(n, 1e9 * np.array([point["s"] for point in of]) / n, style, label=library)
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    figure.savefig(to, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
