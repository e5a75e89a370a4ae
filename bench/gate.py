"""Does the gate hold what it promises? Controls on tiny-reasoner with samples of the engine.

    make bench-gate

False alarms: the fp32 reference against itself under other seeds, a few hundred times; "fail" has to be rarer than
alpha. Missed faults: 2-bit round-to-nearest, a collapsed twin and one that is confidently wrong have to fail. Power:
twins with noise of growing size on all weights, and how often each passes, fails, and stays undecided.

One large pool of samples is drawn per model; a repetition takes samples of its own of every prompt from it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from twins import collapsed, make_twin, noisy, wrong

from edgedistill.export.pipeline import export
from edgedistill.runtime.model import open_bundle
from edgedistill.verify.bundle_model import BundleModel
from edgedistill.verify.compare import compare
from edgedistill.verify.counts import by_prompt
from edgedistill.verify.endpoints import Margins
from edgedistill.verify.gate import ALPHA, decide
from edgedistill.verify.intervals import wilson
from edgedistill.verify.run_settings import DrawSettings
from edgedistill.verify.suites import load_suite
from edgedistill.verify.summary import summarise_suite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgedistill.verify.types import Sample, Suite

    Pool = dict[str, list[Sample]]

NOISES = (0.01, 0.02, 0.05, 0.1, 0.2)


def draw_pool(path: Path, suite: Suite, samples: int, settings: DrawSettings) -> Pool:
    """``samples`` of every prompt, in order."""
    with BundleModel(open_bundle(path)) as model:
        drawn = sorted(model.draw(suite.prompts, samples, settings), key=lambda one: one.key)
    return {prompt_id: list(group) for prompt_id, group in by_prompt([one.sample for one in drawn]).items()}


def part(pool: Mapping[str, Sequence[Sample]], indices: Mapping[str, Sequence[int]]) -> Pool:
    """Some samples of every prompt, numbered from 0."""
    return {
        prompt_id: [replace(samples[i], index=n) for n, i in enumerate(indices[prompt_id])]
        for prompt_id, samples in pool.items()
    }


def outcomes(
    suite: Suite, reference: Pool, other: Pool, *, repetitions: int, samples: int, seed: int
) -> dict[str, Any]:
    """Outcomes of the gate over ``repetitions``, each with fresh halves of the pools."""
    generator = np.random.default_rng(seed)
    found: Counter[str] = Counter()
    endpoints: Counter[str] = Counter()
    for repetition in range(repetitions):
        picks = {
            name: generator.permutation(min(len(reference[name]), len(other[name])))[: 2 * samples]
            for name in reference
        }
        # Disjoint halves, so that a model against itself is compared on different samples.
        ours = part(reference, {name: pick[:samples].tolist() for name, pick in picks.items()})
        theirs = part(other, {name: pick[samples:].tolist() for name, pick in picks.items()})
        verdicts = [summarise_suite(suite, [s for g in pool.values() for s in g]).verdict for pool in (ours, theirs)]
        pair = None if None in verdicts else (verdicts[0], verdicts[1])
        gate = decide(compare(ours, theirs), Margins(), verdicts=pair, seed=repetition)  # type: ignore[arg-type]
        found[gate.outcome] += 1
        endpoints.update(result.name for result in gate.endpoints if result.outcome == "fail")
        if gate.collapse is not None and gate.collapse.outcome == "fail":
            endpoints["collapse"] += 1
    interval = wilson(found["fail"], repetitions)
    return {
        "repetitions": repetitions,
        "outcomes": dict(found),
        "fail": found["fail"] / repetitions,
        "fail_interval": [interval.low, interval.high],
        "failing_endpoints": dict(endpoints),
    }


def main() -> int:
    """Draw, decide, print; exit 1 if a control does not come out as it must."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--pool", type=int, default=128, help="samples drawn per prompt (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    args = parser.parse_args()
    whole = load_suite("arithmetic")
    step = max(1, len(whole.prompts) // args.prompts)
    suite = replace(whole, prompts=whole.prompts[::step][: args.prompts], variants=())
    settings = DrawSettings(temperature=0.6, top_k=20, top_p=0.95, max_new_tokens=args.max_new_tokens)
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        edits = {"collapsed": collapsed, "wrong": wrong, **{f"noise {share:g}": noisy(share) for share in NOISES}}
        sources = {"itself": ("tiny-reasoner", "fp32"), "2-bit rtn": ("tiny-reasoner", "int2-b32-rtn")}
        sources |= {name: (str(make_twin(root / name.replace(" ", "-"), e)), "fp32") for name, e in edits.items()}
        reference: Pool | None = None
        for name, (model, weight_format) in sources.items():
            started = time.perf_counter()
            bundle = root / f"bundle-{name.replace(' ', '-')}"
            export(model, bundle, weight_format=weight_format, context_length=512, check=False)
            pool = draw_pool(bundle, suite, args.pool if name == "itself" else 4 * args.samples, settings)
            reference = reference or pool
            repetitions = args.repetitions if name == "itself" else max(10, args.repetitions // 10)
            result[name] = outcomes(
                suite, reference, pool, repetitions=repetitions, samples=args.samples, seed=len(result)
            )
            row = result[name]
            low, high = row["fail_interval"]
            print(
                f"{name:12} {row['outcomes']} fail {row['fail']:.3f} [{low:.3f}, {high:.3f}] "
                f"{row['failing_endpoints']} ({time.perf_counter() - started:.0f} s)",
                flush=True,
            )
    broken = [name for name in ("2-bit rtn", "collapsed", "wrong") if result[name]["fail"] < 1.0]
    if result["itself"]["fail_interval"][0] > ALPHA:
        broken.append("itself")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    for name in broken:
        print(f"The control `{name}` did not come out as it must.", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
