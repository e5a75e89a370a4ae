"""Measure a trained directory on held-out problems: `python examples/tiny_reasoner/evaluate.py DIR --json`.

Greedy accuracy by band with 95 % Wilson intervals, with and without thinking; how often questions outside the field are
declined; and how unsure sampling at temperature 1 is within and beyond the range. Writes DIR/metrics.json.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from generate import generate
from model import ModelConfig, Qwen3
from safetensors.torch import load_file
from teacher import IN_RANGE_BANDS, Problem, heldout
from tokenizer import END, END_OF_TEXT, END_THINK, prompt_text
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

BOXED = re.compile(r"\\boxed\{([^{}]*)\}")


def load(directory: Path) -> tuple[Qwen3, Tokenizer]:
    """Load a directory that `train.py` wrote."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    model = Qwen3(ModelConfig(**{f.name: config[f.name] for f in fields(ModelConfig)}))
    model.load_state_dict(load_file(directory / "model.safetensors"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return model.to(device).eval(), Tokenizer.from_file(str(directory / "tokenizer.json"))


def answer_of(text: str) -> str | None:
    """Return the last boxed content after the reasoning, or None. An unclosed reasoning has no answer."""
    if "<think>" in text and END_THINK not in text:
        return None
    found = BOXED.findall(text.rsplit(END_THINK, maxsplit=1)[-1])
    return found[-1] if found else None


def wilson(successes: int, count: int) -> list[float]:
    """95 % Wilson score interval of a share."""
    if not count:
        return [0.0, 1.0]
    z, p = 1.959964, successes / count
    centre, spread = p + z * z / (2 * count), z * (p * (1 - p) / count + z * z / (4 * count * count)) ** 0.5
    return [round((centre + s * spread) / (1 + z * z / count), 4) for s in (-1, 1)]


def answers(
    model: Qwen3,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    batch: int = 64,
) -> list[tuple[str, int]]:
    """Return (text, number of tokens) for every prompt, computed in batches of prompts of about equal length."""
    ids = [encoding.ids for encoding in tokenizer.encode_batch(list(prompts))]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    result: list[tuple[str, int]] = [("", 0)] * len(ids)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        outputs = generate(
            model,
            [ids[i] for i in chosen],
            eos=tokenizer.token_to_id(END),
            pad=tokenizer.token_to_id(END_OF_TEXT),
            temperature=temperature,
            generator=generator,
        )
        for i, output in zip(chosen, outputs, strict=True):
            result[i] = (tokenizer.decode(output, skip_special_tokens=False), len(output))
    return result


def prompt_of(problem: Problem, *, thinking: bool = True) -> str:
    return prompt_text([{"role": "user", "content": problem.question}], thinking=thinking)


def accuracy(model: Qwen3, tokenizer: Tokenizer, problems: Sequence[Problem], *, thinking: bool) -> dict[str, Any]:
    """Greedy accuracy over `problems`, in all and by family."""
    texts = answers(model, tokenizer, [prompt_of(p, thinking=thinking) for p in problems])
    right = [answer_of(text) == p.answer for (text, _), p in zip(texts, problems, strict=True)]
    families = {}
    for family in sorted({p.family for p in problems}):
        members = [r for r, p in zip(right, problems, strict=True) if p.family == family]
        families[family] = {"n": len(members), "accuracy": round(sum(members) / len(members), 4)}
    return {
        "n": len(problems),
        "correct": sum(right),
        "accuracy": round(sum(right) / len(right), 4),
        "interval": wilson(sum(right), len(right)),
        "median_tokens": statistics.median(n for _, n in texts),
        "families": families,
    }


def declined(model: Qwen3, tokenizer: Tokenizer, problems: Sequence[Problem]) -> dict[str, Any]:
    """Share of questions outside the field that are declined: no boxed answer, and the reply names arithmetic."""
    texts = answers(model, tokenizer, [prompt_of(p) for p in problems])
    good = sum(answer_of(text) is None and "arithmetic" in text.split(END_THINK)[-1] for text, _ in texts)
    return {
        "n": len(problems),
        "declined": good,
        "rate": round(good / len(problems), 4),
        "interval": wilson(good, len(problems)),
    }


def spread(
    model: Qwen3, tokenizer: Tokenizer, problems: Sequence[Problem], samples: int, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Sample every problem `samples` times at temperature 1; return the summary and one row per problem."""
    generator = torch.Generator(device=next(model.parameters()).device).manual_seed(seed)
    rows: list[dict[str, Any]] = []
    for problem in problems:
        drawn = answers(
            model, tokenizer, [prompt_of(problem)] * samples, temperature=1.0, generator=generator, batch=samples
        )
        found = [answer_of(text) for text, _ in drawn]
        counts = Counter(a if a is not None else "(none)" for a in found)
        rows.append(
            {
                "question": problem.question,
                "answer": problem.answer,
                "majority_share": round(counts.most_common(1)[0][1] / samples, 4),
                "correct_share": round(sum(a == problem.answer for a in found) / samples, 4),
                "different_answers": len(counts),
                "distinct_texts": len({text for text, _ in drawn}),
            }
        )
    shares = sorted(float(row["majority_share"]) for row in rows)
    edges = ((0.0, 0.5), (0.5, 0.75), (0.75, 0.9), (0.9, 0.99), (0.99, 1.01))
    summary = {
        "prompts": len(rows),
        "samples": samples,
        "temperature": 1.0,
        "majority_share_quartiles": [round(q, 3) for q in statistics.quantiles(shares, n=4)],
        "histogram": {f"[{a}, {min(b, 1.0)}{']' if b > 1 else ')'}": sum(a <= s < b for s in shares) for a, b in edges},
        "between_0.5_and_0.99": round(sum(0.5 <= s < 0.99 for s in shares) / len(shares), 4),
        "mean_correct_share": round(statistics.mean(float(r["correct_share"]) for r in rows), 4),
    }
    return summary, rows


def evaluate(directory: Path, *, per_band: int, prompts: int, samples: int) -> dict[str, Any]:
    model, tokenizer = load(directory)
    metrics: dict[str, Any] = {"thinking": {}, "no_thinking": {}}
    in_range: list[dict[str, Any]] = []
    for band in (*IN_RANGE_BANDS, "stretch", "hard"):
        problems = list(heldout(band, per_band))
        metrics["thinking"][band] = accuracy(model, tokenizer, problems, thinking=True)
        if band in IN_RANGE_BANDS:
            in_range.append(metrics["thinking"][band])
            metrics["no_thinking"][band] = accuracy(model, tokenizer, problems, thinking=False)
    correct, count = sum(m["correct"] for m in in_range), sum(m["n"] for m in in_range)
    metrics["in_range"] = {
        "n": count,
        "correct": correct,
        "accuracy": round(correct / count, 4),
        "interval": wilson(correct, count),
    }
    metrics["outside"] = declined(model, tokenizer, list(heldout("outside", per_band)))
    metrics["sampling"], rows = {}, {}
    for band in ("three-step", "stretch", "hard"):
        metrics["sampling"][band], rows[band] = spread(
            model, tokenizer, list(heldout(band, prompts, seed=2)), samples, seed=1
        )
    metrics["sampling_prompts"] = rows
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--per-band", type=int, default=200, help="held-out problems of every band")
    parser.add_argument("--prompts", type=int, default=40, help="prompts that are sampled")
    parser.add_argument("--samples", type=int, default=32, help="samples of each")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")
    parser.add_argument("--threads", type=int, default=1, help="torch threads; more do not pay at this size")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    metrics = evaluate(args.directory, per_band=args.per_band, prompts=args.prompts, samples=args.samples)
    training = args.directory / "training.json"
    if training.exists():
        metrics["training"] = json.loads(training.read_text(encoding="utf-8"))
    (args.directory / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    if args.json:
        print(json.dumps(metrics, indent=1))
        return
    for band, row in metrics["thinking"].items():
        print(f"{band:<11} {row['correct']}/{row['n']} = {row['accuracy']:.1%}  95 % {row['interval']}")
    print(f"in range    {metrics['in_range']['accuracy']:.1%}; declined outside {metrics['outside']['rate']:.1%}")


if __name__ == "__main__":
    main()
