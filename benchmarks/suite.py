"""
Time and weigh the functions beside their peers: ``nox -s bench``, or ``python benchmarks/suite.py``.

Every measure is a number of ours beside one of a peer's, taken in turns in one process, in three rounds
of a group, of which the median counts. A copy of an array is timed with each: a round in which it drifts
by more than a tenth is taken again; a measure without three others is marked, and the exit status is 1.
``results/`` receives all measures as JSON, a table of them in Markdown, and two plots: the time for each
entry against the length of a row, and the entries of a second against the size of an array, with those
of a copy and of the exponential alone.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from measures import (
    FACES,
    LOOPS,
    OURS,
    Measure,
    Pair,
    Point,
    by_size,
    kept,
    on_jax,
    on_numpy,
    on_torch,
)

from softmaxes._cli.bench import NAMES
from softmaxes._cli.report import track
from softmaxes._cli.timing import CLOCKS, turns

RESULTS = Path(__file__).parent / "results"
ROUNDS = 3  # of all pairs of a group, so that what slows a machine for seconds meets one of three
TRIES = 6  # to get as many steady ones of each
# glibc gives freed memory back to the system, page by page; above these sizes, that is never.
NEVER = 1 << 40
# The environment in which a process must have been started for the groups that are named so.
SETTINGS = {
    "freed pages kept": {
        "GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={NEVER}:glibc.malloc.trim_threshold={NEVER}"
    },
    LOOPS: {"SOFTMAXES_NUMBA": "1"},
}

# What NumPy computes, or XLA, which compiled loops can do instead.
OF_LOOPS_TOO: dict[str, Callable[[], Iterator[Pair | Measure]]] = {
    "NumPy softmax and log_softmax, beside SciPy": partial(on_numpy.values, FACES),
    "NumPy softmax and log_softmax, beside SciPy, freed pages kept": partial(
        on_numpy.values, FACES
    ),
    "NumPy logsumexp, beside SciPy": partial(on_numpy.values, NAMES[2:]),
    "NumPy softmax, beside torch.softmax": partial(on_numpy.values, NAMES[:1], torch),
    "NumPy value and VJP, beside torch": on_numpy.pullbacks,
    "NumPy masked, beside unmasked": on_numpy.masked,
    "NumPy axis 0, beside the last axis": on_numpy.other_axes,
    "NumPy memory beyond the result, beside SciPy": on_numpy.extra_memory,
    "NumPy 8 entries, beside SciPy": partial(on_numpy.small, "numpy"),
    "NumPy error of sums over axis 0, beside SciPy": on_numpy.sums_over_axis_0,
    "NumPy time of sums over axis 0, beside SciPy": on_numpy.times_over_axis_0,
    "PyTorch eager value and gradient, beside torch": partial(on_torch.times, on_torch.eager),
    "PyTorch compiled value and gradient, beside torch": partial(on_torch.times, on_torch.compiled),
    "JAX compiled value, beside jax.nn": partial(on_jax.times, "value"),
    "JAX compiled gradient, beside jax.nn": partial(on_jax.times, "gradient"),
    "JAX compiled small value, beside jax.nn": partial(on_jax.times, "value", on_jax.SMALL),
    "JAX compiled small gradient, beside jax.nn": partial(on_jax.times, "gradient", on_jax.SMALL),
    "JAX compiled bfloat16 temporaries, beside jax.nn": on_jax.temporaries,
    "JAX time to compile, beside jax.nn": on_jax.compilation,
}
# In the order of the table.
GROUPS = {
    **OF_LOOPS_TOO,
    **{f"{name}, {LOOPS}": cases for name, cases in OF_LOOPS_TOO.items()},
    "JAX eager 8 entries, beside jax.nn": partial(on_numpy.small, "jax"),
}
PLOTS = {"softmax_by_length": by_size.by_length, "roofline": by_size.roofline}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument(
        "--only", default="", help="groups whose name this regular expression finds"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    groups, plots = (
        [name for name in names if re.search(options.only, name)] for names in (GROUPS, PLOTS)
    )
    measures = [
        measure
        for group in track(groups, "measuring", len(groups))
        for measure in measured(group, options.clock)
    ]
    points = {name: drawn(name, options.clock) for name in plots}
    options.results.mkdir(exist_ok=True)
    kept.write(options.results, measures, points, options.clock, SETTINGS)
    return 0 if all(measure.steady for measure in measures) else 1


def measured(group: str, clock: str) -> Iterator[Measure]:
    """Yield the measures of a group, and print them, and the rounds of pairs, as they come."""
    settings = {
        name: value
        for kind, set_there in SETTINGS.items()
        if kind in group
        for name, value in set_there.items()
    }
    if not settings.items() <= os.environ.items():
        yield from apart(group, clock, settings)[0]
        return
    rounds: list[tuple[Pair, list[Measure]]] = []
    for case in GROUPS[group]():
        if isinstance(case, Pair):
            rounds.append((case, []))
        else:
            yield shown(case._replace(group=group))
    for _ in range(TRIES):
        for pair, taken in rounds:
            if sum(measure.steady for measure in taken) < ROUNDS:
                taken.append(shown(timed(pair, clock)._replace(group=group)))
    for _, taken in rounds:
        yield median_of(taken)


def drawn(name: str, clock: str) -> list[Point]:
    """Return the points of a plot, and those of ours with compiled loops."""
    points = list(PLOTS[name](clock))
    if SETTINGS[LOOPS].items() <= os.environ.items():
        return points
    others = apart(name, clock, SETTINGS[LOOPS])[1][name]
    ours = (point for point in others if point.library == OURS)
    return [*points, *(point._replace(how=LOOPS) for point in ours)]


def apart(
    name: str, clock: str, settings: Mapping[str, str]
) -> tuple[list[Measure], dict[str, list[Point]]]:
    """Return what of this name is measured in a process that is started with settings."""
    if "GLIBC_TUNABLES" in settings and platform.libc_ver()[0] != "glibc":
        return [], {}
    with TemporaryDirectory() as results:
        options = "--only", f"^{re.escape(name)}$", "--clock", clock, "--results", results
        command = [sys.executable, __file__, *options]
        subprocess.run(command, env=os.environ | settings, check=False)
        return kept.read(Path(results))


def shown(measure: Measure) -> Measure:
    print(f"{measure.group}: {measure.case}: {measure.ratio:.2f}", file=sys.stderr, flush=True)
    return measure


def timed(pair: Pair, clock: str) -> Measure:
    times = turns(pair.ours, pair.theirs, clock=clock, count=3)
    return Measure(pair.case, "s", times.ours, times.theirs, times.ratio, times.steady)


def median_of(rounds: list[Measure]) -> Measure:
    """Return the measure with the median ratio of the steady ones; where those are too few, of all."""
    steady = [measure for measure in rounds if measure.steady]
    are_enough = len(steady) >= ROUNDS
    of = sorted(steady if are_enough else rounds, key=lambda measure: measure.ratio)
    return of[(len(of) - 1) // 2]._replace(steady=are_enough)


if __name__ == "__main__":
    sys.exit(main())
