"""``edgedistill compare``: several formats of one model, measured side by side."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.cli import console
from edgedistill.errors import MissingExtraError, OutputError, UsageError
from edgedistill.extras import require_export

if TYPE_CHECKING:
    import argparse

    from edgedistill.comparison.result import Comparison

EXAMPLES = """\
Builds a bundle of each format and of fp32, compares their distributions on tokens that the model itself says (or on
--tokens FILE), and times them in turn, each in a process of its own that also says how much private memory loading
takes. A format that another one beats in divergence and memory is marked as dominated. An interrupted comparison goes
on when it is run again.

examples:
  edgedistill compare tiny-reasoner
  edgedistill compare ./my-student --format int4-b32,int4-b128,int8-b64 --out comparison
  edgedistill compare ./my-student --profiles laptop-cpu,laptop-cpu-int8 --keep bundles
  edgedistill compare ./my-student --format int8 --tokens own-text.txt --max-tokens 8192 --json"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``compare``."""
    parser.add_argument("model", metavar="MODEL", help="model to compare formats of, given as for export")
    parser.add_argument("--format", metavar="F[,F...]", help="formats (int4-b128,int4-b32,int6-b32,int8-b64)")
    parser.add_argument("--profiles", metavar="P[,P...]", help="profiles whose own rules are compared as well")
    parser.add_argument(
        "--profile", default="laptop-cpu", metavar="P", help="profile of all other settings (laptop-cpu)"
    )
    parser.add_argument("--context", type=int, metavar="N", help="context of the bundles, in tokens")
    parser.add_argument("--kv-cache", metavar="T", help="type of keys and values: float32, int8 or int4")
    parser.add_argument("--tokens", type=Path, metavar="FILE", help="text, JSONL or stored traces to compare on")
    parser.add_argument("--max-tokens", type=int, default=2048, metavar="N", help="tokens to compare on (2048)")
    parser.add_argument(
        "--decode-tokens", type=int, default=512, metavar="N", help="of those, also decoded one token at a time (512)"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of timing (3); 0: no timing")
    parser.add_argument("--prompt-tokens", type=int, default=256, metavar="N", help="prompt of a round (256)")
    parser.add_argument("--new-tokens", type=int, default=64, metavar="N", help="decode steps of a round (64)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the replies that are compared on")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="build the bundles in this directory and keep them")
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="write compare.json, .html and .png")
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="PEFT LoRA directory to merge")
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit on the hub")
    parser.add_argument("--offline", action="store_true", help="never touch the network")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    """Compare, print, write."""
    require_export("compare")
    from edgedistill.comparison.options import CompareOptions
    from edgedistill.comparison.run import compare

    profiles = [name.strip() for name in (args.profiles or "").split(",") if name.strip()]
    if args.profiles is not None and not profiles:
        raise UsageError("The list of profiles is empty.", hint="See: edgedistill profiles list")
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise OutputError(
            f"{args.out} is a file; a directory was expected.", hint="Choose another directory with --out."
        )
    given = {f.name: getattr(args, f.name) for f in dataclasses.fields(CompareOptions)}
    given |= {"profiles": profiles, "decode_tokens": min(args.decode_tokens, args.max_tokens)}
    with console.progress() as progress:
        result = compare(args.model, CompareOptions(**given), progress=progress)
    written = [] if args.out is None else _write(result, args.out)
    if args.json:
        console.out_json(result.to_dict())
    else:
        _print(result)
    for line in written:
        console.note(line)
    return 0


def _print(result: Comparison) -> None:
    from edgedistill.comparison.page import HEADERS, cells, explained

    console.out(console.table(HEADERS, cells(result), right=range(1, len(HEADERS) - 1)))
    console.out()
    for line in explained(result):
        console.out(line)


def _write(result: Comparison, out: Path) -> list[str]:
    """Write the files; the lines that say so."""
    import json

    from edgedistill.comparison.page import html, png

    out.mkdir(parents=True, exist_ok=True)
    (out / "compare.json").write_text(json.dumps(result.to_dict(), indent=2) + "\n", encoding="utf-8")
    (out / "compare.html").write_text(html(result), encoding="utf-8")
    written = ["compare.json", "compare.html"]
    lines = []
    try:
        png(result, out / "compare.png")
        written.append("compare.png")
    except MissingExtraError as error:
        lines.append(str(error))
    return [f"written: {', '.join(str(out / name) for name in written)}", *lines]
