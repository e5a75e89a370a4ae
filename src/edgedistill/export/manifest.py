"""Builds a bundle's manifest from the plan of an export and the files that it wrote."""

from __future__ import annotations

import dataclasses
import datetime
import platform
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any, Protocol

from edgedistill._version import __version__
from edgedistill.bundle.bundle import MANIFEST, hash_file
from edgedistill.bundle.manifest import FileEntry, KVCacheInfo, Manifest, ModelInfo, StateEntry, WeightEntry
from edgedistill.catalog.reasoning import with_tags
from edgedistill.checkpoint.types import grammar_of

if TYPE_CHECKING:
    from pathlib import Path

    from edgedistill.bundle.manifest import Signature
    from edgedistill.checkpoint.open import Checkpoint
    from edgedistill.profile.profile import Profile
    from edgedistill.progress import Progress
    from edgedistill.quantize.plan import Plan


def make_manifest(checkpoint: Checkpoint, profile: Profile, made: Made, source_hash: str) -> Manifest:
    """The manifest before its files are known."""
    geometry, special, grammar = made.geometry, checkpoint.special_tokens, grammar_of(checkpoint)
    return Manifest(
        created=now(),
        tool=tool_versions(),
        source={**dataclasses.asdict(checkpoint.source), "sha256": source_hash},
        profile=profile.to_dict(),
        model=ModelInfo(
            family=geometry.family,
            hidden_size=geometry.hidden_size,
            num_hidden_layers=geometry.num_hidden_layers,
            num_attention_heads=geometry.num_attention_heads,
            num_key_value_heads=geometry.num_key_value_heads,
            head_dim=geometry.head_dim,
            vocab_size=geometry.vocab_size,
            context_length=made.context_length,
            eos_token_ids=special.eos_token_ids,
            bos_token_id=special.bos_token_id,
            pad_token_id=special.pad_token_id,
            add_bos=special.add_bos,
            signature=made.signature,
            states=tuple(StateEntry(name, shape) for name, shape in geometry.states),
            head_dims=geometry.head_dims,
            keys_of=geometry.keys_of,
        ),
        kv_cache=KVCacheInfo(profile.kv_cache.dtype, geometry.kv_bytes_per_token(profile.kv_cache.itemsize)),
        parameters=made.planned.parameters,
        bits_per_weight=made.planned.bits_per_weight,
        weights=tuple(WeightEntry(w.weight_name, w.shape, w.format, w.nbytes) for w in made.planned.weights),
        files=(),
        predicted=made.predicted,
        calibration=made.calibration,
        reasoning=with_tags(grammar, profile.reasoning_tags) if profile.reasoning_tags else grammar,
    )


def with_files(directory: Path, manifest: Manifest, progress: Progress) -> Manifest:
    """The manifest with every file in ``directory`` (hidden ones and the manifest left out), sizes and hashes."""
    paths = sorted(p for p in directory.iterdir() if not p.name.startswith(".") and p.name != MANIFEST)
    sizes = {path: path.stat().st_size for path in paths}
    progress.begin("hashing files", sum(sizes.values()), "bytes")
    entries = tuple(FileEntry(path.name, sizes[path], hash_file(path, progress)) for path in paths)
    progress.end()
    return dataclasses.replace(manifest, files=entries)


def now() -> str:
    """The present time for a manifest: ISO 8601, UTC, whole seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def tool_versions() -> dict[str, str]:
    """Versions of this package, Python, and the packages that a bundle depends on."""
    versions = {"edgedistill": __version__, "python": platform.python_version()}
    for package in ("onnxruntime", "onnx", "onnx-ir", "numpy"):
        versions[package] = metadata.version(package)
    return versions


class Geometry(Protocol):
    """The sizes that a manifest records, under Hugging Face's names."""

    @property
    def family(self) -> str: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def num_hidden_layers(self) -> int: ...
    @property
    def num_attention_heads(self) -> int: ...
    @property
    def num_key_value_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def states(self) -> tuple[tuple[str, tuple[int, ...]], ...]: ...
    @property
    def head_dims(self) -> tuple[int, ...]: ...
    @property
    def keys_of(self) -> tuple[int, ...]: ...
    def kv_bytes_per_token(self, itemsize: float = 4) -> int: ...


@dataclass(frozen=True, slots=True)
class Made:
    """What an exporter has written: graphs and weights, before the other files of the bundle.

    Attributes:
        geometry: Sizes of the model.
        planned: The weights and their formats.
        context_length: In tokens.
        signature: Which inputs the graph has.
        predicted: Memory, size and speed that were predicted before; empty where they could not be.
        weights_seconds: Seconds of reading, quantizing and writing.
        reused_weights: Weights taken over from an interrupted run.
        calibration: What the weights were calibrated with; empty if they were not.
    """

    geometry: Geometry
    planned: Plan
    context_length: int
    signature: Signature
    predicted: dict[str, Any]
    weights_seconds: float
    reused_weights: int
    calibration: dict[str, Any] = field(default_factory=dict)
