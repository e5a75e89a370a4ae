"""``edgedistill push``: upload a bundle to the Hub."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.cli import console
from edgedistill.cli.bundle_options import add_trusted_key

if TYPE_CHECKING:
    import argparse

EXAMPLES = """\
examples:
  edgedistill push my-bundle me/my-student-onnx
  edgedistill push my-bundle me/my-student-onnx --private
  edgedistill push my-bundle me/my-student-onnx --layout hub     for optimum and transformers.js too

The token is that of hf auth login, or HF_TOKEN. Every hash is compared before anything is sent."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``push``."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle directory")
    parser.add_argument("repository", metavar="USER/NAME", help="Hub repository; it is made if it is not there")
    parser.add_argument("--layout", metavar="L", help="upload it in this layout (see: edgedistill layout --help)")
    parser.add_argument("--private", action="store_true", help="make the repository private, if it is made")
    parser.add_argument("--revision", metavar="REV", help="branch to commit to")
    parser.add_argument("--message", metavar="TEXT", help="commit message")
    add_trusted_key(parser)
    parser.add_argument("--json", action="store_true", help="print repository, address and commit as JSON")


def run(args: argparse.Namespace) -> int:
    """Upload."""
    from edgedistill.workflow.publish import push

    with console.progress() as progress:
        pushed = push(
            args.bundle,
            args.repository,
            layout=args.layout,
            private=args.private,
            revision=args.revision,
            message=args.message,
            trusted=args.trusted_key,
            progress=progress,
        )
    if args.json:
        console.out_json(dataclasses.asdict(pushed))
        return 0
    console.out(f"{args.bundle} is at {pushed.url} (commit {pushed.commit[:12]})")
    console.out()
    console.out(f"Elsewhere: edgedistill pull {pushed.repository} -o {pushed.repository.partition('/')[2]}")
    return 0
