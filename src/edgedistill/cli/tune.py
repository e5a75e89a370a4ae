"""``edgedistill tune``: arguments, progress, and what was gained."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.cli import console
from edgedistill.extras import require_export
from edgedistill.units import format_count, format_seconds

if TYPE_CHECKING:
    import argparse

    from edgedistill.tune.options import TuneResult

EXAMPLES = """\
Codes stay as they are: the tuned bundle has the size and the speed of the old one. Needs the
extras torch and export. The original is run in float32 beside the quantized model.

examples:
  edgedistill tune my-bundle -o my-tuned
  edgedistill tune my-bundle --reference ./my-student -o my-tuned --minutes 30
  edgedistill tune my-bundle -o my-tuned --calibration dialogues.jsonl --on-policy 0.25

After Ctrl-C, the same command continues the run."""

_NAMES = (
    ("steps", int, "N", "updates (300)"),
    ("minutes", float, "M", "time for the updates instead of their number"),
    ("learning-rate", float, "R", "relative step of scales"),
    ("norm-rate", float, "R", "relative step of norm weights and biases"),
    ("zero-point-rate", float, "R", "step of zero points in codes; 0 keeps them"),
    ("on-policy", float, "SHARE", "share of updates on the quantized model's own replies, by the reverse KL"),
    ("batch-tokens", int, "N", "maximum number of tokens in an update"),
    ("sequences", int, "N", "traces of full length that the original generates"),
    ("length", int, "N", "maximum number of tokens in a trace"),
    ("seed", int, "N", "seed of the traces and of the order of batches"),
    ("patience", int, "N", "evaluations on held-out traces without improvement before training stops early"),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``tune``."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="quantized bundle; it is not changed")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="bundle directory to make")
    parser.add_argument(
        "--reference",
        metavar="MODEL",
        help="the original: name, directory or GGUF file (default: the one that the manifest names)",
    )
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="PEFT LoRA directory to merge into the original")
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE", help="text, JSONL or traces to train on (default: own replies)"
    )
    group = parser.add_argument_group("training")
    for name, kind, metavar, text in _NAMES:
        group.add_argument(f"--{name}", type=kind, metavar=metavar, help=text)
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace) -> int:
    """Tune and print the gain."""
    require_export("tune")
    from edgedistill.tune.options import TuneOptions
    from edgedistill.tune.pipeline import tune_bundle

    names = (name.replace("-", "_") for name, *_ in _NAMES)
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    options = TuneOptions(**given)
    try:
        with console.progress() as progress:
            result = tune_bundle(
                args.bundle,
                args.out,
                reference=args.reference,
                adapter=args.adapter,
                calibration=args.calibration,
                options=options,
                force=args.force,
                progress=progress,
            )
    except KeyboardInterrupt:
        if (args.out.absolute().parent / f".{args.out.absolute().name}.partial").is_dir():
            console.note(f"To go on: edgedistill {shlex.join(sys.argv[1:])}")
        raise
    if args.json:
        console.out_json(result.to_dict())
    else:
        _print(result)
    return 0


def _print(result: TuneResult) -> None:
    console.out(console.table(("held-out traces", "before", "after"), result.gains()))
    console.out()
    ended = "no gain on held-out traces for too long" if result.reason == "early stop" else "all steps done"
    pairs = [
        ("bundle", str(result.path)),
        ("measured on", f"{format_count(result.after.positions)} positions, in the kernels of the deployed bundle"),
        ("training", f"{result.steps} steps, {format_count(result.tokens)} tokens, {format_seconds(result.seconds)}; "
                     f"best at step {result.best_step} ({ended})"),
        ("changed", f"{len(result.changed)} arrays; codes and graph are the same"),
    ]  # fmt: skip
    console.out(console.fields(pairs))
    console.out()
    console.out(f"Try: edgedistill verify {shlex.quote(str(result.path))} --reference hf --fast")
