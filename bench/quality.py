"""How much of the model each format keeps at which size, next to llama.cpp's formats of the same original.

    make bench-quality
    make bench-quality ARGS="--quick"          # two formats of each, few tokens

The original is SmolLM2-135M-Instruct moved off its 4-bit grid (``dither.py``), written once as float32 GGUF that both
toolkits read; and tiny-reasoner, whose float32 weights are its own. Both engines' full logits are compared with those
of the float32 bundle by the same code on the same held-out tokens, all positions: ``KL`` by prefill, ``KL decode`` by
one-token steps as deployed. Calibration tokens come from other prompts. Results are kept per format, so that an
interrupted run goes on.

llama.cpp is measured where llama-cpp-python is installed: pip install '.[bench]' (it builds from source).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from dither import dithered_gguf

from edgedistill import catalog
from edgedistill.calibrate.prepare import traces_for
from edgedistill.calibrate.traces import self_generated
from edgedistill.cli import console
from edgedistill.comparison.quality import Quality, Text, compare, distance, store, texts
from edgedistill.export.pipeline import export
from edgedistill.profile import Profile, load_profile
from edgedistill.runtime.model import open_bundle
from edgedistill.runtime.session import DecoderSession

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgedistill.traces import Traces

HEAD = "int8-b32-sym-search-s8"
PEERS = ("Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0")
HELD_OUT_SEED = 1


@dataclass(frozen=True)
class Recipe:
    """A format of ours: of the layers, of embedding and head, and whether it is calibrated."""

    name: str
    layers: str
    head: str = HEAD
    calibrated: bool = True


RECIPES = (
    Recipe("int4-b32 search", "int4-b32-asym-search-s8", calibrated=False),
    Recipe("int4-b64", "int4-b64-asym-search-s8"),
    Recipe("int4-b32", "int4-b32-asym-search-s8"),
    Recipe("int4-b16", "int4-b16-asym-search-s8"),
    Recipe("int5-b32", "int5-b32-asym-search-s8"),
    Recipe("int6-b32", "int6-b32-sym-search-s8"),
    Recipe("int8-b32", "int8-b32-sym-search"),
    Recipe("int8-b32 acc1", "int8-b32-sym-search-acc1", "int8-b32-sym-search-acc1"),
)


@dataclass(frozen=True)
class Point:
    """One format: ``megabytes`` of 10^6 bytes (weights and graph, or the GGUF), distances in nats."""

    engine: str
    name: str
    megabytes: float
    kl: float
    kl_low: float
    kl_high: float
    p99: float
    top1: float
    perplexity_ratio: float
    kl_decode: float


def verdict(points: Sequence[Point]) -> list[str]:
    """A line for each of the peer's formats: which of ours is no larger and closer, or that none is."""
    ours = [point for point in points if point.engine == "edgedistill"]
    lines = []
    for peer in points:
        if peer.engine == "edgedistill":
            continue
        below = [point for point in ours if point.megabytes <= peer.megabytes and point.kl < peer.kl]
        if below:
            best = min(below, key=lambda point: point.kl)
            lines.append(
                f"{peer.name} ({peer.megabytes:.1f} MB, KL {peer.kl:.4f}): {best.name} is smaller and "
                f"{peer.kl / best.kl:.1f} times closer ({best.megabytes:.1f} MB, KL {best.kl:.4f})"
            )
        else:
            lines.append(
                f"{peer.name} ({peer.megabytes:.1f} MB, KL {peer.kl:.4f}): NONE of ours is as small and closer"
            )
    return lines


class Bench:
    """One original: its reference, its tokens, and the points measured so far."""

    def __init__(
        self, name: str, original: str | Path, directory: Path, args: argparse.Namespace, progress: Any
    ) -> None:
        self.name, self.original, self.progress = name, original, progress
        self.directory = directory / name
        self.directory.mkdir(parents=True, exist_ok=True)
        self.reference = self.directory / "reference"
        self.points: list[Point] = []
        if not (self.reference / "manifest.json").is_file():
            export(original, self.reference, profile="reference-fp32", check=False, force=True, progress=progress)
        with open_bundle(self.reference) as model:
            held_out = self_generated(
                model, sequences=max(2, args.eval_tokens // 256), length=256, seed=HELD_OUT_SEED, progress=progress
            )
        self.calibration: Traces = traces_for(original, tokens=args.tokens, progress=progress)
        # All positions but the first: the model's text as a whole, its prompts included.
        self.texts = texts(held_out.sequences, (0,) * len(held_out.sequences), args.eval_tokens)
        self.steps = texts(held_out.sequences, (0,) * len(held_out.sequences), args.decode_tokens)
        self.key = [held_out.sha256, self.calibration.sha256, args.eval_tokens, args.decode_tokens]
        self.logits = self.directory / f"logits-{_digest(self.key[0], args.eval_tokens)}.f32"
        if not self.logits.is_file():
            with open_bundle(self.reference) as model:
                store(self.logits, _session(model), self.texts, chunk=256, progress=progress)

    def ours(self, recipe: Recipe) -> None:
        """Export a recipe and measure it."""

        def measure() -> Point:
            out = self.directory / "bundle"
            made = export(
                self.original,
                out,
                profile=_profile(recipe),
                calibration=self.calibration if recipe.calibrated else None,
                check=False,
                force=True,
                progress=self.progress,
            )
            size = sum(f.size for f in made.manifest.files if f.name in ("weights.bin", "model.onnx"))
            with open_bundle(out) as model:
                session = _session(model)

                def run(some: Sequence[Text], steps: bool) -> Quality:
                    return compare(
                        self.logits, session, some, steps=steps, name=recipe.name, chunk=256, progress=self.progress
                    )

                return _point("edgedistill", recipe.name, size, run(self.texts, False), run(self.steps, True))

        self._kept([asdict(recipe), *self.key], measure)

    def theirs(self, name: str) -> None:
        """Quantize the original's GGUF with llama.cpp and measure that."""
        import llama_cpp

        def measure() -> Point:
            path = self.directory / f"{name}.gguf"
            if not path.is_file():
                self.progress.begin(f"llama.cpp {name}", 0, "items")
                parameters = llama_cpp.llama_model_quantize_default_params()
                parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name}")
                parameters.nthread = os.cpu_count() or 2
                partial = path.with_suffix(".partial")
                code = llama_cpp.llama_model_quantize(str(self.original).encode(), str(partial).encode(), parameters)
                if code:
                    raise SystemExit(f"llama.cpp could not quantize to {name} ({code})")
                partial.replace(path)
                self.progress.end()
            size = path.stat().st_size
            model = llama_cpp.Llama(str(path), n_ctx=512, n_batch=512, logits_all=True, verbose=False)
            kl = distance(
                self.logits, _llama(model, self.texts, steps=False), self.texts, name=name, progress=self.progress
            )
            decode = distance(
                self.logits, _llama(model, self.steps, steps=True), self.steps, name=name, progress=self.progress
            )
            model.close()
            return _point("llama.cpp", name, size, kl, decode)

        self._kept(["llama.cpp", llama_cpp.__version__, name, *self.key], measure)

    def _kept(self, key: list[Any], measure: Any) -> None:
        path = self.directory / f"{_digest(*key)}.json"
        if not path.is_file():
            path.write_text(json.dumps(asdict(measure())) + "\n")
        self.points.append(Point(**json.loads(path.read_text())))


def _llama(model: Any, some: Sequence[Text], *, steps: bool) -> Iterator[np.ndarray]:
    for text in some:
        ids = text.ids[:-1].tolist()
        model.reset()
        for start in range(0, len(ids), 1 if steps else len(ids)):
            model.eval(ids[start : start + (1 if steps else len(ids))])
        yield np.array(model.scores[text.start - 1 : len(ids)], dtype=np.float32)


def _point(engine: str, name: str, size: int, scored: Quality, decoded: Quality) -> Point:
    quantiles = scored.kl_quantiles
    return Point(
        engine,
        name,
        size / 1e6,
        scored.kl,
        scored.kl_low,
        scored.kl_high,
        float(quantiles.get("p99", quantiles.get("0.99", float("nan")))),
        scored.top1,
        scored.perplexity_ratio,
        decoded.kl,
    )


def _profile(recipe: Recipe) -> Profile:
    table = load_profile("laptop-cpu").to_dict()
    table["weights"] |= {
        "default": recipe.layers,
        "rules": [{"match": m, "format": recipe.head} for m in ("embed", "lm_head")],
    }
    return Profile.from_dict(table, source="bench")


def _session(model: Any) -> DecoderSession:
    session = model.session
    assert isinstance(session, DecoderSession)
    return session


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def table(points: Sequence[Point]) -> str:
    """Markdown, smallest first."""
    lines = ["| format | MB | mean KL | p99 | top-1 | perplexity | mean KL, decode |", "|---|---|---|---|---|---|---|"]
    for p in sorted(points, key=lambda point: point.megabytes):
        name = p.name if p.engine == "edgedistill" else f"llama.cpp {p.name}"
        spread = f"{p.kl:.4f} ({p.kl_low:.4f} - {p.kl_high:.4f})"
        ratio = f"x {p.perplexity_ratio:.3f}"
        lines.append(
            f"| {name} | {p.megabytes:.1f} | {spread} | {p.p99:.3f} | {p.top1:.3f} | {ratio} | {p.kl_decode:.4f} |"
        )
    return "\n".join(lines)


def plot(points: Sequence[Point], path: Path) -> None:
    """Mean KL over size, both engines, as PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), dpi=144)
    for engine, colour, marker in (("edgedistill", "#0b7a75", "o"), ("llama.cpp", "#b5442d", "s")):
        some = sorted((p for p in points if p.engine == engine), key=lambda p: p.megabytes)
        if some:
            axes.plot([p.megabytes for p in some], [p.kl for p in some], marker + "-", color=colour, label=engine)
        for p in some:
            axes.annotate(p.name, (p.megabytes, p.kl), textcoords="offset points", xytext=(5, 5), fontsize=7)
    axes.set(xlabel="file size, MB", ylabel="mean KL to float32, nats", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/bench-quality"), metavar="DIR", help="work and results")
    parser.add_argument("--model", choices=("tiny-reasoner", "smollm2-135m"), action="append", help="default: both")
    parser.add_argument("--tokens", type=int, default=16_384, help="calibration tokens (16384)")
    parser.add_argument("--eval-tokens", type=int, default=3_072, help="held-out tokens (3072)")
    parser.add_argument("--decode-tokens", type=int, default=512, help="of these by one-token steps (512)")
    parser.add_argument("--quick", action="store_true", help="two formats each, 2048 and 512 tokens")
    args = parser.parse_args()
    if args.quick:
        args.tokens, args.eval_tokens, args.decode_tokens = 2_048, 512, 64
    recipes = RECIPES[1:3] if args.quick else RECIPES
    try:
        import llama_cpp  # noqa: F401

        peers: tuple[str, ...] = PEERS[:2] if args.quick else PEERS
    except ImportError:
        peers = ()
        print("note: llama.cpp is left out; to measure it, too: pip install '.[bench]'", file=sys.stderr)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {args.tokens} calibration tokens, "
          f"{args.eval_tokens} held-out ones")  # fmt: skip
    for name in args.model or ("tiny-reasoner", "smollm2-135m"):
        original: str | Path = name
        if name == "smollm2-135m":
            original = dithered_gguf(catalog.pull(name), args.out / "smollm2-135m-dithered.gguf")
        with console.progress() as progress:
            bench = Bench(name, original, args.out, args, progress)
            for recipe in recipes:
                bench.ours(recipe)
            for peer in peers if isinstance(original, Path) else ():
                bench.theirs(peer)
        print(f"\n{name}\n\n{table(bench.points)}\n")
        for line in verdict(bench.points):
            print(f"- {line}")
        (args.out / f"{name}.json").write_text(json.dumps([asdict(p) for p in bench.points], indent=2) + "\n")
        plot(bench.points, args.out / f"{name}.png")
        print(f"\n{args.out / name}.json, .png")


if __name__ == "__main__":
    main()
