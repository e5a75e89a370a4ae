"""Compares predictions of `edgedistill plan` with measurements: file size, memory, decode and prefill speed.

For each model and format: predict, export, and measure the bundle in a process of its own, in several rounds of all
formats in turn. The models are SmolLM2-135M and a random checkpoint with the shape of Qwen3-0.6B, since the values of
weights change neither speed nor memory.

    python bench/plan.py [--quick] [--formats int4-b32,fp32] [--rounds 5] [--work DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from plan_turn import CONTEXTS, PREFILL

from edgedistill import PlanReport, export, plan
from edgedistill.bundle.bundle import Bundle
from edgedistill.planning.options import read_formats

HERE = Path(__file__).resolve().parent
MODELS = ("smollm2-135m", "qwen3-0.6b")
FORMATS = "int4-b32,int4-b128,int8-b64,fp32"
WITHIN = {"file": 0.02, "memory": 0.10, "decode": 0.25, "prefill": 0.25}


def rows(name: str, model: str | Path, args: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Predictions and measurements of one model."""
    formats = read_formats(args.formats)
    report = plan(model, format=args.formats, context=CONTEXTS, prompt_tokens=PREFILL, remeasure=not args.known)
    bundles = {}
    for label, _ in formats:
        bundles[label] = work / f"{name}-{label}"
        if not (bundles[label] / "manifest.json").is_file():
            export(model, bundles[label], format=label, context=max(CONTEXTS), check=False, verify=False)
    rounds: dict[str, list[dict[str, float]]] = {label: [] for label in bundles}
    for index in range(args.rounds):
        for label, path in sorted(bundles.items(), reverse=bool(index % 2)):
            command = [sys.executable, str(HERE / "plan_turn.py"), str(path)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rounds[label].append(json.loads(done.stdout.splitlines()[-1]))
    return [row for label in bundles for row in _compared(name, label, report, bundles[label], rounds[label])]


def _compared(
    name: str, label: str, report: PlanReport, path: Path, rounds: list[dict[str, float]]
) -> list[dict[str, Any]]:
    planned = next(row for row in report.rows if row.name == label)
    found: list[tuple[str, float, list[float]]] = [("file", planned.file_bytes, [Bundle.open(path).size])]
    assert planned.speed is not None
    for key in rounds[0]:
        kind, at = key.split()
        if kind == "memory":
            predicted: float = planned.memory[int(at)].ram_bytes
        else:
            predicted = (planned.speed.decode_tps if kind == "decode" else planned.speed.prefill_tps)[int(at)]
        found.append((key, predicted, [one[key] for one in rounds]))
    return [
        {
            "model": name,
            "format": label,
            "what": what,
            "predicted": predicted,
            "measured": {"median": median(values), "min": min(values), "max": max(values)},
            "ratio": predicted / median(values),
            "within": abs(predicted / median(values) - 1) <= WITHIN[what.split()[0]],
        }
        for what, predicted, values in found
    ]


def markdown(found: list[dict[str, Any]]) -> str:
    """A table of all rows."""
    lines = [
        "| model | format | what | predicted | measured, median (min - max) | ratio | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found:
        scale, unit = (1e-6, "MB") if row["what"].split()[0] in ("file", "memory") else (1.0, "tok/s")
        spread = row["measured"]
        low, middle, high = (f"{scale * spread[key]:,.1f}" for key in ("min", "median", "max"))
        lines.append(
            f"| {row['model']} | {row['format']} | {row['what']} | {scale * row['predicted']:,.1f} {unit} "
            f"| {middle} ({low} - {high}) | {row['ratio']:.3f} | {'' if row['within'] else 'outside'} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="names, or shapes of make_checkpoint.py")
    parser.add_argument("--formats", default=FORMATS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="keep checkpoints and bundles here")
    parser.add_argument("--known", action="store_true", help="take timings of kernels from the cache where they are")
    parser.add_argument("--quick", action="store_true", help="the built-in model and one round")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    args = parser.parse_args()
    if args.quick:
        args.models, args.rounds = ["tiny-reasoner"], 1
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        for name in args.models:
            model: str | Path = name
            if name.startswith("qwen3-"):
                model = work / f"{name}-random"
                if not model.is_dir():
                    command = [sys.executable, str(HERE / "make_checkpoint.py"), "--shape", name, "--out", str(model)]
                    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            found += rows(name, model, args, work)
    print(markdown(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    outside = [row for row in found if not row["within"]]
    print(f"\n{len(found) - len(outside)} of {len(found)} predictions within {WITHIN}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
