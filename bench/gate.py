"""Does the gate hold what it promises? Controls on tiny-reasoner with samples of the engine.

    make bench-gate
    make bench-gate ARGS="--quick"                 # a few minutes: fewer samples and repetitions
    make bench-gate ARGS="--store gate-samples"    # may be interrupted: it goes on from the samples in that directory

The sampler: one that ignores its seed has to be stopped by its audit. False alarms: the fp32 reference against itself
under other seeds, a few hundred times; "fail" has to be rarer than alpha. Missed faults: 2-bit round-to-nearest, a
collapsed twin and one that is confidently wrong have to fail. Power: twins with noise of growing size on all weights,
and how often each passes, fails, and stays undecided.

What a repetition is. A pool of real samples is drawn once per model, each under a noise of its own. A repetition then
draws the samples of both sides from the pools, with replacement: independent samples of models whose answer
distributions are those of the pools. So for the reference against itself the hypothesis "no change" is exactly true,
repetitions are independent of each other, and the binomial interval of the false alarms holds. For a twin both sides
take samples of the same numbers, which were drawn with the same noise, as `edgedistill verify` does. Besides, the pool
is cut into as many repetitions as it yields without using any sample twice ("disjoint").
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from twins import collapsed, make_twin, noisy, wrong

from edgedistill import export
from edgedistill.runtime.batch.request import DrawSettings
from edgedistill.runtime.model import open_bundle
from edgedistill.runtime.sampling import NoiseSource
from edgedistill.verify.gate.decide import ALPHA, decide
from edgedistill.verify.gate.endpoints import Margins
from edgedistill.verify.metrics.paired import compare
from edgedistill.verify.metrics.suite_summary import summarise_suite
from edgedistill.verify.models.bundle import BundleModel
from edgedistill.verify.models.sampler_check import check_sampler
from edgedistill.verify.sampling.store import SampleStore, collect, store_header, store_path
from edgedistill.verify.stats.answer_counts import by_prompt
from edgedistill.verify.stats.intervals import wilson
from edgedistill.verify.suites.registry import load_suite

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from edgedistill.verify.types import Sample, Suite

    Pool = dict[str, list[Sample]]

NOISES = (0.01, 0.02, 0.05, 0.1, 0.2)


def draw_pool(path: Path, suite: Suite, samples: int, settings: DrawSettings, store: Path | None) -> Pool:
    """``samples`` of every prompt, in order; those of the store taken over."""
    with BundleModel(open_bundle(path)) as model, ExitStack() as stack:
        kept = None
        if store is not None:
            header = store_header(suite, settings, model.identity)
            kept = stack.enter_context(SampleStore.open(store_path(store, header, path.name), header))
        drawn = collect(model, suite.prompts, samples, settings, kept)
    return {prompt_id: list(group) for prompt_id, group in by_prompt([one.sample for one in drawn]).items()}


def part(pool: Pool, indices: Mapping[str, Sequence[int]]) -> Pool:
    """Some samples of every prompt, numbered from 0."""
    return {
        prompt_id: [replace(samples[i], index=n) for n, i in enumerate(indices[prompt_id])]
        for prompt_id, samples in pool.items()
    }


def picks(
    reference: Pool, other: Pool, *, samples: int, repetitions: int, seed: int, coupled: bool
) -> Iterator[tuple[Pool, Pool]]:
    """Both sides of every repetition, drawn with replacement; ``coupled``: samples of the same numbers."""
    generator = np.random.default_rng(seed)
    most = {name: min(len(reference[name]), len(other[name])) for name in reference}
    for _ in range(repetitions):
        left = {name: generator.integers(count, size=samples).tolist() for name, count in most.items()}
        right = left if coupled else {n: generator.integers(count, size=samples).tolist() for n, count in most.items()}
        yield part(reference, left), part(other, right)


def disjoint(pool: Pool, samples: int) -> Iterator[tuple[Pool, Pool]]:
    """Both sides of as many repetitions as the pool yields without using a sample twice."""
    for start in range(0, min(len(group) for group in pool.values()) - 2 * samples + 1, 2 * samples):
        left = dict.fromkeys(pool, range(start, start + samples))
        right = dict.fromkeys(pool, range(start + samples, start + 2 * samples))
        yield part(pool, left), part(pool, right)


def outcomes(suite: Suite, pairs: Iterable[tuple[Pool, Pool]]) -> dict[str, Any]:
    """Outcomes of the gate over repetitions."""
    found: Counter[str] = Counter()
    endpoints: Counter[str] = Counter()
    for repetition, (theirs, ours) in enumerate(pairs):
        first, second = (summarise_suite(suite, [s for g in pool.values() for s in g]) for pool in (theirs, ours))
        pair = None if first.verdict is None or second.verdict is None else (first.verdict, second.verdict)
        gate = decide(compare(theirs, ours), Margins(), verdicts=pair, seed=repetition)
        found[gate.outcome] += 1
        endpoints.update(result.name for result in gate.endpoints if result.outcome == "fail")
        if gate.collapse is not None and gate.collapse.outcome == "fail":
            endpoints["collapse"] += 1
    repetitions = found.total()
    interval = wilson(found["fail"], repetitions)
    return {
        "repetitions": repetitions,
        "outcomes": dict(found),
        "fail": found["fail"] / repetitions,
        "fail_interval": [interval.low, interval.high],
        "failing_endpoints": dict(endpoints),
    }


class SeedIgnored(NoiseSource):
    """The fault that toolkits have shipped: every sample under every seed gets the same noise."""

    def keys(self, seed: int, prompt_id: str, indices: Sequence[int]) -> npt.NDArray[np.uint64]:  # noqa: ARG002
        """One key for all."""
        return np.full(len(indices), 12345, dtype=np.uint64)


def stops_a_stuck_sampler(bundle: Path, suite: Suite, settings: DrawSettings) -> bool:
    """Whether the audit lets the sampler pass and stops the same one with its seed ignored."""
    verdicts = []
    for noise in (NoiseSource(), SeedIgnored()):
        with closing(BundleModel(open_bundle(bundle), noise=noise)) as model:
            verdicts.append(check_sampler(model, suite.prompts, settings.replace(temperature=1.5)).sound)
    return verdicts == [True, False]


def accuracy(pool: Pool) -> float:
    """Share of right answers."""
    return float(np.mean([np.mean([sample.correct is True for sample in group]) for group in pool.values()]))


def row(name: str, result: Mapping[str, Any]) -> str:
    """A line of the table."""
    counts = result["outcomes"]
    low, high = result["fail_interval"]
    share = [f"{counts.get(outcome, 0)}" for outcome in ("pass", "inconclusive", "fail")]
    causes = ", ".join(f"{endpoint} {count}" for endpoint, count in result["failing_endpoints"].items())
    return (
        f"| {name} | {result['accuracy']:.1%} | {result['repetitions']} | {' | '.join(share)} "
        f"| {result['fail']:.1%} ({low:.1%} to {high:.1%}) | {causes} |"
    )


def main() -> int:
    """Draw, decide, print; exit 1 if a control does not come out as it must."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--pool", type=int, default=128, help="samples of the reference per prompt (%(default)s)")
    parser.add_argument("--twin-pool", type=int, default=48, help="of every other model (%(default)s)")
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--max-new-tokens", type=int, default=192)
    parser.add_argument("--quick", action="store_true", help="40 repetitions, small pools")
    parser.add_argument("--store", type=Path, metavar="DIR", help="keep samples there and go on from them")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    args = parser.parse_args()
    if args.quick:
        args.repetitions, args.pool, args.twin_pool = 40, 64, 32
    whole = load_suite("arithmetic")
    step = max(1, len(whole.prompts) // args.prompts)
    suite = replace(whole, prompts=whole.prompts[::step][: args.prompts], variants=())
    settings = DrawSettings(temperature=0.6, top_k=20, top_p=0.95, max_new_tokens=args.max_new_tokens)
    result: dict[str, Any] = {}
    stopped = False
    print(
        f"{len(suite.prompts)} prompts x {args.samples} samples a side; pools of {args.pool} and {args.twin_pool} "
        "samples per prompt; alpha 0.05 per test\n\n"
        "| against fp32 | accuracy | repetitions | pass | inconclusive | fail | failing | failing endpoints |\n"
        "|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        edits = {"collapsed": collapsed, "wrong": wrong, **{f"noise {share:g}": noisy(share) for share in NOISES}}
        sources = {"itself": ("tiny-reasoner", "fp32"), "2-bit rtn": ("tiny-reasoner", "int2-b32-rtn")}
        sources |= {name: (str(make_twin(root / name.replace(" ", "-"), e)), "fp32") for name, e in edits.items()}
        reference: Pool | None = None
        for name, (model, weight_format) in sources.items():
            bundle = root / f"bundle-{name.replace(' ', '-')}"
            export(model, bundle, format=weight_format, context=512, check=False, verify=False)
            itself = reference is None
            pool = draw_pool(bundle, suite, args.pool if itself else args.twin_pool, settings, args.store)
            reference = reference or pool
            if itself:
                stopped = stops_a_stuck_sampler(bundle, suite, settings)
                result["itself, disjoint"] = outcomes(suite, disjoint(pool, args.samples))
            pairs = picks(
                reference,
                pool,
                samples=args.samples,
                repetitions=args.repetitions if itself else max(20, args.repetitions // 4),
                seed=len(result),
                coupled=not itself,
            )
            result[name] = outcomes(suite, pairs)
            for key in ("itself, disjoint", "itself") if itself else (name,):
                result[key]["accuracy"] = accuracy(pool)
                print(row(key, result[key]), flush=True)
    broken = [name for name in ("2-bit rtn", "collapsed", "wrong") if result[name]["fail"] < 1.0]
    result["stuck sampler stopped"] = stopped
    if not stopped:
        broken.append("stuck sampler")
    if result["itself"]["fail_interval"][0] > ALPHA:
        broken.append("itself")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\nA sampler that ignores its seed was stopped: {'yes' if stopped else 'no'}.")
    for name in broken:
        print(f"The control `{name}` did not come out as it must.", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
