"""``edgedistill families``: the model families that the native exporter knows, and what tests show of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.cli import console

if TYPE_CHECKING:
    import argparse

    from edgedistill.architecture.levels import FamilyLevel

HEADERS = ("family", "level", "transformers", "GGUF", "text part of")
EXAMPLES = """\
examples:
  edgedistill families
  edgedistill families granite
  edgedistill families --json

levels:
  config read    the family is in the table
  logits equal   a tiny random model, saved by that version of transformers, gives transformers' logits
  real weights   a trained model also gives transformers' greedy tokens
GGUF: names of the family in GGUF files; *: a file written from a checkpoint gives the checkpoint's logits"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``families``."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="show only families with this in their name")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from edgedistill.architecture.levels import family_levels
    from edgedistill.errors import UsageError

    wanted = (args.name or "").lower()
    entries = [
        row for row in family_levels() if any(wanted in name for name in (row.model_type, *row.gguf, *row.inside))
    ]
    if not entries:
        raise UsageError(
            f"No family has {args.name!r} in its name.",
            hint="See: edgedistill families. Others go through optimum-onnx (export --exporter optimum).",
        )
    if args.json:
        console.out_json([row.to_dict() for row in entries])
        return 0
    console.out(console.table(HEADERS, [row_cells(row) for row in entries], wrap=4))
    return 0


def row_cells(row: FamilyLevel) -> tuple[str, ...]:
    """The cells of a family's row, in the order of ``HEADERS``."""
    gguf = ", ".join(f"{name}*" if name in row.gguf_equal else name for name in row.gguf)
    return row.model_type, row.level, ", ".join(row.logits_equal), gguf, ", ".join(row.inside)
