"""Measures the gain of speculative decoding by task: decode speed with ``speculate="auto"`` and ``"off"``, in turn.

    python bench/speculate.py [--models smollm2-135m tiny-reasoner] [--rounds 3] [--json FILE] [--quick]

Every prompt is answered with and without guesses, in alternating order, in one process; the result is the ratio within
a pair. Tokens per second are those of the decode steps, the drawing of tokens included. On the fast path the two
replies may differ (docs/explanation/numerical-paths.md), so that the ratio is one of speeds, not of times; under exact
numerics the run fails if a reply changes.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from originals import original

from edgedistill import export
from edgedistill.runtime.model import open_bundle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.runtime.model import Model
    from edgedistill.runtime.settings import Numerics

ARTICLE = (
    "The lighthouse on the northern cape was built in 1871 by masons from the valley. Its lamp burned rape oil until "
    "1903, then paraffin, and has been electric since 1954. Two keepers lived there with their families; the last one, "
    "Ingrid Solheim, left in 1988, when a timer took over her work. Today a society of volunteers opens the tower to "
    "visitors on Sundays from May to September, and uses the fees to repair the stairs and the copper roof."
)
CODE = """def mean(values):
    total = 0
    for value in values:
        total = total + value
    return total / len(values)


def variance(values):
    centre = mean(values)
    total = 0
    for value in values:
        total = total + (value - centre) ** 2
    return total / len(values)
"""
TASKS: dict[str, dict[str, list[str]]] = {
    "smollm2-135m": {
        "summarise": [f"Summarise this text in two sentences:\n\n{ARTICLE}"],
        "quote": [f"Repeat the following text exactly, word for word:\n\n{ARTICLE}"],
        "edit code": [f"Rename total to s in this program and print all of it:\n\n```python\n{CODE}```"],
        "write freely": ["Write a short story about a fox who learns to swim."],
    },
    "tiny-reasoner": {
        "arithmetic": [
            "What is 173 + 258 + 173?",
            "Mia has 14 apples. Then Mia finds 3 bags of 6 apples. Mia gives away 7 apples. How many apples are left?",
            "Convert 3 hours and 25 minutes to minutes.",
        ],
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pair:
    """One prompt with and without guesses: tokens per second, and what became of the guesses."""

    task: str
    numerics: Numerics
    temperature: float
    off: float
    auto: float
    tokens: int
    drafted: int
    accepted: int


def say(text: str) -> None:
    """A line about what happens now."""
    sys.stderr.write(text + "\n")


def pairs(model: Model, tasks: dict[str, list[str]], rounds: int, new_tokens: int) -> list[Pair]:
    """All tasks on both numerical paths, greedy and sampled."""
    found = []
    model.generate("Hello", max_new_tokens=8, speculate="off")
    for task, prompts in tasks.items():
        for numerics in ("fast", "exact"):
            for temperature in (0.0, 0.6):
                for index in range(rounds):
                    for prompt in prompts:
                        found.append(_pair(model, task, prompt, numerics, temperature, index, new_tokens))
        say(f"  {task}")
    return found


def _pair(
    model: Model, task: str, prompt: str, numerics: Numerics, temperature: float, index: int, new_tokens: int
) -> Pair:
    ways = ("off", "auto") if index % 2 == 0 else ("auto", "off")
    results = {
        way: model.generate(
            prompt, temperature=temperature, seed=index, max_new_tokens=new_tokens, numerics=numerics, speculate=way
        )
        for way in ways
    }
    if numerics == "exact" and results["off"].tokens != results["auto"].tokens:
        raise RuntimeError(f"guesses changed a reply under exact numerics: {prompt!r}, seed {index}")
    off, auto = results["off"].stats, results["auto"].stats
    return Pair(
        task, numerics, temperature, off.decode_tps, auto.decode_tps, auto.new_tokens, auto.drafted_tokens,
        auto.accepted_tokens,
    )  # fmt: skip


def table(found: Sequence[Pair]) -> str:
    """Markdown: the median ratio of every case and its range."""
    lines = [
        "| task | numerics | temperature | tok/s without | with / without (range) | guesses | right |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    cases = dict.fromkeys((one.task, one.numerics, one.temperature) for one in found)
    for task, numerics, temperature in cases:
        part = [p for p in found if (p.task, p.numerics, p.temperature) == (task, numerics, temperature)]
        part = [p for p in part if p.off and p.auto]
        ratios = [p.auto / p.off for p in part]
        drafted, accepted = sum(p.drafted for p in part), sum(p.accepted for p in part)
        tokens = sum(p.tokens for p in part)
        lines.append(
            f"| {task} | {numerics} | {temperature:g} | {median(p.off for p in part):.0f} "
            f"| {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {drafted / tokens:.2f} a token "
            f"| {accepted / drafted:.0%} |"
            if drafted
            else f"| {task} | {numerics} | {temperature:g} | {median(p.off for p in part):.0f} "
            f"| {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | none | |"
        )
    return "\n".join(lines)


def main() -> None:
    """Export what is missing, measure, print tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--format", default="int4-b32", help="weight format (default: int4-b32)")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--new-tokens", type=int, default=160)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--work", type=Path, default=Path("bench-results/speculate"))
    parser.add_argument("--json", type=Path, help="write every pair here")
    parser.add_argument("--quick", action="store_true", help="one round of 64 tokens: does it run?")
    args = parser.parse_args()
    rounds, new_tokens = (1, 64) if args.quick else (args.rounds, args.new_tokens)
    args.work.mkdir(parents=True, exist_ok=True)
    everything: dict[str, list[Pair]] = {}
    for name in args.models:
        path = args.work / f"{name}-{args.format}"
        if not path.exists():
            say(f"export {name}")
            export(original(name, args.work), path, format=args.format, context=2048, verify=False)
        with open_bundle(path, threads=args.threads) as model:
            say(name)
            everything[name] = pairs(model, TASKS[name], rounds, new_tokens)
        sys.stdout.write(f"\n### {name}, {args.format}\n\n{table(everything[name])}\n")
    if args.json:
        args.json.write_text(json.dumps({k: [asdict(p) for p in v] for k, v in everything.items()}, indent=1))


if __name__ == "__main__":
    main()
