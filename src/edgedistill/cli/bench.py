"""``edgedistill bench``: speed and memory of a bundle on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.cli import console
from edgedistill.cli.bundle_options import MODEL_HELP, add_limits, bundle_path
from edgedistill.units import format_bytes, format_rate, format_seconds

if TYPE_CHECKING:
    from edgedistill.runtime.measure.bench import BenchResult, Rate

EXAMPLES = """\
examples:
  edgedistill bench my-bundle
  edgedistill bench my-bundle --prompt-tokens 128,512 --new-tokens 128 --rounds 10
  edgedistill bench my-bundle --threads 2 --json

Close other programs first; the spread between the rounds shows how quiet the machine is."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``bench``."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help=MODEL_HELP)
    parser.add_argument(
        "--prompt-tokens",
        type=_numbers,
        metavar="N[,N...]",
        help="prompt lengths (64, 256 and 1024 where the context allows)",
    )
    parser.add_argument("--new-tokens", type=int, metavar="N", help="decode steps per round (64)")
    parser.add_argument("--rounds", type=int, metavar="N", help="measured rounds (5)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: the bundle's profile)")
    parser.add_argument("--json", action="store_true", help="print every measurement as JSON")
    add_limits(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from edgedistill.runtime.measure.bench import bench

    bundle = bundle_path(args.bundle)
    with console.progress() as progress:
        result = bench(
            bundle,
            threads=args.threads,
            prompt_tokens=args.prompt_tokens,
            new_tokens=args.new_tokens,
            rounds=args.rounds,
            progress=progress,
        )
    if args.json:
        console.out_json(result.to_dict())
    else:
        _print(result)
    return 0


def _print(result: BenchResult) -> None:
    private = result.private_loaded_bytes
    pairs = [
        ("bundle", f"{result.bundle} ({format_bytes(result.bundle_bytes)})"),
        ("threads", str(result.threads)),
        ("load time", format_seconds(result.load_s)),
        ("memory", f"{format_bytes(result.rss_loaded_bytes)} loaded, {format_bytes(result.peak_rss_bytes)} peak"),
        *([] if private is None else [("private", f"{format_bytes(private)} taken by loading")]),
        ("KV cache", f"{format_bytes(result.kv_bytes_per_token)} per token"),
        ("step", f"{format_seconds(result.step_p50_s)} median, {format_seconds(result.step_p95_s)} 95th percentile"),
    ]
    console.out(console.fields(pairs))
    console.out()
    rows = [_row(f"prefill of {rate.tokens}", rate) for rate in result.prefill]
    rows.append(_row(f"decode of {result.decode.tokens} after {result.decode_context}", result.decode))
    console.out(console.table(("tokens", "median", "slowest", "fastest"), rows, right=(1, 2, 3)))


def _row(name: str, rate: Rate) -> tuple[str, str, str, str]:
    return name, format_rate(rate.median), format_rate(min(rate.values)), format_rate(max(rate.values))


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 64,256") from error
