"""Checks that `verify --time-budget` ends in its time with a verdict or "inconclusive", for models of real sizes.

    make bench-verify-minutes                                   # a 0.5B shape in 20 minutes, a 4B one in an hour
    make bench-verify-minutes ARGS="--shapes qwen2.5-0.5b --budget 6m"

The models have random weights. Their replies end by chance, after 300 tokens on average and at the limit of 512; every
token is a number, so that replies have answers. The times are those of a model of that shape, and the outcome has no
meaning. The 0.5B shape is compared with its fp32 bundle, the 4B one with a baseline; that is drawn here by the bundle
itself, before the clock starts (for a real model it would be drawn once, on any machine). Checkpoints and bundles need
4 GB of disk for the first, 12 GB for the second.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from make_checkpoint import SHAPES, make_checkpoint, with_reply_length

import edgedistill
from edgedistill.errors import VerifyError
from edgedistill.units import parse_seconds
from edgedistill.verify.create_baseline import make_baseline
from edgedistill.verify.options import AuditOptions, VerifyOptions
from edgedistill.verify.run import verify

if TYPE_CHECKING:
    from edgedistill.progress import Unit

TOKENS = 512
LENGTH = 300
BUDGETS = {"qwen2.5-0.5b": "20m", "qwen3-4b": "1h"}
BASELINED = ("qwen3-4b",)


@dataclass
class Stages:
    """Progress that records the seconds of every stage by its name; an interrupted stage is not recorded."""

    seconds: dict[str, float] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    _stage: str = ""
    _began: float = 0.0

    def begin(self, stage: str, total: int, unit: Unit) -> None:  # noqa: ARG002
        """A stage starts."""
        self._stage, self._began = stage, time.perf_counter()

    def advance(self, amount: int) -> None:
        """Ignored."""

    def end(self) -> None:
        """It ends."""
        self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + time.perf_counter() - self._began

    def note(self, sentence: str) -> None:
        """The plan."""
        self.told.append(sentence)
        print(sentence, flush=True)


def prepared(shape: str, work: Path, drawn: tuple[int, int]) -> tuple[Path, Path]:
    """The bundle and its reference (an fp32 bundle or a baseline of ``drawn`` prompts and samples), made where they are
    missing."""
    checkpoint, bundle = work / shape, work / f"{shape}-int4"
    if not checkpoint.exists():
        make_checkpoint(checkpoint, with_reply_length(SHAPES[shape], LENGTH), words=True)
    if not bundle.exists():
        edgedistill.export(
            str(checkpoint), bundle, format="int4-b32", context=2048, calibrate=False, check=False, verify=False
        )
    if shape in BASELINED:
        reference = work / f"{shape}.baseline"
        if not reference.exists():
            prompts, samples = drawn
            began = time.perf_counter()
            options = AuditOptions(prompts=prompts, samples=samples, max_new_tokens=TOKENS)
            make_baseline(bundle, options=options, scored_samples=1).save(reference)
            print(f"baseline of {prompts} x {samples}: {time.perf_counter() - began:.0f} s", flush=True)
    else:
        reference = work / f"{shape}-fp32"
        if not reference.exists():
            edgedistill.export(str(checkpoint), reference, format="fp32", context=2048, check=False, verify=False)
    return bundle, reference


def measure(shape: str, budget: float, work: Path, drawn: tuple[int, int]) -> str:
    """A row of the table."""
    bundle, reference = prepared(shape, work, drawn)
    stored = shape in BASELINED
    options = VerifyOptions(time_budget=budget, max_new_tokens=None if stored else TOKENS)
    stages, began = Stages(), time.perf_counter()
    try:
        report = verify(bundle, reference=reference, options=options, progress=stages)
        gate = report.gate
        outcome = "no gate" if gate is None else gate.result.outcome
        size = f"{report.suite.prompts} x {report.settings.samples}"
        notes = [note for note in report.notes if "time budget" in note]
    except VerifyError as error:
        outcome, size, notes = "inconclusive", "-", [error.message]
    took = time.perf_counter() - began
    audit = sum(seconds for stage, seconds in stages.seconds.items() if stage.startswith("auditing"))
    print("\n".join(notes))
    against = "stored baseline" if stored else "fp32 bundle"
    share = f"{audit:.1f} ({100 * audit / took:.1f} %)"
    return f"| {shape} | {against} | {budget:.0f} | {took:.0f} | {size} | {outcome} | {share} |"


def main() -> int:
    """Prepare, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=list(BUDGETS), choices=sorted(SHAPES))
    parser.add_argument("--budget", type=parse_seconds, help="instead of 20m and 1h")
    parser.add_argument("--baseline", nargs=2, type=int, default=(16, 4), metavar=("PROMPTS", "SAMPLES"))
    parser.add_argument("--work", type=Path, help="keeps checkpoints and bundles there (default: removed at the end)")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        rows = [
            measure(shape, args.budget or parse_seconds(BUDGETS.get(shape, "20m")), work, tuple(args.baseline))
            for shape in args.shapes
        ]
    print("\n| shape | reference | budget, s | took, s | prompts x samples | outcome | sampler audit, s |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
