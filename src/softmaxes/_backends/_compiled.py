"""Whether the loops of NumPy's arrays are compiled, as `SOFTMAXES_NUMBA=1` asks for."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

__all__ = ["loops"]


@cache
def loops() -> Any:
    """Return the module of compiled loops, or None where they are not asked for."""
    asked = os.environ.get("SOFTMAXES_NUMBA", "0")
    if asked not in ("0", "1"):
        raise ValueError(f"SOFTMAXES_NUMBA must be 0 or 1, got {asked!r}")
    if asked == "0":
        return None
    try:
        from softmaxes._backends import _numba
    except ModuleNotFoundError as error:
        message = "SOFTMAXES_NUMBA=1 asks for Numba: python -m pip install 'softmaxes[numba]'"
        raise ModuleNotFoundError(message, name=error.name) from error
    return _numba
