"""Shows where the time of a prompt goes: the share of each operator, as the prompt gets longer.

    python bench/operators.py BUNDLE ... [--prompts 256 1024 4096] [--chunk N] [--rounds 3] [--threads N]

ONNX Runtime's profiler times every node of the graph; here they are added up by operator, for a prefill in chunks and
for one decode step behind it. Each prompt is read ``--rounds`` times, and the round in which the nodes took least is
shown. The sum of all nodes is less than the time of the prefill: what is left is the work between steps.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from unittest import mock

import numpy as np
import onnxruntime as ort

from edgedistill.runtime.chunks import chunk_bounds
from edgedistill.runtime.model import open_bundle
from edgedistill.runtime.session import DecoderSession, physical_cores
from edgedistill.system.processor import read_processor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# The operators that get a column; the others are summed.
MATRICES, ATTENTION = ("MatMulNBits", "MatMul", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"), "GroupQueryAttention"


Seconds = dict[str, float]  # by operator


def options_that_profile(prefix: Path) -> Callable[[], ort.SessionOptions]:
    """What makes options of sessions whose nodes are timed, into files that begin with ``prefix``."""
    plain = ort.SessionOptions

    def make() -> ort.SessionOptions:
        options = plain()
        options.enable_profiling = True
        options.profile_file_prefix = str(prefix)
        return options

    return make


def added(parts: Iterable[Seconds]) -> Seconds:
    """The sums by operator."""
    found: Seconds = {}
    for part in parts:
        for name, seconds in part.items():
            found[name] = found.get(name, 0.0) + seconds
    return found


def steps(path: Path) -> list[Seconds]:
    """Seconds by operator of every step in the profile at ``path``, in order."""
    events = json.loads(path.read_text())
    runs = sorted((event["ts"], event["ts"] + event["dur"]) for event in events if event.get("name") == "model_run")
    found: list[Seconds] = [{} for _ in runs]
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            index = next(i for i, (low, high) in enumerate(runs) if low <= event["ts"] <= high)
            found[index] = added([found[index], {event["args"]["op_name"]: event["dur"] / 1e6}])
    return found


def measure(bundle: Path, prompts: Sequence[int], chunk: int, rounds: int, threads: int) -> dict[str, Seconds]:
    """Seconds by operator: ``prefill N`` and ``decode at N`` for every length."""
    with tempfile.TemporaryDirectory() as folder:
        timing = mock.patch.object(ort, "SessionOptions", options_that_profile(Path(folder) / "profile"))
        with timing, open_bundle(bundle, threads=threads) as model:
            session = cast("DecoderSession", model.session)
            decoder, plan = session.decoder(), list[tuple[str, int]]()
            known = min(model.bundle.manifest.model.vocab_size, 32768)
            for prompt in prompts:
                ids = np.random.default_rng(0).integers(3, known, prompt).tolist()
                bounds = list(chunk_bounds(prompt, chunk or model.prefill_chunk))
                for number in range(rounds):
                    decoder.truncate(0)
                    for start, stop in bounds:
                        decoder.feed(ids[start:stop], exact=True, logits=stop == prompt)
                        plan.append((f"prefill {prompt}", number))
                    decoder.feed(ids[:1])
                    plan.append((f"decode at {prompt}", number))
            timed = steps(Path(session.wide.end_profiling()))
            if session.wide is not session.raw:
                raise SystemExit("error: the bundle has two forms of its layers; expected one.")
    parts: dict[str, dict[int, list[Seconds]]] = {}
    for (title, number), one in zip(plan, timed[-len(plan) :], strict=True):
        parts.setdefault(title, {}).setdefault(number, []).append(one)
    return {
        title: min((added(one) for one in by_round.values()), key=lambda one: sum(one.values()))
        for title, by_round in parts.items()
    }


def table(found: dict[str, Seconds]) -> list[str]:
    """Markdown: milliseconds, and the shares of matrices, of attention and of what else there is."""
    lines = ["| | nodes, ms | matrices | attention | other | of which most |", "|---|---:|---:|---:|---:|---|"]
    for title, seconds in found.items():
        total = sum(seconds.values())
        matrices, attention = sum(seconds.get(name, 0.0) for name in MATRICES), seconds.get(ATTENTION, 0.0)
        others = sorted(set(seconds) - {*MATRICES, ATTENTION}, key=lambda name: -seconds[name])
        shares = [f"{part / total:.0%}" for part in (matrices, attention, total - matrices - attention)]
        most = ", ".join(f"{name} {seconds[name] / total:.0%}" for name in others[:2])
        lines.append(f"| {title} | " + " | ".join([f"{1e3 * total:.1f}", *shares, most]) + " |")
    return lines


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--prompts", type=int, nargs="+", default=[256, 1024, 4096], metavar="N")
    parser.add_argument("--chunk", type=int, default=0, help="tokens a step (0: the bundle's own)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    load = f"; load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    processor = read_processor(Path("/"), platform.system(), platform.machine().lower())
    print(f"{processor.name} ({' '.join(processor.isa or ())}), {args.threads} threads{load}", flush=True)
    result: dict[str, Any] = {}
    for bundle in args.bundles:
        found = measure(bundle, args.prompts, args.chunk, args.rounds, args.threads)
        result[bundle.name] = found
        print("\n".join(["", bundle.name, "", *table(found)]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
