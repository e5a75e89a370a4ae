"""The curve of divergence against size, next to llama.cpp's from the same original.

    python bench/quality.py [--models smollm2-135m tiny-reasoner] [--out bench-results/quality-curve] [--quick]
    python bench/quality.py --recipes int4-b32-asym-gptq-s8 --calibration traces.jsonl --evaluation held-out.jsonl

The originals are float32: the built-in model as it was trained, and SmolLM2-135M moved off the 4-bit grid on which it
is published (see dither.py). Mean KL(original || quantized) in nats, whole vocabulary, every position, by prefill and
by one-token steps, one code for both engines. It is judged on text that shares no template, topic or generator with
what calibration takes (held_out.toml: chat, code, languages, prose, reasoning) and, reported beside it, on replies to
calibration's own kind of prompt. Every point is kept under --out by the hash of what it depends on: an interrupted run
goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import quality_gguf as peer
from dither import dithered_gguf
from held_out import held_out
from quality_measure import CHUNK, Task, measure, whole
from quality_points import OURS, PEER, Point, conclusion, plot, table, table_by_kind, verdicts

from edgedistill import export
from edgedistill._version import __version__
from edgedistill.bundle.bundle import MODEL, WEIGHTS
from edgedistill.catalog.builtin import resolve
from edgedistill.comparison.quality import store
from edgedistill.errors import EdgedistillError
from edgedistill.export.options import ExportOptions
from edgedistill.profile.profile import Profile, load_profile
from edgedistill.progress import NullProgress
from edgedistill.quantize.gptq import THOROUGH
from edgedistill.runtime.model import open_bundle
from edgedistill.runtime.session import DecoderSession
from edgedistill.traces.generate import from_file_for, self_generated
from edgedistill.workflow.calibration_traces import traces_for

if TYPE_CHECKING:
    from edgedistill.profile.quality import Quality
    from edgedistill.traces.traces import Traces

EMBEDDING = "int8-b32-sym-search-s8"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Formats of the layers' matrices and of the embedding, which is the head too; ``default`` None: what an export
    without a format makes, with its quick calibration unless ``quick`` is False, or the ``thorough`` one."""

    name: str
    default: str | None = None
    embedding: str = EMBEDDING
    quick: bool = True
    quality: Quality | None = None
    thorough: bool = False

    @property
    def calibrated(self) -> bool:
        """Whether traces decide anything."""
        return self.thorough or (self.default is not None and "gptq" in self.default)

    def profile(self) -> Profile:
        """The default profile with these formats."""
        if self.default is None:
            return load_profile("laptop-cpu")
        values = load_profile("laptop-cpu").to_dict()
        values["weights"]["default"] = self.default
        values["weights"]["rules"] = [{"match": "embed", "format": self.embedding}]
        return Profile.from_dict(values, source="recipe")


RECIPES = (
    Recipe("default"),
    Recipe("default, --no-calibrate", quick=False),
    Recipe("small", quality="small"),
    Recipe("high", quality="high"),
    Recipe("default, --calibrate", thorough=True),
    Recipe("small, --calibrate", quality="small", thorough=True),
    Recipe("high, --calibrate", quality="high", thorough=True),
    Recipe("int4-b32-asym-search", "int4-b32-asym-search"),
    Recipe("int4-b32-asym-gptq-s8", "int4-b32-asym-gptq-s8"),
    Recipe("int8-b64-sym-gptq-s8-acc1", "int8-b64-sym-gptq-s8-acc1", f"{EMBEDDING}-acc1"),
    Recipe("int5-b32-asym-gptq-s8", "int5-b32-asym-gptq-s8"),
    Recipe("int6-b32-sym-gptq-s8", "int6-b32-sym-gptq-s8"),
    Recipe("int8-b64-sym-gptq-s8", "int8-b64-sym-gptq-s8"),
    Recipe("int4-b16-asym-gptq-s8", "int4-b16-asym-gptq-s8"),
    Recipe("int4-b64-asym-gptq-s8", "int4-b64-asym-gptq-s8"),
    Recipe("int4-b64-asym-gptq-s8+embedding-int6", "int4-b64-asym-gptq-s8", "int6-b32-sym-search-s8"),
    Recipe("int8-b32-sym-gptq", "int8-b32-sym-gptq"),
    Recipe("int8-b32-sym-gptq-acc1", "int8-b32-sym-gptq-acc1", f"{EMBEDDING}-acc1"),
)
QUICK = ("default", "int4-b32-asym-gptq-s8")
QUICK_PEER = ("Q4_0", "Q4_K_M")


class Run:
    """One original and everything made of it under ``root``."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        self.name, self.args = name, args
        self.root: Path = args.out / f"{name}{'-quick' if args.quick else ''}"
        self.options = THOROUGH
        (self.root / "points").mkdir(parents=True, exist_ok=True)
        found = resolve(name)
        if found is None:
            raise SystemExit(f"error: {name} is not a built-in model; `edgedistill models list` shows them.")
        # Files carry the hash of what they were made of: another version of a model must not meet old ones.
        self.published = sha256(found / "model.safetensors" if found.is_dir() else found)
        self.gguf = self._file("original").with_suffix(".gguf")
        self.source = found
        if found.is_file():
            say(f"{name}: float32 original off the grid")
            self.source = dithered_gguf(found, self.gguf)
        self.identity = self.published if found.is_dir() else sha256(self.source)
        self._reference()

    def _file(self, name: str) -> Path:
        return self.root / f"{name}-{self.published[:8]}"

    def _reference(self) -> None:
        """The float32 bundle, the traces that it writes, its logits on the held-out ones."""
        args, path = self.args, self._file("float32")
        if not (path / "manifest.json").is_file():
            say(f"{self.name}: float32 bundle")
            export(self.source, path, profile="reference-fp32", check=False, verify=False, force=True)
        model = open_bundle(path, threads=args.threads)
        session = model.session
        assert isinstance(session, DecoderSession)
        self.parameters = model.bundle.manifest.parameters
        self.vocabulary = session.info.vocab_size

        def traces(file: Path | None, tokens: int, length: int, seed: int) -> Traces:
            if file is not None:
                return from_file_for(model, file).head(tokens)
            say(f"{self.name}: {tokens} tokens of its own, seed {seed}")
            return self_generated(model, sequences=-(-tokens // length), length=length, seed=seed).head(tokens)

        # What --calibrate takes: the model's own replies, and the built-in texts.
        say(f"{self.name}: what is calibrated on")
        wanted = ExportOptions(calibration=args.calibration, calibration_tokens=args.calibration_tokens)
        self.calibration = traces_for(self.source, wanted)
        if args.evaluation is not None:
            judged = {args.evaluation.name: list(traces(args.evaluation, args.tokens, 256, 1).sequences)}
        else:
            judged = held_out(model, -(-args.tokens // 6))
        self.kinds = tuple(kind for kind, found in judged.items() for _ in found)
        self.sequences = tuple(tuple(ids.tolist()) for found in judged.values() for ids in found)
        tokens = sum(map(len, self.sequences))
        digest = hashlib.sha256(json.dumps([self.kinds, self.sequences]).encode()).hexdigest()
        self.identity += digest
        self.logits = self.root / f"logits-{digest[:16]}.f32"
        if not self.logits.is_file():
            say(f"{self.name}: its logits on {tokens} tokens")
            store(self.logits, session, whole(self.sequences, tokens), chunk=CHUNK, progress=NullProgress())
        model.close()

    def ours(self, recipe: Recipe) -> Point:
        """Export and measure, or what is kept of it."""
        key = [asdict(recipe), asdict(self.options) if recipe.calibrated else None]
        kept, digest = self._kept(recipe.name, [*key, self.calibration.sha256 if recipe.calibrated else None])
        if kept is not None:
            return kept
        bundle = self.root / f"{recipe.name}-{digest}"
        begun = time.perf_counter()
        if not (bundle / "manifest.json").is_file():
            export(
                self.source,
                bundle,
                profile=recipe.profile(),
                calibration=self.calibration if recipe.calibrated else None,
                quality=recipe.quality,
                calibrate=None if recipe.default is None and recipe.quick else False,
                gptq=self.options if recipe.calibrated and not recipe.thorough else None,
                check=False,
                verify=False,
                force=True,
            )
        say(f"{self.name}: exported in {time.perf_counter() - begun:.0f} s")
        size = sum((bundle / name).stat().st_size for name in (WEIGHTS, MODEL))
        point = self._measured(recipe.name, OURS, bundle, size, size, digest)
        if not self.args.keep:
            shutil.rmtree(bundle)
        return point

    def peers(self, name: str) -> Point:
        """The same for a format of llama.cpp; ``F32`` is the original itself."""
        import llama_cpp

        kept, digest = self._kept(name, [llama_cpp.__version__])
        if kept is not None:
            return kept
        original = self.gguf if self.source == self.gguf else peer.qwen3_gguf(self.source, self.gguf)
        path = self._file(name).with_suffix(".gguf")
        path = original if name == "F32" else peer.quantized(original, path, name, self.args.threads or 2)
        return self._measured(name, PEER, path, path.stat().st_size, peer.tensor_bytes(path), digest)

    def _kept(self, name: str, key: list[Any]) -> tuple[Point | None, str]:
        key = [__version__, self.identity, self.args.decode_tokens, *key]
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
        path = self.root / "points" / f"{name}-{digest}.json"
        return (Point(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None), digest

    def _measured(self, name: str, engine: str, path: Path, file: int, tensors: int, digest: str) -> Point:
        args = self.args
        task = Task(
            engine, path, self.logits, self.vocabulary, self.sequences, self.kinds, args.decode_tokens, args.threads
        )
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            values = pool.submit(measure, task).result()
        bits = 8 * tensors / self.parameters
        point = Point(name, engine, file, tensors, bits, **values)
        say(f"{self.name}: {name} {tensors / 1e6:.1f} MB, KL {point.kl:.4f}, decode {point.kl_decode:.4f}")
        target = self.root / "points" / f"{name}-{digest}.json"
        partial = target.with_suffix(".partial")
        partial.write_text(json.dumps(point.to_dict(), indent=2) + "\n", encoding="utf-8")
        partial.replace(target)
        return point

    def report(self, points: list[Point]) -> None:
        """Table and verdicts on stdout, JSON and PNG under ``root``."""
        tokens = sum(len(ids) for ids in self.sequences)
        found = {path: verdicts(points, decode=path == "decode") for path in ("prefill", "decode")}
        lines = [
            f"## {self.name}: {self.parameters / 1e6:.1f} M parameters, {tokens} held-out tokens, "
            f"calibrated with {self.calibration.tokens}",
            "",
            *table(points),
            "",
            *table_by_kind(points),
            "",
            *(verdict.line() for some in found.values() for verdict in some),
            *(conclusion(some) for some in found.values() if some),
        ]
        if original := next((p for p in points if p.name == "F32"), None):
            lines.append(f"check: llama.cpp's float32 is {original.kl:.2g} nats from ours (p99 {original.p99:.2g})")
        sys.stdout.write("\n".join(lines) + "\n\n")
        values = {
            "model": self.name,
            "parameters": self.parameters,
            "held_out_tokens": tokens,
            "calibration_tokens": self.calibration.tokens,
            "version": __version__,
            "points": [point.to_dict() for point in points],
            "verdicts": {path: [verdict.line() for verdict in some] for path, some in found.items()},
        }
        (self.root / "quality.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        if not plot(points, f"{self.name}: divergence from the original by size", self.root / "quality.png"):
            say("no plot: pip install -e '.[report]'")


def say(text: str) -> None:
    """A line of progress."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse() -> argparse.Namespace:
    """The command line."""
    names = [recipe.name for recipe in RECIPES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny-reasoner", "smollm2-135m"])
    parser.add_argument("--recipes", nargs="+", choices=names, default=names, metavar="RECIPE", help=", ".join(names))
    parser.add_argument("--peers", nargs="*", choices=list(peer.FORMATS), default=list(peer.FORMATS), metavar="FORMAT")
    parser.add_argument("--tokens", type=int, default=3600, help="held-out tokens, a sixth of each kind")
    parser.add_argument("--decode-tokens", type=int, default=500, help="of them, decoded one by one as well")
    parser.add_argument("--calibration-tokens", type=int, default=16384)
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="traces or text instead of the model's own")
    parser.add_argument("--evaluation", type=Path, metavar="FILE", help="judge on this instead of held_out.toml")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("bench-results/quality-curve"), metavar="DIRECTORY")
    parser.add_argument("--keep", action="store_true", help="keep the bundles")
    parser.add_argument("--quick", action="store_true", help="two formats a side, few tokens: does it run?")
    args = parser.parse_args()
    if args.quick:
        args.recipes, args.peers = list(QUICK), list(QUICK_PEER)
        args.tokens, args.decode_tokens, args.calibration_tokens = 400, 60, 1024
    return args


def main() -> None:
    """Each model: the peer's points first, then ours; a report after every model."""
    args = parse()
    with_peer = bool(args.peers) and peer.is_available()
    if args.peers and not with_peer:
        say(f"llama-cpp-python is missing, so only our side runs: {peer.INSTALL}")
    try:
        for name in args.models:
            run = Run(name, args)
            points = [run.peers(one) for one in ("F32", *args.peers)] if with_peer else []
            points += [run.ours(recipe) for recipe in RECIPES if recipe.name in args.recipes]
            run.report(points)
    except EdgedistillError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
