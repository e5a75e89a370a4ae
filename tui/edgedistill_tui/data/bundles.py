"""The list of known bundles (opened or exported before, or in the current directory), and the settings of each."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgedistill.atomic_file import write_whole
from edgedistill.bundle.bundle import MANIFEST, Bundle
from edgedistill.bundle.staging import remove_bundle
from edgedistill.bundle.verification_record import sentence
from edgedistill.errors import BundleError, EdgedistillError, OutputError
from edgedistill.schema import Form
from edgedistill.units import format_bytes, format_count

REMEMBERED = 100
FORM = Form(OutputError, max_bytes=1 << 20)


@dataclass(frozen=True, slots=True)
class _Uses:
    uses: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Kept:
    """Settings of the last conversation with a bundle."""

    settings: dict[str, Any]
    system: str


@dataclass(frozen=True, slots=True)
class _AllKept:
    kept: dict[str, _Kept]


@dataclass(frozen=True, slots=True)
class Known:
    """A bundle as a list shows it. ``problem``: why it cannot be opened; the other fields are then empty."""

    path: Path
    used: float
    bundle: Bundle | None
    problem: str = ""

    @property
    def name(self) -> str:
        """Its directory's name."""
        return self.path.name


class Registry:
    """A JSON file with paths and times of last use, and one beside it with settings.

    Args:
        path: The file.
        cwd: Directory in which bundles are searched, too; None: the current one.
    """

    def __init__(self, path: Path, cwd: Path | None = None) -> None:
        self.path = path
        self._cwd = cwd

    @property
    def home(self) -> Path:
        """Directory of bundles that the UI makes itself."""
        return self.path.parent / "bundles"

    def remember(self, bundle: Path) -> None:
        """Put ``bundle`` at the top of the list. A file that cannot be written is ignored."""
        entries = self._entries() | {str(bundle.resolve()): time.time()}
        newest = sorted(entries.items(), key=lambda item: -item[1])[:REMEMBERED]
        self._write(dict(newest))

    def forget(self, bundle: Path) -> None:
        """Take a bundle off the list; its files stay."""
        self._write({p: t for p, t in self._entries().items() if p != str(bundle.resolve())})

    def bundles(self) -> list[Known]:
        """Known bundles, the last used first; without paths that are gone, with those that cannot be opened."""
        entries = self._entries()
        for directory in (self._cwd or Path.cwd(), self.home):
            for found in _bundles_in(directory):
                entries.setdefault(str(found.resolve()), 0.0)
        known = [_known(Path(path), used) for path, used in entries.items() if Path(path).is_dir()]
        return sorted(known, key=lambda k: (-k.used, k.name))

    def settings_of(self, bundle: Path) -> tuple[dict[str, Any], str]:
        """Settings and system prompt that the user last chose with a bundle; empty: the bundle's own."""
        kept = self._kept().get(str(bundle.resolve()), _Kept({}, ""))
        return dict(kept.settings), kept.system

    def keep_settings(self, bundle: Path, settings: dict[str, Any], system: str) -> None:
        """Store settings and system prompt for new conversations with ``bundle``; both empty: use the bundle's own."""
        kept = self._kept()
        kept.pop(str(bundle.resolve()), None)
        if settings or system:
            kept[str(bundle.resolve())] = _Kept(settings, system)
        newest = list(kept.items())[-REMEMBERED:]
        self._write({path: asdict(one) for path, one in newest}, self._kept_path)

    @property
    def _kept_path(self) -> Path:
        return self.path.with_name("bundle-settings.json")

    def _kept(self) -> dict[str, _Kept]:
        try:
            return FORM.decode(
                _AllKept, {"kept": FORM.parse(FORM.read_file(self._kept_path), self._kept_path.name)}, ""
            ).kept  # fmt: skip
        except (FileNotFoundError, OutputError):
            return {}

    def delete(self, bundle: Path) -> None:
        """Remove a bundle, or a link to one; other files in its directory stay. Raises OutputError."""
        remove_bundle(bundle)
        self.forget(bundle)

    def _entries(self) -> dict[str, float]:
        try:
            return FORM.decode(_Uses, {"uses": FORM.parse(FORM.read_file(self.path), self.path.name)}, "").uses
        except (FileNotFoundError, OutputError):
            return {}

    def _write(self, entries: dict[str, Any], path: Path | None = None) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path or self.path, json.dumps(entries, indent=2))
        except OSError:
            return


def _bundles_in(directory: Path) -> list[Path]:
    try:
        inside = [directory, *(p for p in directory.iterdir() if p.is_dir() and not p.name.startswith("."))]
    except OSError:
        return []
    return [path for path in inside if (path / MANIFEST).is_file()]


def _known(path: Path, used: float) -> Known:
    try:
        return Known(path, used, Bundle.open(path))
    except BundleError as error:
        return Known(path, used, None, error.message)
    except (EdgedistillError, OSError) as error:
        return Known(path, used, None, str(error))


def describe(bundle: Bundle) -> list[tuple[str, str]]:
    """Facts about a bundle as (label, text)."""
    manifest = bundle.manifest
    model, target = manifest.model, manifest.profile.get("target", {})
    source = manifest.source
    rows = [
        ("path", str(bundle.path)),
        ("model", f"{model.family}, {format_count(manifest.parameters)} parameters, from {source.get('name', '?')}"),
        ("weights", f"{manifest.bits_per_weight:.2f} bits a weight: {_formats(bundle)}"),
        ("size", f"{format_bytes(bundle.size)} in {len(manifest.files)} files"),
        ("shape", f"{model.num_hidden_layers} layers, {model.hidden_size} wide, vocabulary {model.vocab_size:,}"),
        (
            "context",
            f"{model.context_length:,} tokens, KV cache {format_bytes(manifest.kv_cache.bytes_per_token)} each",
        ),
        ("profile", f"{manifest.profile.get('name', '?')}: {target.get('ram_gb', '?')} GB of memory for the model"),
        ("predicted", predicted_text(flat_predictions(manifest.predicted))),
        ("made", f"{manifest.created[:16].replace('T', ' ')} by edgedistill {manifest.tool.get('edgedistill', '?')}"),
    ]
    if "text" in manifest.check:
        answer = " ".join(str(manifest.check["text"]).split())
        rows.append(("trial", f"{answer!r} to {manifest.check.get('prompt', '')!r}"))
    rows.append(("verified", sentence(manifest.verification)))
    return rows


def flat_predictions(predicted: dict[str, Any]) -> dict[str, Any]:
    """The manifest's predictions with one rate each, that of the shortest context or prompt it was predicted for."""
    speed = predicted.get("speed")
    if not isinstance(speed, dict):
        return predicted
    rates = {}
    for name in ("decode_tps", "prefill_tps"):
        by_tokens = speed.get(name)
        if isinstance(by_tokens, dict) and by_tokens:
            rates[name] = by_tokens[min(by_tokens, key=int)]
    return predicted | rates


def predicted_text(predicted: dict[str, Any]) -> str:
    """The manifest's predictions in a line."""
    parts = []
    if memory := predicted.get("ram_bytes"):
        parts.append(f"{format_bytes(memory)} of memory")
    for key, name in (("decode_tps", "decode"), ("prefill_tps", "prefill")):
        if value := predicted.get(key):
            parts.append(f"{name} {float(value):,.0f} tok/s")
    return ", ".join(parts) or "–"


def _formats(bundle: Bundle) -> str:
    sizes: dict[str, int] = {}
    for weight in bundle.manifest.weights:
        name = weight.format.label()
        sizes[name] = sizes.get(name, 0) + weight.nbytes
    return ", ".join(name for name, _ in sorted(sizes.items(), key=lambda item: -item[1])) or "fp32"
