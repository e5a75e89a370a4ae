"""Measures a quantized KV cache at long contexts: divergence, memory and speed, by position in the context.

    python bench/kv.py [--model smollm2-135m] [--context 4096] [--formats int8 int8-per-tensor int4] [--quick]

All bundles have the same weights; only the cache differs. One long text (this repository's documentation) is scored
by prefill with the float32 cache and with each other one; the Kullback-Leibler divergence, in nats, is summed over the
whole vocabulary at every position and reported by how far into the context the position lies. Speed: processor time,
which other work on the machine changes least, of one-token steps and of a chunk of a prompt with a cache that is filled
so far; all caches in turn, every other round backwards. Use --threads 1: threads that wait for work count too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill import export
from edgedistill.profile.profile import load_profile
from edgedistill.quantize.plan import parse_format
from edgedistill.runtime.measure.selftest import divergence
from edgedistill.runtime.model import Model, open_bundle
from edgedistill.runtime.session import DecoderSession

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgedistill.runtime.decoder import Decoder

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ("README.md", "profiles/README.md", "CONTRIBUTING.md", "src/edgedistill/catalog/models/tiny-reasoner/README.md")
STEPS, CHUNK = 24, 128


def make_bundles(args: argparse.Namespace, root: Path) -> dict[str, Path]:
    """The model once per cache format, by name; the first is float32."""
    made: dict[str, Path] = {}
    for name in ("float32", *args.formats):
        dtype, _, scales = name.partition("-")
        profile = load_profile(args.profile)
        cache = replace(profile.kv_cache, dtype=dtype, scales=scales or "per-channel")
        profile = replace(profile, kv_cache=cache)
        made[name] = root / name
        sys.stderr.write(f"export with a {name} cache\n")
        export(
            args.model,
            made[name],
            profile=profile,
            format=parse_format(args.format) if args.format else None,
            context=args.context,
            check=False,
            verify=False,
        )
    return made


def text_tokens(model: Model, count: int) -> list[int]:
    """The first ``count`` tokens of the documentation."""
    text = "\n\n".join((ROOT / name).read_text(encoding="utf-8") for name in TEXTS)
    ids = model.encode(text, raw=True)
    if len(ids) < count:
        raise SystemExit(f"error: the text has {len(ids)} tokens; choose a --context of at most that.")
    return ids[:count]


def bounds(context: int) -> list[tuple[int, int]]:
    """Ranges of positions: the first 256, then doubling."""
    edges = [0, 256]
    while edges[-1] < context:
        edges.append(min(2 * edges[-1], context))
    return [(a, b) for a, b in itertools.pairwise(edges)]


def scores(session: DecoderSession, ids: list[int]) -> Iterator[np.ndarray[Any, Any]]:
    """Logits after every token by prefill, in slices [n, V]."""
    for part in session.decoder().score(np.asarray([ids], dtype=np.int64), chunk=256):
        yield part.logits


def filled(session: DecoderSession, ids: list[int], tokens: int) -> Decoder:
    decoder = session.decoder()
    for start in range(0, tokens, 256):
        decoder.feed(ids[start : min(start + 256, tokens)], exact=True, logits=False)
    return decoder


def speeds(
    sessions: dict[str, DecoderSession], ids: list[int], tokens: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Milliseconds of processor time by name, with ``tokens`` in the cache: of a step the lower quartile, of a chunk
    the median."""
    decoders = {name: filled(session, ids, tokens) for name, session in sessions.items()}
    steps: dict[str, list[float]] = {name: [] for name in sessions}
    chunks: dict[str, list[float]] = {name: [] for name in sessions}
    for number in range(rounds):
        for name in sorted(sessions, reverse=bool(number % 2)):
            decoder = decoders[name]
            for token in ids[:STEPS]:
                begun = time.process_time()
                decoder.feed([token])
                steps[name].append(time.process_time() - begun)
            decoder.truncate(tokens)
            begun = time.process_time()
            decoder.feed(ids[:CHUNK], exact=True)
            chunks[name].append(time.process_time() - begun)
            decoder.truncate(tokens)
    return {
        name: {"step_ms": 1e3 * quantiles(steps[name], n=4)[0], "chunk_ms": 1e3 * median(chunks[name])}
        for name in sessions
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Everything, JSON-able."""
    with tempfile.TemporaryDirectory(prefix="bench-kv-") as root:
        paths = make_bundles(args, Path(root))
        models = {name: open_bundle(path, threads=args.threads) for name, path in paths.items()}
        sessions: dict[str, DecoderSession] = {}
        for name, model in models.items():
            if not isinstance(model.session, DecoderSession):
                raise SystemExit("error: the optimum exporter's graphs have no quantized cache.")
            sessions[name] = model.session
        ids = text_tokens(models["float32"], args.context)
        ranges = bounds(args.context)
        result: dict[str, Any] = {"model": args.model, "context": args.context, "threads": args.threads, "formats": {}}
        for name, model in models.items():
            info = model.bundle.manifest.kv_cache
            result["formats"][name] = {"bytes_per_token": info.bytes_per_token, "ranges": [], "speed": {}}
        for name in args.formats:
            sys.stderr.write(f"scoring {len(ids)} tokens with {name}\n")
            pairs = zip(scores(sessions["float32"], ids), scores(sessions[name], ids), strict=True)
            parts: list[tuple[int, Any]] = []
            at = 0
            for first, second in pairs:
                parts.append((at, _per_position(first, second)))
                at += len(first)
            values = np.concatenate([part for _, part in parts])
            for start, stop in ranges:
                kl, same = values[start:stop].T
                result["formats"][name]["ranges"].append(
                    {
                        "positions": [start, stop],
                        "mean_kl": float(kl.mean()),
                        "p99_kl": float(np.percentile(kl, 99)),
                        "top1": float(same.mean()),
                    }
                )
        for tokens in sorted({256, args.context // 2, args.context - 160}):
            sys.stderr.write(f"speed at {tokens}\n")
            for name, found in speeds(sessions, ids, tokens, args.rounds).items():
                result["formats"][name]["speed"][str(tokens)] = found
    return result


def _per_position(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """KL and agreement of the top token, [n, 2]."""
    rows = [divergence("", first[i : i + 1], second[i : i + 1]) for i in range(len(first))]
    return np.array([[row.mean_kl, row.top1_agreement] for row in rows])


def show(result: dict[str, Any]) -> None:
    """Markdown tables."""
    lines = [f"{result['model']}, context {result['context']}, {result['threads'] or 'all'} threads", ""]
    lines += ["| cache | bytes/token | positions | mean KL | p99 KL | same top token |", "|---|---|---|---|---|---|"]
    for name, entry in result["formats"].items():
        for part in entry["ranges"]:
            start, stop = part["positions"]
            numbers = f"{part['mean_kl']:.4f} | {part['p99_kl']:.3f} | {100 * part['top1']:.1f} %"
            lines.append(f"| {name} | {entry['bytes_per_token']} | {start} to {stop} | {numbers} |")
    lines += ["", "| cache | tokens held | step, ms | chunk, ms |", "|---|---:|---|---|"]
    first = next(iter(result["formats"].values()))["speed"]
    for name, entry in result["formats"].items():
        for tokens, found in entry["speed"].items():
            cells = [f"{found[key]:.1f} (x{found[key] / first[tokens][key]:.2f})" for key in ("step_ms", "chunk_ms")]
            lines.append(f"| {name} | {tokens} | {' | '.join(cells)} |")
    sys.stdout.write("\n".join(lines) + "\n")


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--profile", default="laptop-cpu")
    parser.add_argument("--format", help="weight format instead of the profile's")
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--formats", nargs="+", default=["int8", "int8-per-tensor", "int4"])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="1024 tokens, int8 only, two rounds: does it run?")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    if args.quick:
        args.context, args.formats, args.rounds = 1024, ["int8"], 2
    result = measure(args)
    show(result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
