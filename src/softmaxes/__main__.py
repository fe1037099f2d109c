"""The command line: ``python -m softmaxes [info | check | bench]``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130  # as a shell reports a command that SIGINT ended
    except BrokenPipeError:
        # The reader has left, as head(1) does; what the interpreter still flushes goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m softmaxes",
        description="Without a command: a tour of the package on handwritten digits.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_tour)
    commands = parser.add_subparsers(title="commands")
    for name, run, purpose in (
        ("info", _info, "print versions, array libraries, devices and what works where"),
        ("check", _check, "measure accuracy, derivatives and the boundary contract here"),
        ("bench", _bench, "time the functions beside the peers that are installed"),
    ):
        command = commands.add_parser(name, help=purpose, description=purpose, allow_abbrev=False)
        # Without a default of its own, or it would undo a --json before the command.
        command.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON"
        )
        if name == "bench":
            command.add_argument(
                "--clock",
                choices=("wall", "process"),
                default="wall",
                help="time on the clock, or of the processors: all threads, other programs left out",
            )
        command.set_defaults(run=run)
    return parser


def _tour(options: argparse.Namespace) -> int:
    from softmaxes._cli import report, tour

    report.write(tour.tables(), as_json=options.json)
    return 0


def _info(options: argparse.Namespace) -> int:
    from softmaxes._cli import info, report

    report.write(info.tables(), as_json=options.json, plain=True)
    return 0


def _check(options: argparse.Namespace) -> int:
    from softmaxes._cli import check, report

    findings = check.run()
    show = check.records if options.json else check.tables
    report.write(show(findings), as_json=options.json)
    return 0 if all(finding.passed for finding in findings) else 1


def _bench(options: argparse.Namespace) -> int:
    from softmaxes._cli import bench, report

    lines = bench.run(options.clock)
    report.write(bench.tables(lines, options.clock), as_json=options.json)
    return 0 if all(line.times.steady for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
