"""``python -m softmaxes check``: the promises of the package, measured on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from softmaxes._cli.accuracy import accuracy
from softmaxes._cli.backends import installed
from softmaxes._cli.budgets import HALF_BUDGET, HALVES
from softmaxes._cli.contract import contract
from softmaxes._cli.findings import Finding, Trial, perform
from softmaxes._cli.formats import FORMATS
from softmaxes._cli.identities import identities
from softmaxes._cli.report import Table, track

__all__ = ["records", "run", "tables"]


def run() -> list[Finding]:
    """Measure everything on every backend."""
    trials = list(_trials())
    # Most of the time goes to compilers, which release the lock of the interpreter.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(track(pool.map(perform, trials), "checking", len(trials)))


def _trials() -> Iterator[Trial]:
    for backend in installed():
        for dtype in FORMATS:
            if backend.dtype(dtype) is not None:
                yield from accuracy(backend, dtype)
                yield from () if dtype in HALVES else identities(backend, dtype)
        yield from contract(backend)


def records(findings: Sequence[Finding]) -> Iterator[Table]:
    """Yield every finding in one table, for machines."""
    columns = dict.fromkeys((*Finding._fields, "passed"), "")
    yield Table("findings", "Findings", columns, [(*f, f.passed) for f in findings])


def tables(findings: Sequence[Finding]) -> Iterator[Table]:
    """Yield the tables to read: two of worst errors, the contract, and the breaches."""
    yield _errors("accuracy", "Largest error, in ulp", findings, ACCURACY)
    yield _errors("identities", "What must hold between results", findings, IDENTITIES)
    yield _contract([f for f in findings if f.section == "contract"])
    yield _breaches(findings)


ACCURACY = (
    f"Against 60-digit decimal arithmetic; the halves may err by {HALF_BUDGET} ulp, the others by the budget.\n"
    "logsumexp: ulp of max(|max x|, |logsumexp x|). JVP and VJP: ulp of p (|w| + sum p |w|),\n"
    "where w is the tangent v, less v[top] where p[top] > 1/2."
)
IDENTITIES = "J is the Jacobian of softmax. In epsilon of the scale of J v, where no unit is named; the last in ulp."


def _errors(section: str, title: str, findings: Sequence[Finding], text: str) -> Table:
    chosen = [f for f in findings if f.section == section]
    errors = {(f.backend, f.quantity, f.dtype): f.error for f in chosen}
    dtypes = [dtype for dtype in FORMATS if any(f.dtype == dtype for f in chosen)]
    bounds = {(f.backend, f.quantity): f.bound for f in chosen if f.dtype not in HALVES}
    rows = [
        (*key, bound, *(errors.get((*key, dtype)) for dtype in dtypes))
        for key, bound in bounds.items()
    ]
    columns = {"backend": "", "quantity": "", "budget": "g", **dict.fromkeys(dtypes, ".3g")}
    return Table(section, title, columns, rows, text)


def _contract(findings: Sequence[Finding]) -> Table:
    passed = {(f.quantity, f.backend): f.passed for f in findings}
    cases, backends = (dict.fromkeys(key[i] for key in passed) for i in (0, 1))
    rows = [(case, *(passed[case, backend] for backend in backends)) for case in cases]
    columns = dict.fromkeys(("case", *backends), "")
    return Table("contract", "Boundary contract: values and derivatives", columns, rows)


def _breaches(findings: Sequence[Finding]) -> Table:
    columns = {
        "backend": "",
        "dtype": "",
        "quantity": "",
        "error": ".3g",
        "bound": "g",
        "where": "",
    }
    rows = [
        (f.backend, f.dtype, f.quantity, f.error, f.bound, f.where)
        for f in findings
        if not f.passed
    ]
    title = f"{len(findings)} measurements, breaches: {len(rows)}"
    return Table("breaches", title, columns, rows)
