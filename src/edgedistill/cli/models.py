"""``edgedistill models``: the built-in models, and small real ones fetched into the user's cache."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from edgedistill.cli import console
from edgedistill.units import format_bytes

if TYPE_CHECKING:
    import argparse

_EXAMPLES = """\
examples:
  edgedistill models list
  edgedistill models pull smollm2-135m
  edgedistill export smollm2-135m -o smollm2"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``models``."""
    parser.epilog = _EXAMPLES
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="show the built-in models", allow_abbrev=False)
    pulling = actions.add_parser("pull", help="fetch a model into the user's cache", allow_abbrev=False)
    pulling.add_argument("name", metavar="NAME", help="a name that the list shows")
    pulling.add_argument("--force", action="store_true", help="fetch it again")
    for action in (listing, pulling):
        action.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """List or pull."""
    return _pull(args) if args.action == "pull" else _list(args)


def _list(args: argparse.Namespace) -> int:
    from edgedistill.catalog import builtin as catalog

    entries = catalog.list_models()
    if args.json:
        console.out_json([dataclasses.asdict(entry) for entry in entries])
        return 0
    rows = [
        (e.name, format_bytes(e.size) if e.size else "", "yes" if e.installed else "no", e.license, e.description)
        for e in entries
    ]
    console.out(console.table(("name", "size", "installed", "licence", "description"), rows, right=(1,), wrap=4))
    missing = [entry.name for entry in entries if not entry.installed and entry.size]
    if missing:
        console.out()
        console.out(f"Fetch one with: edgedistill models pull {missing[0]}")
    return 0


def _pull(args: argparse.Namespace) -> int:
    from edgedistill.catalog import builtin as catalog

    with console.progress() as progress:
        path = catalog.pull(args.name, progress, force=args.force)
    if args.json:
        console.out_json({"name": args.name, "path": str(path)})
    else:
        console.out(f"{args.name} is at {path}")
        console.out()
        console.out(f"Try: edgedistill export {args.name} -o {args.name}-bundle")
    return 0
