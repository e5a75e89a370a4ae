"""``edgedistill cache``: what the prompt cache holds, and how to empty it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.cli import console
from edgedistill.units import format_bytes

if TYPE_CHECKING:
    import argparse

EXAMPLES = """\
examples:
  edgedistill cache show
  edgedistill cache clear     prompts that run, chat and open_bundle kept with --prompt-cache"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``cache``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    showing = actions.add_parser("show", help="print where kept prompts lie and what they take", allow_abbrev=False)
    clearing = actions.add_parser("clear", help="delete all kept prompts", allow_abbrev=False)
    for action in (showing, clearing):
        action.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Do the action."""
    from edgedistill.runtime import prompt_cache

    use = prompt_cache.clear() if args.action == "clear" else prompt_cache.usage()
    if args.json:
        console.out_json({"directory": str(use.directory), "files": use.files, "bytes": use.size})
        return 0
    amount = f"{use.files} files, {format_bytes(use.size)}"
    console.out(f"deleted {amount}" if args.action == "clear" else f"{use.directory}: {amount}")
    return 0
