"""Measures the gain of tuning on a calibrated 4-bit bundle: KL to the original before and after, and the minutes.

    python bench/tune.py [--models tiny-reasoner smollm2-135m] [--minutes 60] [--on-policy 0.25] [--quick]

The bundle: int4-b32, every layer calibrated on traces of the model itself. Tuning trains on other such traces and is
judged, in the deployed kernels, by held-out ones. Published weights of SmolLM2 lie on a 4-bit grid and are dithered off
it. Everything is kept under --work: an interrupted run (Ctrl-C) goes on when it is started again, and a finished one is
only printed.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from originals import original

from edgedistill import ExportOptions, export
from edgedistill.bundle.bundle import Bundle
from edgedistill.tune.options import TuneOptions
from edgedistill.tune.pipeline import tune_bundle
from edgedistill.workflow.calibration_traces import traces_for

FORMAT = "int4-b32-asym-gptq"
MINUTES = {"tiny-reasoner": 5.0, "smollm2-135m": 90.0}


def say(text: str) -> None:
    """A line about what happens now."""
    sys.stderr.write(text + "\n")


def tuned(name: str, options: TuneOptions, tokens: int, work: Path) -> dict[str, Any]:
    """What the manifest of the tuned bundle says, JSON-able; the work is done where it is not done yet."""
    source = original(name, work)
    made, out = work / f"{name}-{tokens}", work / f"{name}-{tokens}-tuned"
    if not (made / "manifest.json").is_file():
        say(f"{name}: {tokens} calibration tokens")
        traces = traces_for(source, ExportOptions(calibration_tokens=tokens))
        say(f"{name}: calibrated bundle")
        export(source, made, format=FORMAT, calibration=traces, check=False, verify=False)
    if (out / "manifest.json").is_file():
        done = Bundle.open(out).manifest.tuning
        if done["options"] != options.to_dict():
            raise SystemExit(f"error: {out} was tuned with other settings; remove it, or choose another --work.")
        return done
    say(f"{name}: tuning")
    return tune_bundle(made, out, reference=source, options=options).manifest.tuning


def row(name: str, record: dict[str, Any]) -> str:
    """A line of the table."""
    before, after = record["before"], record["after"]

    def cell(one: dict[str, Any]) -> str:
        return f"{one['kl']:.4f} ({one['low']:.4f} to {one['high']:.4f}) | {100 * one['top_agreement']:.1f} %"

    gain = 100 * (1 - after["kl"] / before["kl"]) if before["kl"] else 0.0
    return (
        f"| {name} | {cell(before)} | {cell(after)} | {gain:.0f} % | {record['steps']} | {record['seconds'] / 60:.1f} "
        f"| {record['reason']} |"
    )


def main() -> int:
    """Parse, tune, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MINUTES))
    parser.add_argument("--minutes", type=float, help="of updates, for each model (5 and 90)")
    parser.add_argument(
        "--on-policy", type=float, default=0.0, help="share of updates on the quantized model's replies"
    )
    parser.add_argument("--calibration-tokens", type=int, default=ExportOptions().calibration_tokens)
    parser.add_argument("--work", type=Path, default=Path("bench-results/tune"), metavar="DIR")
    parser.add_argument("--quick", action="store_true", help="tiny-reasoner, a few updates: does it run?")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    options = TuneOptions(on_policy=args.on_policy)
    if args.quick:
        args.models, args.calibration_tokens, args.work = ["tiny-reasoner"], 512, args.work / "quick"
        options = replace(options, steps=4, sequences=4, length=64, evaluate_every=2)
    args.work.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in args.models:
        timed = options if args.quick else replace(options, minutes=args.minutes or MINUTES.get(name, 60.0))
        found[name] = tuned(name, timed, args.calibration_tokens, args.work)
    print("| model | KL before (95 %) | same top | KL after (95 %) | same top | less | updates | minutes | ended by |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, record in found.items():
        print(row(name, record))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
