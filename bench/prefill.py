"""Measures a W8A8 form for prompts against 4 bits for everything: time to the first token, decode speed, quality.

    python bench/prefill.py [--models smollm2-135m tiny-reasoner] [--rounds 7] [--quick]

Three bundles of each model: 4-bit layers (int4-b32), W8A8 layers, and both over one KV cache (--prefill w8a8).
Speed: each round measures all three in alternating order, each in a process of its own; the result is the ratio within
a round. The time to the first token is that of the prefill with its last logits. Quality: KL(original || bundle) in
nats on replies of the original, by prefill and by one-token steps, at every position over the whole vocabulary. The
published weights of SmolLM2 are on a 4-bit grid and are dithered off it. Bundles and finished parts are kept under
--work.

    python bench/prefill.py --bundle DIR ... --chunks 64 128 256 512 1024 [--prompts 512 1024 4000]

measures prefills of given bundles in chunks of several sizes instead, in turn in one process.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from originals import original

from edgedistill import export
from edgedistill.comparison import quality
from edgedistill.progress import NullProgress
from edgedistill.runtime.chunks import chunk_bounds
from edgedistill.runtime.measure.bench import bench
from edgedistill.runtime.model import open_bundle
from edgedistill.runtime.session import DecoderSession, physical_cores
from edgedistill.traces.generate import self_generated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.runtime.model import Model

BASE = "int4-b32"
FORMS: dict[str, dict[str, Any]] = {
    BASE: {"weight_format": "int4-b32"},
    "w8a8": {"weight_format": "w8a8"},
    "int4-b32 + w8a8": {"weight_format": "int4-b32", "prefill_format": "w8a8"},
}
PROMPTS = (64, 256, 1024)
CONTEXT = 2048
NEW_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Round:
    """One form in one round: prompt tokens/s by length, decode tokens/s, peak memory in bytes."""

    prefill: dict[int, float]
    decode: float
    rss: int


def say(text: str) -> None:
    """A line about what happens now."""
    sys.stderr.write(text + "\n")


def make_bundles(name: str, work: Path) -> dict[str, Path]:
    """The float32 bundle and one of each form, made once."""
    source, made = original(name, work), {}
    for form, options in {"fp32": {"profile": "reference-fp32"}, **FORMS}.items():
        made[form] = work / f"{name}-{form.replace(' + ', '-and-')}"
        if not (made[form] / "manifest.json").is_file():
            say(f"{name}: {form}")
            export(source, made[form], context=CONTEXT, check=False, verify=False, **options)
    return made


def measure_quality(paths: dict[str, Path], work: Path, tokens: int, threads: int) -> dict[str, Any]:
    """Both paths' distances of each form, JSON-able; kept in ``work`` form by form."""
    name = paths["fp32"].name
    kept = work / f"{name}-quality-{tokens}.json"
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
    missing = [form for form in FORMS if form not in found]
    if not missing:
        return found
    with open_bundle(paths["fp32"], threads=threads) as model:
        traces = self_generated(model, sequences=max(2, round(tokens / 256)), length=256, seed=1)
        some = quality.texts(traces.sequences, traces.prompt_tokens, tokens)
        logits, chunk = work / f"{name}-logits-{tokens}.f32", model.prefill_chunk
        say(f"{name}: logits of {sum(text.positions for text in some)} positions")
        quality.store(logits, session(model), some, chunk=chunk, progress=NullProgress())
    for form in missing:
        say(f"{name}: quality of {form}")
        with open_bundle(paths[form], threads=threads) as model:
            found[form] = {
                path: quality.compare(
                    logits, session(model), some, steps=steps, name=form, chunk=chunk, progress=NullProgress()
                ).to_dict()
                for path, steps in (("prefill", False), ("decode", True))
            }
        kept.write_text(json.dumps(found, indent=2) + "\n")
    logits.unlink()
    return found


def session(model: Model) -> DecoderSession:
    """The session of an own bundle."""
    assert isinstance(model.session, DecoderSession)
    return model.session


def measure_speed(paths: dict[str, Path], rounds: int, prompts: Sequence[int], threads: int) -> dict[str, list[Round]]:
    """Every form in each round, in alternating order."""
    found: dict[str, list[Round]] = {form: [] for form in FORMS}
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        for form in list(FORMS)[:: -1 if number % 2 else 1]:
            made = bench(paths[form], threads=threads, prompt_tokens=prompts, new_tokens=NEW_TOKENS, rounds=1)
            rates = {rate.tokens: rate.median for rate in made.prefill}
            found[form].append(Round(rates, made.decode.median, made.peak_rss_bytes))
    return found


def table(name: str, qualities: dict[str, Any], rounds: dict[str, list[Round]], prompts: Sequence[int]) -> list[str]:
    """Markdown: medians (least to most), and the ratio to the 4-bit form within rounds."""
    base = rounds[BASE]
    lines = [f"{name}, {len(base)} rounds in turn", ""]
    lines += ["| median (min to max) | " + " | ".join(FORMS) + " |", "|---|" + "---|" * len(FORMS)]

    def row(title: str, values: dict[str, list[float]], digits: int) -> None:
        cells = []
        for form in FORMS:
            cell = spread(values[form], digits)
            if form != BASE:
                cell += "; x" + spread([a / b for a, b in zip(values[form], values[BASE], strict=True)], 2)
            cells.append(cell)
        lines.append(f"| {title} | " + " | ".join(cells) + " |")

    for count in prompts:
        row(
            f"first token after {count}, ms", {f: [1e3 * count / r.prefill[count] for r in rounds[f]] for f in FORMS}, 0
        )
        row(f"prefill of {count}, tok/s", {f: [r.prefill[count] for r in rounds[f]] for f in FORMS}, 0)
    row("decode, tok/s", {f: [r.decode for r in rounds[f]] for f in FORMS}, 0)
    row("peak memory, MB", {f: [r.rss / 1e6 for r in rounds[f]] for f in FORMS}, 0)
    for path in ("prefill", "decode"):
        cells = []
        for form in FORMS:
            one = qualities[form][path]
            cells.append(f"{one['kl']:.4f} ({one['kl_low']:.4f} to {one['kl_high']:.4f})")
        lines.append(f"| mean KL by {path} (95 %) | " + " | ".join(cells) + " |")
    return [*lines, ""]


def chunk_table(path: Path, chunks: Sequence[int], prompts: Sequence[int], rounds: int, threads: int) -> list[str]:
    """Markdown: prompt tokens/s by chunk, and the ratio to the bundle's own chunk within rounds."""
    with open_bundle(path, threads=threads) as model:
        own, decoder = model.prefill_chunk, session(model).decoder()
        sizes = sorted({own, *chunks})
        lines = [f"{path.name}, {rounds} rounds in turn", "", "| prompt | " + " | ".join(map(str, sizes)) + " |"]
        lines.append("|---|" + "---|" * len(sizes))
        known = min(model.bundle.manifest.model.vocab_size, 32768)
        for prompt in prompts:
            ids = np.random.default_rng(0).integers(3, known, prompt).tolist()
            rates: dict[int, list[float]] = {size: [] for size in sizes}
            for number in range(rounds + 1):
                for size in sizes[:: -1 if number % 2 else 1]:
                    decoder.truncate(0)
                    decoder.feed(ids[:size], exact=True)  # makes the arrays of this width
                    decoder.truncate(0)
                    begun = time.perf_counter()
                    for start, stop in chunk_bounds(prompt, size):
                        decoder.feed(ids[start:stop], exact=True, logits=stop == prompt)
                    rates[size].append(prompt / (time.perf_counter() - begun))
            kept = {size: values[1:] or values for size, values in rates.items()}  # the first round grows the cache
            ratios = {size: [a / b for a, b in zip(kept[size], kept[own], strict=True)] for size in sizes}
            cells = [f"{spread(kept[size], 0)}; x{spread(ratios[size], 2)}" for size in sizes]
            lines.append(f"| {prompt} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def spread(values: Sequence[float], digits: int) -> str:
    """``median (min to max)``."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["smollm2-135m", "tiny-reasoner"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=1024, help="positions of the quality")
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--work", type=Path, default=Path("bench-results/prefill"), metavar="DIR")
    parser.add_argument(
        "--bundle", type=Path, nargs="+", default=[], metavar="DIR", help="with --chunks: measure these"
    )
    parser.add_argument("--chunks", type=int, nargs="+", default=[], metavar="N", help="sizes of chunks to compare")
    parser.add_argument("--prompts", type=int, nargs="+", default=[512, 1024], metavar="N", help="with --chunks")
    parser.add_argument("--quick", action="store_true", help="tiny-reasoner only, two rounds: does it run?")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    if args.quick:
        args.models, args.rounds, args.tokens = ["tiny-reasoner"], 2, 128
    for path in args.bundle:
        print("\n".join(chunk_table(path, args.chunks, args.prompts, args.rounds, args.threads)), flush=True)
    if args.bundle:
        return 0
    args.work.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"threads": args.threads, "models": {}}
    for name in args.models:
        paths = make_bundles(name, args.work)
        qualities = measure_quality(paths, args.work, args.tokens, args.threads)
        rounds = measure_speed(paths, args.rounds, PROMPTS, args.threads)
        print("\n".join(table(name, qualities, rounds, PROMPTS)), flush=True)
        speeds = {
            form: [{"prefill": r.prefill, "decode": r.decode, "peak_rss_bytes": r.rss} for r in some]
            for form, some in rounds.items()
        }
        result["models"][name] = {"quality": qualities, "rounds": speeds}
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
