"""Measures accuracy and time of several attempts: one trajectory, the vote of K, the deliberation.

    make bench-trajectories
    make bench-trajectories ARGS="--quick"

Accuracy: tiny-reasoner on the harder slice of the arithmetic suite (bands stretch and hard), SmolLM2-135M on the suite
of instructions. All ways to answer see the same trajectories (same seeds), so that differences are paired by prompt;
intervals are BCa over prompts. Time: the same K trajectories together and one after the other (the runtime's own loop,
its prompt cached from one to the next), in turn on every prompt; ratios are per prompt. Answers are kept in --store:
with --minutes the run stops after so long, and goes on where it stopped when it is started again. Figures of one
machine: measure again before relying on one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill import export
from edgedistill.runtime.batch.request import DrawSettings
from edgedistill.runtime.model import open_bundle
from edgedistill.runtime.session import physical_cores
from edgedistill.trajectories import TrajectoryOptions, solve
from edgedistill.units import format_seconds
from edgedistill.verify.metrics.procedure_score import procedure_score
from edgedistill.verify.models.bundle import BundleModel
from edgedistill.verify.models.procedure import ProcedureModel
from edgedistill.verify.options import spread
from edgedistill.verify.report.tables import number, percent
from edgedistill.verify.sampling.store import SampleStore, store_header, store_path
from edgedistill.verify.stats.intervals import prompt_mean
from edgedistill.verify.suites.arithmetic import arithmetic_suite
from edgedistill.verify.suites.registry import load_suite
from edgedistill.verify.types import Procedure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgedistill.verify.types import Drawn, Estimate, Prompt, Suite

MODELS = {"tiny-reasoner": "arithmetic", "smollm2-135m": "instructions"}
MAX_NEW_TOKENS = {"tiny-reasoner": 256, "smollm2-135m": 192}
SAME_TOKENS = 128
"""Where all trajectories are given the same length."""


class OutOfTimeError(Exception):
    """The time that was given is over; what was measured is stored."""


def suite_of(model: str, per_band: int) -> Suite:
    """The questions that a model is asked."""
    if MODELS[model] == "arithmetic":
        return arithmetic_suite(per_band=per_band, bands=("stretch", "hard"))
    return load_suite(MODELS[model])


def answers(
    model: ProcedureModel,
    suite: Suite,
    prompts: Sequence[Prompt],
    settings: DrawSettings,
    args: argparse.Namespace,
    end: float,
) -> list[Drawn]:
    """The answers of a procedure, those of earlier starts taken over. Raises OutOfTimeError."""
    header = store_header(suite, settings, model.identity, what=model.procedure.label)
    with SampleStore.open(store_path(args.store, header, model.identity.name), header) as store:
        for drawn in model.draw(prompts, args.samples, settings, done=frozenset(store.done)):
            store.append(drawn)
            if time.monotonic() > end:
                raise OutOfTimeError
        return [store.drawn[prompt.id, index] for prompt in prompts for index in range(args.samples)]


def difference(drawn: Sequence[Drawn], value: Callable[[Drawn], float]) -> Estimate:
    """Mean over prompts of ``value`` less the accuracy of a single trajectory of the same answer."""
    groups: dict[str, list[float]] = {}
    for one in drawn:
        single = float(np.mean(one.trial.correct)) if one.trial is not None and one.trial.correct else 0.0
        groups.setdefault(one.sample.prompt_id, []).append(value(one) - single)
    return prompt_mean([float(np.mean(group)) for group in groups.values()], low=-1.0, high=1.0)


def accuracy(name: str, bundle: BundleModel, args: argparse.Namespace, end: float) -> dict[str, Any]:
    """M@K, V@K, D@K and tokens; a row per way to answer."""
    suite = suite_of(name, args.per_band)
    prompts = spread(suite.prompts, args.prompts)
    settings = DrawSettings.resolve(
        dataclasses.asdict(suite.sampling),
        bundle.generation_defaults,
        seed=args.seed,
        max_new_tokens=MAX_NEW_TOKENS[name],
    )
    free = MODELS[name] == "instructions"
    k = args.trajectories
    deliberated = answers(ProcedureModel(bundle, Procedure("deliberate", k)), suite, prompts, settings, args, end)
    other = Procedure("vote", k, "universal" if free else "confidence")
    voted = answers(ProcedureModel(bundle, other), suite, prompts, settings, args, end)
    score = procedure_score(deliberated, "deliberate", level=0.95, seed=0)
    second = procedure_score(voted, "vote", level=0.95, seed=0)
    drawn_tokens = [one.trial.trajectory_tokens for one in deliberated if one.trial is not None]
    alone = prompt_mean([tokens / k for tokens in drawn_tokens], low=0, high=np.inf)
    trajectories = prompt_mean(drawn_tokens, low=0, high=np.inf)
    vote_name = "the reply most like the others" if free else "majority vote"
    other_name = "the reply that the model picks" if free else "vote by confidence"
    fell_back = sum(one.trial is not None and one.trial.decided_by != "deliberation" for one in deliberated)
    rows = [
        ("one trajectory (M@K)", score.mean_at_k, None, number(alone, 0)),
        (f"{vote_name} of {k} (V@K)", score.vote_at_k, difference(deliberated, vote_of), number(trajectories, 0)),
        (f"{other_name} of {k}", second.vote_at_k, difference(voted, vote_of), number(second.tokens, 0)),
        (
            f"deliberation on {k} (D@K)",
            score.deliberate_at_k,
            difference(deliberated, final_of),
            number(score.tokens, 0),
        ),
        (f"any of {k} (P@K)", score.pass_at_k, None, number(trajectories, 0)),
    ]
    return {
        "model": name,
        "suite": "instructions" if free else "arithmetic (bands stretch and hard)",
        "prompts": len(prompts),
        "samples": args.samples,
        "temperature": settings.temperature,
        "max_new_tokens": settings.max_new_tokens,
        "rows": [(label, percent(value), points(gain), tokens) for label, value, gain, tokens in rows],
        # Of the trajectories: a deliberation reads them whole, so that only a vote stops early.
        "stopped": None if free else 1 - (score.stopped_tokens.value - score.pass_tokens.value) / trajectories.value,
        "fell_back": fell_back / len(deliberated),
        "tied": score.tied.value,
    }


def vote_of(one: Drawn) -> float:
    """Whether the vote was right."""
    return float(bool(one.trial is not None and one.trial.vote))


def final_of(one: Drawn) -> float:
    """Whether the final answer was right."""
    return float(bool(one.sample.correct))


def points(estimate: Estimate | None) -> str:
    """A difference of shares in percentage points."""
    if estimate is None:
        return ""
    interval = estimate.interval
    ends = "" if interval is None else f" [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
    return f"{100 * estimate.value:+.1f}{ends}"


def clock(name: str, bundle: BundleModel, args: argparse.Namespace, *, tokens: int | None = None) -> dict[str, Any]:
    """Seconds of K trajectories together and one after the other, in turn on every prompt: to their natural ends, or
    each of exactly ``tokens`` (which leaves the batch full to the end)."""
    suite = suite_of(name, args.per_band)
    prompts = spread(suite.prompts, args.timed)
    settings = DrawSettings.resolve(
        dataclasses.asdict(suite.sampling),
        bundle.generation_defaults,
        seed=args.seed,
        max_new_tokens=tokens or MAX_NEW_TOKENS[name],
    )
    generation = settings.generation.replace(ignore_eos=tokens is not None)
    k = args.trajectories
    options = TrajectoryOptions(count=k, early_stop="off")
    rows = []
    for prompt in prompts[-1:] + prompts:  # the last one first, to warm up; its cache is another prompt's by its turn
        messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
        started = time.perf_counter()
        result = solve(
            bundle.model, messages, options=options, settings=generation, prompt_id=prompt.id,
            read=lambda text: text or None,
        )  # fmt: skip
        together = time.perf_counter() - started
        started = time.perf_counter()
        if tokens is None:
            alone = list(bundle.one_by_one([(bundle.replies.encode(prompt, None), list(range(k)))], settings))
            count = sum(len(one.tokens) for one in alone)
        else:
            seeds = [generation.replace(seed=args.seed + j) for j in range(k)]
            count = sum(len(bundle.model.generate(messages, settings=one).tokens) for one in seeds)
        apart = time.perf_counter() - started
        rows.append((together, apart, result.stats.trajectory_tokens, count))
    joined, single, ours, theirs = (np.array(column, dtype=float) for column in zip(*rows[1:], strict=True))
    return {
        "model": name,
        "prompts": len(prompts),
        "each": tokens,
        "together_s": joined.tolist(),
        "apart_s": single.tolist(),
        "tokens": [float(ours.sum()), float(theirs.sum())],
        "times_one": (k * together / apart).tolist(),
        "of_sequential": (joined / single).tolist(),
    }


def report(found: dict[str, Any], timed: Sequence[dict[str, Any]], k: int) -> str:
    """The table for the README."""
    lines = [
        f"{found['model']}, suite {found['suite']}, {found['prompts']} prompts x {found['samples']} answers, "
        f"temperature {found['temperature']:g}, at most {found['max_new_tokens']} tokens each, K = {k}",
        "",
        "| | accuracy | against one, points | tokens an answer |",
        "|---|---|---|---|",
        *(f"| {label} | {value} | {gain} | {tokens} |" for label, value, gain, tokens in found["rows"]),
        "",
    ]
    if found["stopped"] is not None:
        lines.append(
            f"Tied votes: {found['tied']:.0%}. Exact early stop would save {found['stopped']:.0%} of a vote's tokens."
        )
    lines.append(f"The vote stood in place of the deliberation in {found['fell_back']:.0%} of the answers.")
    for one in timed:
        ratios, shares = one["times_one"], one["of_sequential"]
        together, apart = median(one["together_s"]), median(one["apart_s"])
        ends = f"of {one['each']} tokens each" if one["each"] else "to their natural ends"
        lines.append(
            f"Time of {k} together, {ends}: {median(ratios):.2f} times one ({min(ratios):.2f} - {max(ratios):.2f}), "
            f"{median(shares):.2f} of {k} in sequence ({min(shares):.2f} - {max(shares):.2f}); {one['prompts']} "
            f"prompts in turn, median {format_seconds(together)} against {format_seconds(apart)}."
        )
    return "\n".join(lines)


def main() -> int:
    """Export, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=tuple(MODELS), help="may be repeated (default: both)")
    parser.add_argument("--profile", default="laptop-cpu", help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--trajectories", type=int, default=8, metavar="K")
    parser.add_argument("--per-band", type=int, default=30, help="arithmetic problems of each band")
    parser.add_argument("--prompts", type=int, help="so many, spread over the suite (default: all)")
    parser.add_argument("--samples", type=int, default=1, help="answers to each prompt")
    parser.add_argument("--timed", type=int, default=9, help="prompts whose time is taken")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--store", type=Path, default=Path("bench-trajectories"), help="bundles and answers are kept there"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long; start again to go on")
    parser.add_argument("--quick", action="store_true", help="a few prompts, to see it work")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    args = parser.parse_args()
    if args.quick:
        args.prompts, args.timed = 4, 2
    end = time.monotonic() + 60 * args.minutes
    results = []
    for name in args.model or list(MODELS):
        path = args.store / name
        if not path.exists():
            export(name, path, profile=args.profile, check=False, verify=False)
        with BundleModel(open_bundle(path, threads=args.threads)) as bundle:
            try:
                found = accuracy(name, bundle, args, end)
            except OutOfTimeError:
                print(f"{name}: stopped after {args.minutes:g} minutes; start it again to go on.", file=sys.stderr)
                return 1
            timed = [clock(name, bundle, args), clock(name, bundle, args, tokens=SAME_TOKENS)]
            results.append({"accuracy": found, "time": timed})
        print(report(found, timed, args.trajectories), end="\n\n", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
