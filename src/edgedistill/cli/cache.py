"""``edgedistill cache``: what the caches of prompts and of packed weights hold, and how to empty them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.cli import console
from edgedistill.units import format_bytes

if TYPE_CHECKING:
    import argparse

EXAMPLES = """\
examples:
  edgedistill cache show
  edgedistill cache clear     prompts that --prompt-cache kept, and weights that EDGEDISTILL_PACKED_CACHE did"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``cache``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    showing = actions.add_parser("show", help="print where they lie and what they take", allow_abbrev=False)
    clearing = actions.add_parser("clear", help="delete kept prompts and packed weights", allow_abbrev=False)
    for action in (showing, clearing):
        action.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Do the action."""
    from edgedistill.runtime import packed_cache, prompt_cache

    clearing, folder = args.action == "clear", packed_cache.default_directory()
    use = prompt_cache.clear() if clearing else prompt_cache.usage()
    packed = packed_cache.clear(folder) if clearing else packed_cache.entries(folder)
    size = sum(entry[1] for entry in packed)
    if args.json:
        found = {"directory": str(use.directory), "files": use.files, "bytes": use.size}
        console.out_json(found | {"packed": {"directory": str(folder), "entries": len(packed), "bytes": size}})
        return 0
    for place, amount in (
        (use.directory, f"{use.files} files, {format_bytes(use.size)}"),
        (folder, f"{len(packed)} entries, {format_bytes(size)}"),
    ):
        console.out(f"deleted {amount} in {place}" if clearing else f"{place}: {amount}")
    return 0
