"""``edgedistill pull``: download a bundle from the Hub."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.cli import console
from edgedistill.cli.bundle_options import add_trusted_key

if TYPE_CHECKING:
    import argparse

EXAMPLES = """\
examples:
  edgedistill pull me/my-student-onnx -o my-student
  edgedistill pull me/my-student-onnx --revision v2 -o my-student
  edgedistill pull me/my-student-onnx --trusted-key release.key.pub -o my-student

Only files that the bundle's manifest lists are fetched, and every hash is compared."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``pull``."""
    parser.add_argument("repository", metavar="USER/NAME", help="Hub repository that holds a bundle")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="bundle directory to make")
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit")
    add_trusted_key(parser)
    parser.add_argument("--json", action="store_true", help="print path and identity as JSON")


def run(args: argparse.Namespace) -> int:
    """Fetch and check."""
    from edgedistill.workflow.publish import pull

    with console.progress() as progress:
        bundle = pull(args.repository, args.out, revision=args.revision, trusted=args.trusted_key, progress=progress)
    if args.json:
        console.out_json({"path": str(args.out), "repository": args.repository, "identity": bundle.identity()})
        return 0
    console.out(f"{args.repository} is at {args.out}")
    console.out()
    console.out(f"Try: edgedistill run {shlex.quote(str(args.out))} " + '"What is 17 + 25?"')
    return 0
