"""``edgedistill layout``: write a bundle as optimum, transformers.js or onnxruntime-genai expect a model."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.cli import console
from edgedistill.cli.bundle_options import add_trusted_key

if TYPE_CHECKING:
    import argparse

EXAMPLES = """\
layouts:
  optimum           model.onnx, config.json and tokenizer at the top, for ORTModelForCausalLM
  transformers.js   the graph as onnx/model_q4.onnx (or the ending that its weights have), for Node.js and browsers
  genai             model.onnx and genai_config.json, for onnxruntime-genai
  hub               that of transformers.js, and the bundle itself in the folder edgedistill: one repository for all

examples:
  edgedistill layout my-bundle transformers.js -o for-the-web
  edgedistill layout my-bundle hub -o repository
  edgedistill export tiny-reasoner --layout optimum -o for-optimum"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``layout``."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle directory")
    parser.add_argument("layout", metavar="LAYOUT", help="optimum, transformers.js, genai or hub")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="directory to make")
    add_trusted_key(parser)
    parser.add_argument("--json", action="store_true", help="print the names of the files as JSON")


def run(args: argparse.Namespace) -> int:
    """Compare every hash of the bundle, then write the layout."""
    from edgedistill.bundle.bundle import Bundle
    from edgedistill.export.layouts import write_layout

    with console.progress() as progress:
        bundle = Bundle.open(args.bundle, check="full", trusted=args.trusted_key, progress=progress)
        names = write_layout(bundle, args.layout, args.out, progress=progress)
    if args.json:
        console.out_json({"path": str(args.out), "layout": args.layout, "files": list(names)})
        return 0
    console.out(f"{args.layout} layout of {args.bundle} at {shlex.quote(str(args.out))}:")
    for name in names:
        console.out(f"  {name}")
    return 0
