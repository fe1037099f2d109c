"""Tables for a terminal, a pipe or a machine, and progress for those who watch."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple, TypeVar

__all__ = ["Table", "track", "write"]

T = TypeVar("T")


class Table(NamedTuple):
    """Rows of raw values under named columns, and the sentences that explain them."""

    name: str  # its key in JSON
    title: str
    columns: Mapping[str, str]  # name -> format specification of its numbers
    rows: Sequence[Sequence[object]]
    text: str = ""


def write(tables: Iterable[Table], *, as_json: bool = False, plain: bool = False) -> None:
    """Print the tables as they come, or all of them as one JSON object."""
    if as_json:
        print(json.dumps({table.name: _records(table) for table in tables}, indent=2))
        return
    show = _show_plain if plain or not (sys.stdout.isatty() and find_spec("rich")) else _show_rich
    for table in tables:
        show(table)


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Yield the items; show how far along they are when standard error is a terminal."""
    if not sys.stderr.isatty():
        return iter(items)
    if not find_spec("rich"):
        return _count(items, description, total)
    from rich.progress import track as rich_track

    console = _console(stderr=True)
    return iter(rich_track(items, description, total, console=console, transient=True))


def _count(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    for number, item in enumerate(items, 1):
        line = f"{description} {number}/{total}"
        print(line, end="\r", file=sys.stderr, flush=True)
        yield item
        print(" " * len(line), end="\r", file=sys.stderr, flush=True)


def _records(table: Table) -> list[dict[str, object]]:
    return [dict(zip(table.columns, map(_jsonable, row), strict=True)) for row in table.rows]


def _jsonable(value: object) -> object:
    # JSON has no inf and no NaN: they are written as strings.
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    return value


def _cells(table: Table) -> list[list[str]]:
    return [
        [_cell(v, f) for v, f in zip(row, table.columns.values(), strict=True)]
        for row in table.rows
    ]


def _cell(value: object, specification: str) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "ok" if value else "BREACH"
    return format(value, specification) if isinstance(value, int | float) else str(value)


def _headings(table: Table) -> list[str]:
    return [name.replace("_", " ") for name in table.columns]


def _is_numeric(table: Table) -> list[bool]:
    return [specification != "" for specification in table.columns.values()]


def _show_plain(table: Table) -> None:
    print(table.title)
    if table.rows:
        print(f"\n{_grid(table)}")
    print(f"\n{table.text}\n" if table.text else "", flush=True)


def _grid(table: Table) -> str:
    rows = [_headings(table), *_cells(table)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    numeric = _is_numeric(table)
    return "\n".join(_line(row, widths, numeric) for row in rows)


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    columns = zip(cells, widths, numeric, strict=True)
    return "  ".join(c.rjust(w) if right else c.ljust(w) for c, w, right in columns).rstrip()


def _show_rich(table: Table) -> None:
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable()
    for heading, numeric in zip(_headings(table), _is_numeric(table), strict=True):
        grid.add_column(Text(heading), justify="right" if numeric else "left")
    for row in _cells(table):
        grid.add_row(*(Text(c, style="bold red" if c.startswith("BREACH") else "") for c in row))
    console = _console()
    console.print(Text(table.title, style="bold"))
    if table.rows:
        console.print(grid)
    console.print(Text(f"{table.text}\n"))


def _console(*, stderr: bool = False) -> Any:
    from rich.console import Console

    # https://no-color.org: any value but the empty string asks for no colour.
    return Console(stderr=stderr, color_system=None if os.environ.get("NO_COLOR") else "auto")
