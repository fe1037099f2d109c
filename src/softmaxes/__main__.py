"""The command line: ``python -m softmaxes [info | check]``."""

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
    ):
        command = commands.add_parser(name, help=purpose, description=purpose, allow_abbrev=False)
        # Without a default of its own, or it would undo a --json before the command.
        command.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON"
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


if __name__ == "__main__":
    sys.exit(main())
