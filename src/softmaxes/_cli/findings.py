"""A finding: what was measured, and the bound it must keep."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Finding", "Measured", "attempt"]


class Measured(NamedTuple):
    """The largest error seen, in the units of its bound, and where it was seen."""

    error: float
    where: str


class Finding(NamedTuple):
    """One line of the check."""

    section: str
    quantity: str
    backend: str
    dtype: str
    error: float
    bound: float
    where: str

    @property
    def passed(self) -> bool:
        """Tell whether the bound holds; NaN does not."""
        return self.error <= self.bound


def attempt(measure: Callable[[], Measured]) -> Measured:
    """Measure; a call that fails is infinitely wrong, and its error says where."""
    try:
        return measure()
    except Exception as error:  # noqa: BLE001  (whatever a library raises is a finding)
        return Measured(math.inf, f"{type(error).__name__}: {error}".splitlines()[0])
