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
from types import MappingProxyType
from typing import NamedTuple

import torch
from measures import FACES, Measure, Pair, by_size, kept, on_jax, on_numpy, on_torch

from softmaxes._cli.bench import NAMES
from softmaxes._cli.report import track
from softmaxes._cli.timing import CLOCKS, turns

RESULTS = Path(__file__).parent / "results"
ROUNDS = 3  # of all pairs of a group, so that what slows a machine for seconds meets one of three
TRIES = 6  # to get as many steady ones of each
# glibc gives freed memory back to the system, page by page; above these sizes, that is never.
NEVER = 1 << 40
PAGES_KEPT = {
    "GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={NEVER}:glibc.malloc.trim_threshold={NEVER}"
}


class Group(NamedTuple):
    """Cases of one kind, and the environment in which a process must have been started for them."""

    cases: Callable[[], Iterator[Pair | Measure]]
    settings: Mapping[str, str] = MappingProxyType({})


COMPILED = {"SOFTMAXES_NUMBA": "1"}

# What NumPy computes, or XLA, which compiled loops can do instead.
OF_LOOPS_TOO = {
    "NumPy softmax and log_softmax, beside SciPy": Group(partial(on_numpy.values, FACES)),
    "NumPy softmax and log_softmax, beside SciPy, freed pages kept": Group(
        partial(on_numpy.values, FACES), PAGES_KEPT
    ),
    "NumPy logsumexp, beside SciPy": Group(partial(on_numpy.values, NAMES[2:])),
    "NumPy softmax, beside torch.softmax": Group(partial(on_numpy.values, NAMES[:1], torch)),
    "NumPy value and VJP, beside torch": Group(on_numpy.pullbacks),
    "NumPy masked, beside unmasked": Group(on_numpy.masked),
    "NumPy axis 0, beside the last axis": Group(on_numpy.other_axes),
    "NumPy memory beyond the result, beside SciPy": Group(on_numpy.extra_memory),
    "NumPy 8 entries, beside SciPy": Group(partial(on_numpy.small, "numpy")),
    "NumPy error of sums over axis 0, beside SciPy": Group(on_numpy.sums_over_axis_0),
    "NumPy time of sums over axis 0, beside SciPy": Group(on_numpy.times_over_axis_0),
    "PyTorch eager value and gradient, beside torch": Group(
        partial(on_torch.times, on_torch.eager)
    ),
    "PyTorch compiled value and gradient, beside torch": Group(
        partial(on_torch.times, on_torch.compiled)
    ),
    "JAX compiled value, beside jax.nn": Group(partial(on_jax.times, "value")),
    "JAX compiled gradient, beside jax.nn": Group(partial(on_jax.times, "gradient")),
    "JAX compiled small value, beside jax.nn": Group(partial(on_jax.times, "value", on_jax.SMALL)),
    "JAX compiled small gradient, beside jax.nn": Group(
        partial(on_jax.times, "gradient", on_jax.SMALL)
    ),
    "JAX compiled bfloat16 temporaries, beside jax.nn": Group(on_jax.temporaries),
    "JAX time to compile, beside jax.nn": Group(on_jax.compilation),
}
# In the order of the table.
GROUPS = {
    **OF_LOOPS_TOO,
    **{
        f"{name}, loops compiled": Group(group.cases, {**group.settings, **COMPILED})
        for name, group in OF_LOOPS_TOO.items()
    },
    "JAX eager 8 entries, beside jax.nn": Group(partial(on_numpy.small, "jax")),
}
BY_LENGTH, ROOFLINE = "softmax by length", "softmax roofline"


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
    lengths, sizes = (
        list(points(options.clock)) if re.search(options.only, name) else []
        for name, points in ((BY_LENGTH, by_size.by_length), (ROOFLINE, by_size.roofline))
    )
    settings = {group: GROUPS[group].settings for group in groups if GROUPS[group].settings}
    options.results.mkdir(exist_ok=True)
    kept.write(options.results, measures, lengths, sizes, options.clock, settings)
    return 0 if all(measure.steady for measure in measures) else 1


def measured(group: str, clock: str) -> Iterator[Measure]:
    """Yield the measures of a group, and print them, and the rounds of pairs, as they come."""
    cases, settings = GROUPS[group]
    if not settings.items() <= os.environ.items():
        yield from measured_apart(group, clock)
        return
    rounds: list[tuple[Pair, list[Measure]]] = []
    for case in cases():
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


def measured_apart(group: str, clock: str) -> Iterator[Measure]:
    """Yield the measures of a group, taken in a process that is started with its settings."""
    if "GLIBC_TUNABLES" in GROUPS[group].settings and platform.libc_ver()[0] != "glibc":
        return
    with TemporaryDirectory() as results:
        options = "--only", f"^{re.escape(group)}$", "--clock", clock, "--results", results
        command = [sys.executable, __file__, *options]
        subprocess.run(command, env=os.environ | GROUPS[group].settings, check=False)
        yield from kept.read(Path(results))


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
