"""
Compiled code, kept on disk and found again by all that it is made of.

Numba's own key has the loop's file alone, and of functions that a loop is made with, a number that is drawn
in each process: it would find nothing again, or what was made of other files.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import FunctionType
from typing import Any
from uuid import uuid4

from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile

__all__ = ["kept_on_disk"]


def kept_on_disk(f: Callable[..., Any], **options: Any) -> Any:
    """Return a function, compiled for each kind of arguments when that is first met on this machine."""
    compiled = njit(**options)(f)
    compiled._cache = _Cache(f)
    return compiled


class _Cache(FunctionCache):
    def __init__(self, f: Callable[..., Any]) -> None:
        super().__init__(f)
        self._cache_file = _Files(
            self._cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp()
        )

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return sig, codegen.magic_tuple(), _sources(), _described(self._py_func)


class _Files(IndexDataCacheFile):
    """
    An index, and files of compiled code with names that are drawn at random.

    Numba counts them, so that processes that compile at once may write different code to one file. So one
    may forget the other's, and compiles again, but never takes it for its own.
    """

    def _save_index(self, overloads: dict[Any, str]) -> None:
        super()._save_index(overloads)
        folder, known = Path(self._cache_path), set(overloads.values())
        for file in folder.glob(self._index_name.removesuffix(".nbi") + ".*.nbc"):
            if file.name not in known:  # of other sources, mostly
                with suppress(OSError):
                    file.unlink()

    def _data_name(self, number: int) -> str:
        return f"{self._index_name.removesuffix('.nbi')}.{uuid4().hex}.nbc"


def _described(a: Any) -> str:
    """Return the name of a function, with those that it is made with; what else there is, as text."""
    f = getattr(a, "py_func", a)
    if not isinstance(f, FunctionType):
        return repr(f)
    within = (_described(cell.cell_contents) for cell in f.__closure__ or ())
    return f"{f.__module__}.{f.__qualname__}:{f.__code__.co_firstlineno}({', '.join(within)})"


@cache
def _sources() -> str:
    """Return a digest of all files here and beside this folder, in which the constants are."""
    here = Path(__file__).parent
    files = sorted([*here.glob("*.py"), *here.parent.glob("*.py")])
    return sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
