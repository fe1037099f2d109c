"""``python -m softmaxes check``: the promises of the package, measured on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from softmaxes._cli.accuracy import accuracy
from softmaxes._cli.backends import Backend, installed
from softmaxes._cli.budgets import HALF_BUDGET, HALVES
from softmaxes._cli.contract import contract
from softmaxes._cli.findings import Finding
from softmaxes._cli.formats import FORMATS
from softmaxes._cli.identities import identities
from softmaxes._cli.report import Table, track

__all__ = ["run", "tables"]


def run() -> list[Finding]:
    """Measure every backend."""
    jobs = [
        (backend, dtype)
        for backend in installed()
        for dtype in (*FORMATS, "contract")
        if dtype == "contract" or backend.dtype(dtype) is not None
    ]
    return list(chain.from_iterable(_measure(*job) for job in track(jobs, "checking")))


def _measure(backend: Backend, dtype: str) -> list[Finding]:
    with backend.session():
        if dtype == "contract":
            return list(contract(backend))
        found = list(accuracy(backend, dtype))
        return found if dtype in HALVES else [*found, *identities(backend, dtype)]


def records(findings: Sequence[Finding]) -> Table:
    """Tabulate every finding, for machines."""
    columns = dict.fromkeys((*Finding._fields, "passed"), "g")
    return Table("findings", "Findings", columns, [(*f, f.passed) for f in findings])


def tables(findings: Sequence[Finding]) -> Iterator[Table]:
    """Yield the tables to read."""
    yield ...
