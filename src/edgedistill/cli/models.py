"""``edgedistill models``: the built-in models, small real ones fetched, and bundles in the user's cache."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from edgedistill.cli import console
from edgedistill.errors import ModelNotFoundError
from edgedistill.units import format_bytes

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

EXAMPLES = """\
examples:
  edgedistill models list
  edgedistill models pull smollm2-135m
  edgedistill export smollm2-135m -o smollm2
  edgedistill models where smollm2-135m
  edgedistill models remove smollm2-135m      what was fetched, and the bundles in the cache made of it"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``models``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="show the built-in models", allow_abbrev=False)
    pulling = actions.add_parser("pull", help="fetch a model into the user's cache", allow_abbrev=False)
    pulling.add_argument("name", metavar="NAME", help="name from the list")
    pulling.add_argument("--force", action="store_true", help="download it again")
    where = actions.add_parser("where", help="print the paths of a model and of its cached bundles", allow_abbrev=False)
    removing = actions.add_parser("remove", help="remove them from the cache", allow_abbrev=False)
    for action in (where, removing):
        action.add_argument("name", metavar="NAME", help="name from the list")
    for action in (listing, pulling, where, removing):
        action.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Do the action."""
    return {"list": _list, "pull": _pull, "where": _where, "remove": _remove}[args.action](args)


def _list(args: argparse.Namespace) -> int:
    from edgedistill.catalog import builtin as catalog
    from edgedistill.workflow.by_name import cached

    made = [
        catalog.CatalogEntry(bundle.model, "bundle in the cache", bundle.size, True, "", bundle.path)
        for bundle in cached()
    ]
    entries = (*catalog.list_models(), *made)
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


def _where(args: argparse.Namespace) -> int:
    paths = _paths(args.name)
    if args.json:
        console.out_json({"name": args.name, "paths": [str(path) for path in paths]})
    else:
        for path in paths:
            console.out(str(path))
    return 0


def _remove(args: argparse.Namespace) -> int:
    from edgedistill.bundle.staging import remove_bundle
    from edgedistill.catalog import builtin as catalog

    paths = _paths(args.name)
    model = catalog.find(args.name)
    kept = [path for path in paths if model is not None and model.wheel is None and path == catalog.location(model)]
    gone = [path for path in paths if path not in kept]
    for path in gone:
        if path.is_dir():
            remove_bundle(path)
        else:
            catalog.remove(args.name)
    if args.json:
        console.out_json({"name": args.name, "removed": [str(path) for path in gone]})
        return 0
    for path in gone:
        console.out(f"removed {path}")
    for path in kept:
        console.note(f"{path} is part of edgedistill and is kept.")
    return 0


def _paths(name: str) -> list[Path]:
    """What the cache holds of ``name``: the model, then its bundles. Raises ModelNotFoundError for nothing."""
    from edgedistill.catalog import builtin as catalog
    from edgedistill.workflow.by_name import cached, slug

    found = [entry.path for entry in catalog.list_models() if entry.name == name and entry.installed]
    found += [bundle.path for bundle in cached() if bundle.model in (name, slug(name))]
    if not found:
        raise ModelNotFoundError(f"The cache holds no model called {name}.", hint="See: edgedistill models list")
    return found
