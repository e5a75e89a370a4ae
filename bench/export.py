"""Measures exports of large random checkpoints: wall time, peak memory, throughput (`make bench-export`).

Each export is a process of its own and reports its peak resident set (the kernel's VmHWM). The peak of the trial
decode, a child process, is reported separately. Missing checkpoints are written by bench/make_checkpoint.py (8 and 16
GB of disk); --clean removes them afterwards.

    python bench/export.py --shapes qwen3-4b qwen3-8b --work out/bench-export
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# Both make int4 with 8-bit embedding, head and attention inputs; an 8B model does not fit an 8 GB laptop.
FITTING = {"qwen3-8b": "mini-pc"}


def cpu_name() -> str:
    """Processor name as the kernel gives it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def measure(shape: str, work: Path, profile: str, keep: bool) -> dict[str, Any]:
    """Make the checkpoint if needed, export it once, return the figures."""
    checkpoint = work / shape
    if not (checkpoint / "config.json").is_file():
        command = [sys.executable, str(HERE / "make_checkpoint.py"), "--shape", shape, "--out", str(checkpoint)]
        subprocess.run(command, check=True)
    source_bytes = sum(f.stat().st_size for f in checkpoint.glob("*.safetensors"))
    bundle = work / f"{shape}-bundle"
    shutil.rmtree(bundle, ignore_errors=True)
    command = [sys.executable, "-m", "edgedistill", "export", str(checkpoint), "-o", str(bundle), "--json"]
    command += ["--profile", profile]
    started = time.perf_counter()
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    wall = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"export of {shape} ended with exit code {done.returncode}")
    result = json.loads(done.stdout)
    figures = {
        "shape": shape,
        "profile": profile,
        "source_bytes": source_bytes,
        "bundle_bytes": result["bundle_bytes"],
        "parameters": result["parameters"],
        "bits_per_weight": result["bits_per_weight"],
        "wall_s": wall,
        "weights_s": result["weights_seconds"],
        "peak_rss_bytes": result["peak_rss_bytes"],
        "trial_peak_rss_bytes": result["check"].get("peak_rss_bytes"),
    }
    if not keep:
        shutil.rmtree(bundle, ignore_errors=True)
    return figures


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown table of the figures."""
    lines = [
        "| shape | profile | source | bundle | bits/weight | wall | peak RSS, export | peak RSS, trial | M weights/s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        trial = row["trial_peak_rss_bytes"]
        lines.append(
            f"| {row['shape']} | {row['profile']} | {row['source_bytes'] / 1e9:.2f} GB "
            f"| {row['bundle_bytes'] / 1e9:.2f} GB "
            f"| {row['bits_per_weight']:.2f} | {row['wall_s'] / 60:.1f} min | {row['peak_rss_bytes'] / 1e9:.2f} GB "
            f"| {f'{trial / 1e9:.2f} GB' if trial else 'not run'} | {row['parameters'] / row['weights_s'] / 1e6:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Parse arguments, measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["qwen3-4b", "qwen3-8b"])
    parser.add_argument("--profile", help="default: the smallest built-in profile that the shape fits")
    parser.add_argument("--work", type=Path, default=Path("out/bench-export"))
    parser.add_argument("--keep", action="store_true", help="keep the exported bundles")
    parser.add_argument("--clean", action="store_true", help="remove the checkpoints afterwards")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    rows = []
    for shape in arguments.shapes:
        profile = arguments.profile or FITTING.get(shape, "laptop-cpu")
        rows.append(measure(shape, arguments.work, profile, arguments.keep))
        print(table(rows[-1:]), flush=True)
        if arguments.clean:
            shutil.rmtree(arguments.work / shape, ignore_errors=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    report = {"machine": cpu_name(), "cores": cores, "rows": rows}
    (arguments.work / "export.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\n{report['machine']}, {cores} cores\n\n{table(rows)}")


if __name__ == "__main__":
    main()
