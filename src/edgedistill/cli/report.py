"""``edgedistill report``: show a stored report again, or what moved between two."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.cli import console, verification
from edgedistill.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from edgedistill.verify.report.diff import ReportDiff

EXAMPLES = """\
examples:
  edgedistill report reports/report.json
  edgedistill report reports/report.json --html report.html
  edgedistill report before.json after.json"""

_MOST_MOVED = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``report``."""
    parser.add_argument(
        "first", type=Path, metavar="A.json", help="report.json of verify or audit, or what their --json printed"
    )
    parser.add_argument(
        "second", type=Path, nargs="?", metavar="B.json", help="second report, to compare with the first"
    )
    verification.add_outputs(parser)


def run(args: argparse.Namespace) -> int:
    """Show one report or compare two; the exit code is 0 whatever they say."""
    from edgedistill.verify.report.diff import diff
    from edgedistill.verify.report.model import read_report

    first = read_report(args.first)
    if args.second is None:
        verification.check_outputs(args)
        verification.deliver(first, args)
        return 0
    for name in ("out", "html", "junit", "github"):
        if getattr(args, name):
            raise UsageError(f"--{name} applies to one report; two were given.", hint="Use --json, or give one report.")
    found = diff(first, read_report(args.second))
    if args.json:
        console.out_json(found.to_dict())
    else:
        _print(found, _headings(found, args.first, args.second))
    return 0


def _headings(found: ReportDiff, first: Path, second: Path) -> tuple[str, str]:
    """The bundles' names; two runs of one bundle are told apart by the files, which may differ only in their place."""
    one, other = (verification.printable(name) for name in found.bundles)
    if one != other:
        return one, other
    a, b = (first.name, second.name) if first.name != second.name else (str(first), str(second))
    return (f"{one} ({a})", f"{other} ({b})") if a != b else (one, other)


def _print(found: ReportDiff, names: tuple[str, str]) -> None:
    for warning in found.warnings:
        verification.paragraph(console.style(f"note: {warning}", "yellow"))
    rows = [("outcome", *found.outcomes), *((row.metric, row.first, row.second) for row in found.metrics)]
    console.out(console.table(("metric", *names), rows))
    console.out()
    console.out(f"The most frequent answer moved on {len(found.moved)} of {found.common_prompts} common prompts.")
    if found.moved:
        moved = [
            (
                move.prompt,
                f"{verification.printable(move.first)} ({100 * move.first_share:.0f} %)",
                f"{verification.printable(move.second)} ({100 * move.second_share:.0f} %)",
            )
            for move in found.moved[:_MOST_MOVED]
        ]
        console.out(console.table(("prompt", *names), moved))
        if len(found.moved) > _MOST_MOVED:
            console.out(f"... and {len(found.moved) - _MOST_MOVED} more; --json lists all.")
