"""``edgedistill plan``: size, memory and speed of bundles that need not exist yet."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.cli import console
from edgedistill.errors import UsageError
from edgedistill.extras import require_export
from edgedistill.units import format_bytes, format_count

if TYPE_CHECKING:
    from edgedistill.planning.planner import PlanReport, Row

EXAMPLES = """\
Reads the model's config and the headers of its weights, and writes nothing. Speeds are those of this machine: the
kernels that the model needs are timed once, in some seconds, and kept in the user's cache. That takes up to 0.7 GB in
the temporary directory (TMPDIR) and 2 GB of memory; with less, fewer weights are timed, and the output says so.
Quality is not predicted: edgedistill compare measures it.

examples:
  edgedistill plan tiny-reasoner
  edgedistill plan ./my-student --profile raspberry-pi-5 --context 2048,8192
  edgedistill plan Qwen/Qwen3-0.6B --format int4-b32,int4-b128,int8-b64,fp32
  edgedistill plan ./my-student --profile laptop-cpu,mini-pc --no-measure --json"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``plan``."""
    parser.add_argument("model", metavar="MODEL", help="model to plan for, given as for export")
    parser.add_argument(
        "--profile",
        default="laptop-cpu",
        metavar="P[,P...]",
        help="hardware profiles: names or TOML paths (laptop-cpu)",
    )
    parser.add_argument("--format", metavar="F[,F...]", help="formats instead of the profile's rules")
    parser.add_argument("--block-size", type=int, metavar="N", help="block size of the quantized formats: 16 to 256")
    parser.add_argument(
        "--context", type=_numbers, metavar="N[,N...]", help="context lengths in tokens (1024, 4096, the profile's)"
    )
    parser.add_argument("--prompt-tokens", type=_numbers, metavar="N[,N...]", help="prompt lengths (256, 1024)")
    parser.add_argument("--kv-cache", metavar="T", help="type of keys and values: float32, int8 or int4")
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="PEFT LoRA directory to merge")
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit on the hub")
    parser.add_argument("--offline", action="store_true", help="never touch the network")
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: the profile's)")
    parser.add_argument(
        "--no-measure",
        dest="measure",
        action="store_false",
        help="do not time kernels; show only speeds that are known",
    )
    parser.add_argument("--remeasure", action="store_true", help="time the kernels again")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    """Plan and print."""
    if args.remeasure and not args.measure:
        raise UsageError("--remeasure and --no-measure exclude each other.", hint="Leave one of them out.")
    if args.threads is not None and args.threads < 0:
        raise UsageError(f"--threads is {args.threads}; expected 0 (one per physical core) or more.")
    require_export("plan")
    from edgedistill.planning.options import PlanOptions
    from edgedistill.planning.planner import plan

    profiles = [name.strip() for name in args.profile.split(",") if name.strip()]
    if not profiles:
        raise UsageError("The list of profiles is empty.", hint="See: edgedistill profiles list")
    options = PlanOptions(**{f.name: getattr(args, f.name) for f in dataclasses.fields(PlanOptions)})
    with console.progress() as progress:
        report = plan(args.model, dataclasses.replace(options, profile=profiles), progress=progress)
    if args.json:
        console.out_json(report.to_dict())
    else:
        _print(report)
    return 0


def _print(report: PlanReport) -> None:
    from edgedistill.planning.planner import columns, several_profiles

    several = several_profiles(report)
    console.out(
        console.fields(
            [
                ("model", f"{report.model}: {report.family}, {format_count(report.parameters)} parameters"),
                ("profile", ", ".join(dict.fromkeys(row.profile for row in report.rows))),
                ("speeds", _machine(report)),
                *([("less sure", _less_sure(report.timed_over_bytes))] if report.timed_over_bytes is not None else []),
            ]
        )
    )
    console.out()
    headers, cells = columns(report)
    console.out(console.table(headers, cells, right=range(1 + several, len(headers) - 1)))
    for row in report.rows:
        if row.advice:
            console.out()
            console.out(f"{console.style('does not fit', 'yellow')}: {_label(row, several)}. {row.advice}")


def _machine(report: PlanReport) -> str:
    if report.machine is None:
        return "not timed on this machine yet; leave --no-measure out"
    bandwidth = f", memory {report.bandwidth_gbs:.1f} GB/s" if report.bandwidth_gbs else ""
    machine = report.machine
    threads = f"{machine.threads} thread" + ("s" if machine.threads != 1 else "")
    return f"of this machine ({machine.cpu}, {threads}{bandwidth}, onnxruntime {machine.onnxruntime})"


def _less_sure(timed_over: int) -> str:
    return (
        f"kernels timed over {format_bytes(timed_over)} of weights, fewer than the model has: too little was free in "
        "the temporary directory or in memory. Decoding may be slower; plan times them again once there is room."
    )


def _label(row: Row, several: bool) -> str:
    return f"{row.name} for {row.profile}" if several else row.name


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 1024,4096") from error
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} holds a number below 1")
    return numbers
