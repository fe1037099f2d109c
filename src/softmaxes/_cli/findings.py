"""Trials and findings: what is to be measured against which bound, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from softmaxes._cli.backends import Backend

__all__ = ["Finding", "Measured", "Trial", "perform"]


class Measured(NamedTuple):
    """The largest error seen, in the units of its bound, and where it was seen."""

    error: float
    where: str


class Trial(NamedTuple):
    """A measurement to make."""

    section: str
    quantity: str
    backend: Backend
    dtype: str
    bound: float
    measure: Callable[[], Measured]


class Finding(NamedTuple):
    """What came of a trial."""

    section: str
    quantity: str
    backend: str
    dtype: str
    bound: float
    error: float
    where: str

    @property
    def passed(self) -> bool:
        """Tell whether the bound holds; NaN does not keep it."""
        return self.error <= self.bound


def perform(trial: Trial) -> Finding:
    """Measure; a call that fails is infinitely wrong, and its error says how."""
    try:
        with trial.backend.session():
            found = trial.measure()
    except Exception as error:  # noqa: BLE001, because whatever a library raises is a finding
        found = Measured(math.inf, f"{type(error).__name__}: {error}".splitlines()[0])
    return Finding(*trial[:2], trial.backend.name, *trial[3:5], *found)
