"""Measures how fast samples are drawn: in batches, one at a time with the same runtime, and with transformers.

    make bench-verify
    make bench-verify ARGS="--quick"
    make bench-verify ARGS="--model smollm2-135m --max-new-tokens 64 --format int4-b32 --format w8a8"

In every round all contenders draw the same samples in turn (same prompts, same seeds), each on the same threads, so
that a slow moment of the machine strikes all of them; ratios are per round. Figures of one machine: measure again
before relying on one.

Besides: how many samples coupling saves at equal power (see ``coupling``), from coupled samples of the bundle and of
its fp32 reference; speed does not enter.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from coupling import savings

from edgedistill import export
from edgedistill.runtime.batch.request import DrawSettings
from edgedistill.runtime.model import open_bundle
from edgedistill.runtime.session import physical_cores
from edgedistill.verify.models.bundle import BundleModel
from edgedistill.verify.options import spread
from edgedistill.verify.sampling.store import collect
from edgedistill.verify.suites.registry import load_suite

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgedistill.verify.types import Prompt


ONE_AT_A_TIME = {"tiny-reasoner": 5.0}
"""Aims for the engine over the same runtime one at a time, by model; otherwise 3."""
TRANSFORMERS_AIM = 5.0
SAVED_AIM = 0.5


def engine(model: BundleModel, prompts: Sequence[Prompt], samples: int, settings: DrawSettings) -> int:
    """Continuous batching; the tokens drawn."""
    return sum(len(one.token_ids) for one in model.draw(prompts, samples, settings))


def one_by_one(model: BundleModel, prompts: Sequence[Prompt], samples: int, settings: DrawSettings) -> int:
    """The runtime as a user's loop over ``Model.generate`` would use it, prompt by prompt: its KV cache reuses the
    prompt from one sample to the next.
    """
    generation = settings.generation
    tokens = 0
    for prompt in prompts:
        messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
        for index in range(samples):
            drawn = model.model.generate(messages, settings=generation.replace(seed=settings.seed + index))
            tokens += len(drawn.tokens)
    return tokens


def transformers_generate(name: str, threads: int) -> Callable[[BundleModel, Sequence[Prompt], int, DrawSettings], int]:
    """``generate(num_return_sequences=...)`` of the fp32 original."""
    import torch

    from edgedistill.checkpoint.open import open_checkpoint
    from edgedistill.verify.models.torch_weights import build_module

    torch.set_num_threads(threads)
    checkpoint = open_checkpoint(name, offline=True)
    module = build_module(checkpoint, stream=False)
    eos = list(checkpoint.special_tokens.eos_token_ids)

    def run(model: BundleModel, prompts: Sequence[Prompt], samples: int, settings: DrawSettings) -> int:
        tokens = 0
        for prompt in prompts:
            ids = torch.tensor([model.replies.encode(prompt, None).ids])
            with torch.inference_mode():
                out = module.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=True,
                    temperature=settings.temperature,
                    top_k=settings.top_k,
                    top_p=settings.top_p,
                    num_return_sequences=samples,
                    max_new_tokens=settings.max_new_tokens,
                    eos_token_id=eos,
                    pad_token_id=eos[0],
                )
            ends = torch.isin(out[:, ids.shape[1] :], torch.tensor(eos))
            tokens += sum(int(row.int().argmax()) + 1 if row.any() else len(row) for row in ends)
        return tokens

    return run


def measure(model_name: str, weight_format: str, args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Samples per second of all contenders on one model, in turn."""
    suite = load_suite("arithmetic")
    prompts = suite.prompts[:: max(1, len(suite.prompts) // args.prompts)][: args.prompts]
    paths = {name: scratch / f"{model_name}-{name}" for name in (weight_format, "fp32")}
    for name, path in paths.items():
        if path.exists():
            continue
        export(model_name, path, format=name, context=1024, check=False, verify=False)
    settings = DrawSettings(temperature=0.6, top_k=20, top_p=0.95, max_new_tokens=args.max_new_tokens)
    model = BundleModel(open_bundle(paths[weight_format], threads=args.threads), batch=args.batch)
    many = spread(suite.prompts, args.coupling_prompts)
    with BundleModel(open_bundle(paths["fp32"], threads=args.threads)) as reference:
        reference_samples = [one.sample for one in collect(reference, many, args.coupling_samples, settings)]
    contenders: dict[str, Callable[[BundleModel, Sequence[Prompt], int, DrawSettings], int]] = {
        "engine": engine,
        "one at a time": one_by_one,
    }
    if not args.no_torch:
        contenders["transformers fp32"] = transformers_generate(model_name, args.threads)
    with model:
        for run in contenders.values():  # warm: prompts rendered, buffers allocated, kernels loaded
            run(model, prompts[:1], 1, settings.replace(max_new_tokens=8))
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        tokens: dict[str, int] = {}
        for _ in range(args.rounds):
            for name, run in contenders.items():
                started = time.perf_counter()
                tokens[name] = run(model, prompts, args.samples, settings)
                rates[name].append(len(prompts) * args.samples / (time.perf_counter() - started))
        bundle_samples = [one.sample for one in collect(model, many, args.coupling_samples, settings)]
    return {
        "coupling": {
            "prompts": len(many),
            "samples": args.coupling_samples,
            "savings": {
                one.name: [one.ratio, one.low, one.high, one.saved]
                for one in savings(reference_samples, bundle_samples)
            },
        },
        "model": model_name,
        "format": weight_format,
        "threads": args.threads,
        "prompts": len(prompts),
        "samples": args.samples,
        "rates": rates,
        "tokens": tokens,
        "ratios": {
            name: [ours / theirs for ours, theirs in zip(rates["engine"], other, strict=True)]
            for name, other in rates.items()
            if name != "engine"
        },
    }


def report(result: dict[str, Any]) -> str:
    """The table for the README."""
    lines = [
        f"{result['model']} {result['format']}, {result['threads']} threads, {result['prompts']} prompts x "
        f"{result['samples']} samples",
        "",
        "| | samples/s, median (min - max) | tokens | engine / this, per round |",
        "|---|---|---|---|",
    ]
    for name, rates in result["rates"].items():
        ratios = result["ratios"].get(name)
        shown = "" if ratios is None else f"{median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})"
        spread = f"{median(rates):.1f} ({min(rates):.1f} - {max(rates):.1f})"
        lines.append(f"| {name} | {spread} | {result['tokens'][name]} | {shown} |")
    pool = result["coupling"]
    lines.append(
        f"\nSamples with independent noise for the power of one coupled sample (5 to 95 %; {pool['prompts']} prompts x "
        f"{pool['samples']} samples):\n\n| endpoint | ratio | samples saved |\n|---|---|---|"
    )
    for name, (ratio, low, high, saved) in pool["savings"].items():
        shown = "does not vary | |" if math.isnan(ratio) else f"{ratio:.2f} ({low:.2f} - {high:.2f}) | {saved:.0%} |"
        lines.append(f"| {name} | {shown}")
    return "\n".join([*lines, "", *aims(result)])


def aims(result: Mapping[str, Any]) -> list[str]:
    """The aims and whether they were reached; without an aim, only the figure."""

    def line(letter: str, text: str, found: float, aim: float | None, form: str) -> str:
        told = f"({letter}) {text}: {found:{form}}"
        if aim is None:
            return told
        return f"{told}, aim at least {aim:{form}}: {'reached' if found >= aim else 'not reached'}"

    ratios = {name: median(values) for name, values in result["ratios"].items()}
    alone = ONE_AT_A_TIME.get(result["model"], 3.0)
    lines = [line("a", "engine / one at a time", ratios["one at a time"], alone, ".2f")]
    if "transformers fp32" in ratios:
        lines.append(line("b", "engine / transformers fp32", ratios["transformers fp32"], TRANSFORMERS_AIM, ".2f"))
    lines += [
        line("c", f"samples saved by coupling, {name}", saved, SAVED_AIM, ".0%")
        for name, (ratio, _, _, saved) in result["coupling"]["savings"].items()
        if not math.isnan(ratio)
    ]
    return lines


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="may be repeated (default: tiny-reasoner and smollm2-135m)")
    parser.add_argument("--format", action="append", help="of the bundle; may be repeated (default: int4-b32)")
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--batch", type=int, help="rows (default: what the memory allows, at most 32)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--coupling-prompts", type=int, default=40)
    parser.add_argument("--coupling-samples", type=int, default=32)
    parser.add_argument("--quick", action="store_true", help="a look that takes a few minutes: one round, few samples")
    parser.add_argument("--no-torch", action="store_true", help="leave transformers out")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.prompts, args.samples, args.coupling_prompts, args.coupling_samples = 1, 4, 8, 12, 16
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in args.model or ["tiny-reasoner", "smollm2-135m"]:
            for weight_format in args.format or ["int4-b32"]:
                results.append(measure(name, weight_format, args, Path(scratch)))
                print(report(results[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
