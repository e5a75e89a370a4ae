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
  edgedistill cache clear             both: the prompts of --prompt-cache and the weights of EDGEDISTILL_PACKED_CACHE
  edgedistill cache clear --prompts   the prompts alone"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``cache``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    showing = actions.add_parser("show", help="print where the two caches are and how large", allow_abbrev=False)
    clearing = actions.add_parser("clear", help="delete kept prompts, packed weights, or both", allow_abbrev=False)
    which = clearing.add_mutually_exclusive_group()
    which.add_argument("--prompts", action="store_true", help="delete kept prompts only (default: both)")
    which.add_argument("--packed", action="store_true", help="delete packed weights only (default: both)")
    for action in (showing, clearing):
        action.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Do the action."""
    from edgedistill.runtime import packed_cache, prompt_cache
    from edgedistill.runtime.prompt_cache import CacheUse

    clearing, folder = args.action == "clear", packed_cache.default_directory()
    use, packed = prompt_cache.usage(), packed_cache.entries(folder)
    if clearing:
        use = CacheUse(use.directory, 0, 0) if args.packed else prompt_cache.clear()
        packed = [] if args.prompts else packed_cache.clear(folder)
    size = sum(entry[1] for entry in packed)
    if args.json:
        found = {"directory": str(use.directory), "files": use.files, "bytes": use.size}
        console.out_json(found | {"packed": {"directory": str(folder), "entries": len(packed), "bytes": size}})
        return 0
    deleted = "deleted " if clearing else ""
    if not (clearing and args.packed):
        console.out(f"{deleted}{use.files} files of kept prompts ({format_bytes(use.size)}) in {use.directory}")
    if not (clearing and args.prompts):
        console.out(f"{deleted}{len(packed)} sets of packed weights ({format_bytes(size)}) in {folder}")
    return 0
