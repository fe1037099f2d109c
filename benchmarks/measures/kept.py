"""What is kept of the measures: JSON, a table, plots."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch

from measures import LOOPS, OURS, Measure, Point

__all__ = ["read", "write"]

# What chooses instructions or memory; said with the results where it is set.
SETTINGS = ("NPY_DISABLE_CPU_FEATURES", "ATEN_CPU_CAPABILITY", "XLA_FLAGS", "GLIBC_TUNABLES")
Settings = Mapping[str, Mapping[str, str]]
PACKAGES = ("softmaxes", "numpy", "numba", "scipy", "jax", "torch")
BOUNDS = ("a copy", "exp alone")


def write(
    to: Path,
    measures: list[Measure],
    points: Mapping[str, list[Point]],
    clock: str,
    settings: Settings,
) -> None:
    about = {
        "machine": f"{processor()}, {jax.local_device_count()} JAX device, {torch.get_num_threads()} threads",
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        **{name: os.environ[name] for name in SETTINGS if name in os.environ},
        "clock": clock,
    }
    records = {
        "about": about,
        "set_for": settings,
        "measures": [measure._asdict() for measure in measures],
        "points": {plot: [point._asdict() for point in of] for plot, of in points.items()},
    }
    (to / "results.json").write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    (to / "table.md").write_text(markdown(measures, about, settings), encoding="utf-8")
    for plot, of in points.items():
        DRAWN[plot](of, to / f"{plot}.svg")


def read(at: Path) -> tuple[list[Measure], dict[str, list[Point]]]:
    """Return the measures and the points of plots that were written to a folder."""
    records = json.loads((at / "results.json").read_text(encoding="utf-8"))
    points = {plot: [Point(**point) for point in of] for plot, of in records["points"].items()}
    return [Measure(**measure) for measure in records["measures"]], points


def processor() -> str:
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text(encoding="utf-8").splitlines() if cpus.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else platform.processor()


def markdown(measures: list[Measure], about: dict[str, str], settings: Settings) -> str:
    """Return one line for each group: the geometric mean and the worst of its ratios, and those with loops."""
    lines = [", ".join(f"{name} {value}" for name, value in about.items()) + ".", ""]
    for kind, set_there in settings.items():
        stated = ", ".join(f"`{name}={value}`" for name, value in set_there.items())
        lines += [f"{kind.capitalize()}: {stated}.", ""]
    lines += [
        f"| peer ÷ ours | cases | mean | worst | ours there | {LOOPS}: mean | worst | ours there | steady |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    with_loops = f", {LOOPS}"
    for group in dict.fromkeys(measure.group.removesuffix(with_loops) for measure in measures):
        both = [[m for m in measures if m.group == name] for name in (group, group + with_loops)]
        cells = [cell for of in both for cell in (summary(of) if of else [""] * 3)]
        of = [*both[0], *both[1]]
        steady = f"{sum(measure.steady for measure in of)} of {len(of)}"
        lines.append(f"| {' | '.join((group, str(max(map(len, both))), *cells, steady))} |")
    return "\n".join(lines) + "\n"


def summary(measures: list[Measure]) -> list[str]:
    """Return the geometric mean of ratios, the worst, and what ours is there."""
    mean = math.exp(statistics.fmean(math.log(measure.ratio) for measure in measures))
    worst = min(measures, key=lambda measure: measure.ratio)
    return [f"{mean:.3g}", f"{worst.ratio:.3g}", f"{worst.case}: {worst.ours:.2g} {worst.unit}"]


def plot_times(points: list[Point], to: Path) -> None:
    figure, axes = plot("entries in the row", "softmax, ns for each entry")
    for look, n, s in curves(points):
        axes.plot(n, 1e9 * s / n, **look)
    finish(figure, axes, to)


def plot_roofline(points: list[Point], to: Path) -> None:
    """Draw the entries of a second, and shade what is above the bound of memory."""
    figure, axes = plot("entries, in rows of 1024", "softmax, 10⁹ entries in a second")
    for look, n, s in curves(points):
        axes.plot(n, 1e-9 * n / s, **look)
        if look["label"] == "a copy":
            copied = n, 1e-9 * n / s
    top = axes.get_ylim()[1]
    axes.fill_between(*copied, top, color="gray", alpha=0.15)
    axes.set_ylim(top=top)
    finish(figure, axes, to)


DRAWN = {"softmax_by_length": plot_times, "roofline": plot_roofline}


def curves(points: list[Point]) -> Iterator[tuple[dict[str, Any], Any, Any]]:
    """Yield the look of each line, a color for each library of arrays, the numbers of entries and the times."""
    colors = {on: f"C{i}" for i, on in enumerate(sorted({point.on for point in points} - {""}))}
    for library, on, how in dict.fromkeys((point.library, point.on, point.how) for point in points):
        of = [p for p in points if (p.library, p.on, p.how) == (library, on, how)]
        look = {
            "label": f"{library}{on and f' on {on}'}{how and f', {how}'}",
            "color": colors.get(on, "gray"),
            "linestyle": "-" if library == OURS else ":" if library in BOUNDS else "--",
            "linewidth": 2.5 if how else 1.2,
        }
        yield look, np.array([p.n for p in of]), np.array([p.s for p in of])


def plot(xlabel: str, ylabel: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 4.5), layout="constrained")
    return figure, figure.add_subplot(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel)


def finish(figure: Any, axes: Any, to: Path) -> None:
    figure.legend(fontsize="small", loc="outside right upper")
    axes.grid(alpha=0.3)
    figure.savefig(to, metadata={"Date": None})
