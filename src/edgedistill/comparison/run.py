"""A comparison from top to bottom: build, make tokens, store the reference's logits, compare, time in turn.

What is finished is kept in the work directory: a comparison that was interrupted goes on where it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from edgedistill.atomic_file import write_whole
from edgedistill.bundle.bundle import Bundle
from edgedistill.catalog.builtin import cache_dir
from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.comparison import quality
from edgedistill.comparison.options import CompareOptions
from edgedistill.comparison.quality import Quality, Text
from edgedistill.comparison.result import Comparison, Row
from edgedistill.comparison.work import Built, Source, Variant, build
from edgedistill.errors import BudgetError, OutputError, UsageError
from edgedistill.estimate.timings import Machine
from edgedistill.profile.profile import Profile, load_profile
from edgedistill.progress import NullProgress, Progress
from edgedistill.quantize.plan import parse_format
from edgedistill.runtime.measure.bench import bench
from edgedistill.runtime.model import Model, open_bundle
from edgedistill.runtime.session import DecoderSession
from edgedistill.runtime.stats import Spread
from edgedistill.traces.generate import from_file_for, self_generated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

REFERENCE = "fp32"
_RESERVE = 256 << 20
_SEQUENCE = 512

_Open: TypeAlias = tuple[Model, DecoderSession]
_Round: TypeAlias = dict[str, float | None]
"""What one process measured; None: what the system does not say."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """What bundles are judged on: logits of the reference, texts (of hash ``sha256``), and what of them is decoded."""

    logits: Path
    sha256: str
    some: list[Text]
    front: list[Text]


def compare(
    model: str | Path, options: CompareOptions | None = None, *, progress: Progress | None = None
) -> Comparison:
    """Compare bundles of ``model`` with its fp32 bundle.

    Args:
        model: As for an export.
        options: See there.
        progress: Receives everything that takes long.

    Raises:
        EdgedistillError: A model, format or setting that cannot be, a reference that this machine cannot hold, or too
            little disk. A format that cannot be built is left out, with the reason.
    """
    options = options or CompareOptions()
    options.check()
    progress = progress or NullProgress()
    kv_cache = options.kv_cache
    profile = options.profile if isinstance(options.profile, Profile) else load_profile(options.profile)
    variants = [Variant(REFERENCE, profile.with_overrides(kv_cache="float32"), parse_format(REFERENCE))]
    shown = profile.with_overrides(kv_cache=kv_cache)
    variants += [Variant(n, shown, f) for n, f in options.formats if kv_cache is not None or n != REFERENCE]
    variants += [Variant(name, load_profile(name).with_overrides(kv_cache=kv_cache), None) for name in options.profiles]
    adapter = Path(options.adapter) if options.adapter else None
    revision, offline = options.revision, options.offline
    with open_checkpoint(
        str(model), adapter=adapter, revision=revision, offline=offline, progress=progress
    ) as checkpoint:
        source = Source(str(model), checkpoint.hash_source(progress), adapter, revision, offline, options.context)
        label = checkpoint.source.name
    with _directory(options, source) as directory:
        return _Run(source, directory, options, progress).all(label, variants)


@contextmanager
def _directory(options: CompareOptions, source: Source) -> Iterator[Path]:
    """Where bundles and results lie; what is in the cache goes once everything is done, not when it is interrupted."""
    if options.keep is not None:
        keep = Path(options.keep)
        if keep.exists() and not keep.is_dir():
            raise OutputError(
                f"{keep} is a file; a directory was expected.", hint="Choose another directory with --keep."
            )
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    key = hashlib.sha256(json.dumps([source.sha256, str(source.adapter), source.context_length]).encode()).hexdigest()
    directory = cache_dir() / "compare" / key[:16]
    directory.mkdir(parents=True, exist_ok=True)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


class _Run:
    def __init__(self, source: Source, directory: Path, options: CompareOptions, progress: Progress) -> None:
        self._source = source
        self._directory = directory
        self._options = options
        self._progress = progress
        self._results = directory / "results.json"
        self._known: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            self._known = dict(json.loads(self._results.read_text(encoding="utf-8")))

    def all(self, label: str, variants: Sequence[Variant]) -> Comparison:
        built: dict[str, Built] = {}
        left_out: list[tuple[str, str]] = []
        for variant in variants:
            try:
                built[variant.name] = build(
                    variant, self._source, self._directory, self._progress, own=self._options.keep is None
                )
            except BudgetError as error:
                if variant is variants[0]:
                    raise
                left_out.append((variant.name, str(error)))
        with _opened(built[REFERENCE].path) as opened:
            some, origin, tokens_sha256 = self._texts(opened[0])
            logits = self._reference(built[REFERENCE], opened, some, tokens_sha256)
            ids, starts = [text.ids for text in some], [text.start for text in some]
            front = quality.texts(ids, starts, self._options.decode_tokens)
            judged = _Judged(logits, tokens_sha256, some, front)
            found = {REFERENCE: self._distances(REFERENCE, built[REFERENCE], judged, opened)}
        for name, one in built.items():
            if name not in found:
                found[name] = self._distances(name, one, judged)
        logits.unlink(missing_ok=True)
        speeds = self._speeds(built)
        rows = tuple(_row(name, one, *found[name], speeds[name]) for name, one in built.items())
        machine = Machine.here(variants[0].profile.session.intra_op_num_threads)
        settings = {
            "source_sha256": self._source.sha256,
            "tokens": {"origin": origin, "sha256": tokens_sha256, "sequences": len(some)},
            "positions": {"scoring": sum(t.positions for t in some), "decode": sum(t.positions for t in front)},
            "rounds": self._options.rounds,
            "prompt_tokens": self._options.prompt_tokens,
            "new_tokens": self._options.new_tokens,
            "machine": asdict(machine),
        }
        return Comparison(label, rows, tuple(left_out), settings)

    def _texts(self, model: Model) -> tuple[list[Text], str, str]:
        options = self._options
        if options.tokens is not None:
            traces = from_file_for(model, Path(options.tokens), length=_SEQUENCE)
        else:
            # Prompts are not predicted: twice the tokens leave enough of the replies.
            count = max(4, -(-2 * options.max_tokens // _SEQUENCE))
            traces = self_generated(
                model, sequences=count, length=_SEQUENCE, seed=options.seed, progress=self._progress
            )
        some = quality.texts(traces.sequences, traces.prompt_tokens, options.max_tokens)
        return some, traces.origin, traces.sha256

    def _reference(self, reference: Built, opened: _Open, some: Sequence[Text], tokens: str) -> Path:
        """The file of the reference's logits."""
        model, session = opened
        vocabulary = session.info.vocab_size
        needed = 4 * vocabulary * sum(text.positions for text in some)
        key = hashlib.sha256(f"{reference.key} {tokens} {needed}".encode()).hexdigest()[:16]
        path = self._directory / f"reference-{key}.logits"
        if path.is_file() and path.stat().st_size == needed:
            return path
        for old in self._directory.glob("reference-*.logits"):
            if re.fullmatch(r"reference-[0-9a-f]{16}\.logits", old.name):  # --keep names a directory of the user's
                old.unlink()
        free = shutil.disk_usage(self._directory).free
        if needed + _RESERVE > free:
            raise BudgetError(
                f"The reference's logits need {needed / 1e9:.2f} GB of disk in {self._directory}; "
                f"{free / 1e9:.2f} GB are free.",
                hint="Lower --max-tokens, or choose another disk with --keep.",
            )
        quality.store(path, session, some, chunk=model.prefill_chunk, progress=self._progress)
        return path

    def _distances(
        self, name: str, built: Built, judged: _Judged, opened: _Open | None = None
    ) -> tuple[Quality, Quality]:
        """Along both paths, by one opening of the bundle, or by none where both are known."""
        keys = [
            f"quality {built.key} {judged.sha256} {sum(text.positions for text in some)} {path}"
            for path, some in (("scoring", judged.some), ("decode", judged.front))
        ]
        found = [self._stored(key) for key in keys]
        if None in found:
            with _opened(built.path) if opened is None else nullcontext(opened) as (model, session):
                for at, some in enumerate((judged.some, judged.front)):
                    if found[at] is None:
                        found[at] = one = quality.compare(
                            judged.logits, session, some, steps=bool(at), name=name, chunk=model.prefill_chunk,
                            progress=self._progress,
                        )  # fmt: skip
                        self._keep(keys[at], one.to_dict())
        scoring, decode = found
        assert scoring is not None
        assert decode is not None
        return scoring, decode

    def _stored(self, key: str) -> Quality | None:
        with contextlib.suppress(KeyError, TypeError):
            return Quality(**self._known[key])
        return None

    def _speeds(self, built: dict[str, Built]) -> dict[str, list[_Round]]:
        """Rounds of all bundles in turn, each measurement in a process of its own, every other round backwards."""
        options = self._options
        rounds: dict[str, list[_Round]] = {name: [] for name in built}
        for index in range(options.rounds):
            for name in sorted(built, reverse=bool(index % 2)):
                key = f"measured {built[name].key} {options.prompt_tokens} {options.new_tokens} round {index}"
                if key not in self._known:
                    self._keep(key, self._measure(built[name].path))
                rounds[name].append(self._known[key])
        return rounds

    def _measure(self, path: Path) -> _Round:
        context = Bundle.open(path).manifest.model.context_length
        new = min(self._options.new_tokens, context // 4)
        prompt = min(self._options.prompt_tokens, context // 2)
        found = bench(path, prompt_tokens=prompt, new_tokens=new, rounds=1, progress=self._progress)
        return {
            "decode_tps": found.decode.median,
            "prefill_tps": found.prefill[0].median,
            "rss_bytes": float(found.peak_rss_bytes),
            "private_bytes": None if found.private_loaded_bytes is None else float(found.private_loaded_bytes),
        }

    def _keep(self, key: str, value: Any) -> None:
        self._known[key] = value
        write_whole(self._results, json.dumps(self._known))


@contextmanager
def _opened(path: Path) -> Iterator[_Open]:
    with open_bundle(path) as model:
        if not isinstance(model.session, DecoderSession):
            raise UsageError(f"{path.name} was made by the fallback exporter; its formats cannot be compared.")
        yield model, model.session


def _row(name: str, built: Built, scoring: Quality, decode: Quality, rounds: list[_Round]) -> Row:
    bundle = Bundle.open(built.path)

    def spread(key: str) -> Spread | None:
        values = tuple(value for one in rounds if (value := one[key]) is not None)
        return Spread(values) if values else None

    return Row(
        name=name,
        reference=name == REFERENCE,
        bits_per_weight=bundle.manifest.bits_per_weight,
        file_bytes=bundle.size,
        kv_bytes_per_token=bundle.manifest.kv_cache.bytes_per_token,
        fits=built.fits,
        scoring=scoring,
        decode=decode,
        decode_tps=spread("decode_tps"),
        prefill_tps=spread("prefill_tps"),
        rss_bytes=spread("rss_bytes"),
        private_bytes=spread("private_bytes"),
        private_predicted_bytes=int(bundle.manifest.predicted["weights_private"]),
        bundle=built.path.name,
    )
