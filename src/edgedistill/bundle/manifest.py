"""manifest.json: what a bundle contains, where it came from and how it was made, as typed data.

The schema is versioned; a reader refuses a newer one rather than guess. See docs in README, "The bundle".
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from edgedistill.errors import BundleError
from edgedistill.quantize.spec import WeightFormat

SCHEMA_VERSION = 1
Signature = Literal["edgedistill", "optimum"]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: ``name`` relative to the bundle, ``size`` in bytes, ``sha256`` in hex."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class WeightEntry:
    """One weight of the plan: logical ``name``, ``shape`` [N, K] or [N], stored ``format`` and ``nbytes``."""

    name: str
    shape: tuple[int, ...]
    format: WeightFormat
    nbytes: int


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Geometry and special ids that a runtime needs.

    ``signature`` names the graph's inputs: ``edgedistill`` (own exporter) or ``optimum`` (fallback exporter).
    ``context_length`` is the most tokens (prompt and output together) that the bundle's position tables cover.
    """

    family: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    context_length: int
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None
    pad_token_id: int | None
    add_bos: bool
    signature: Signature = "edgedistill"


@dataclass(frozen=True, slots=True)
class KVCacheInfo:
    """KV cache: element type and bytes per token over all layers.

    Of a quantized one also the ``scales`` (per-channel or per-tensor), the ``margin`` above the calibrated maxima, and
    how many tokens of which ``calibration`` they come from. onnxruntime-genai's graph has a float32 cache.
    """

    dtype: str
    bytes_per_token: int
    scales: str | None = None
    margin: float | None = None
    calibration: str | None = None
    calibration_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole manifest; field by field what manifest.json holds.

    ``source``, ``profile``, ``tool``, ``check``, ``predicted``, ``calibration`` (of the weights), ``choice`` (of
    formats under a budget), ``tuning`` (what training of scales gained) and ``verification`` (the short look that
    followed the export) are JSON objects written by their own modules; the last four are empty if there was none.
    """

    created: str
    tool: dict[str, str]
    source: dict[str, Any]
    profile: dict[str, Any]
    model: ModelInfo
    kv_cache: KVCacheInfo
    parameters: int
    bits_per_weight: float
    weights: tuple[WeightEntry, ...]
    files: tuple[FileEntry, ...]
    predicted: dict[str, Any] = field(default_factory=dict)
    check: dict[str, Any] = field(default_factory=dict)
    verification: dict[str, Any] = field(default_factory=dict)
    tuning: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    choice: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """Canonical text: keys in order of declaration, two spaces, a final newline."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str) -> Manifest:
        """Parse and check; raises BundleError on malformed text, a newer schema or missing fields."""
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise BundleError(f"manifest.json is not valid JSON ({error}).", hint="Export the bundle again.") from error
        if not isinstance(raw, dict) or not isinstance(raw.get("schema_version"), int):
            raise BundleError("manifest.json has no schema_version.", hint="Is this an edgedistill bundle?")
        version = cast("int", raw["schema_version"])
        if version > SCHEMA_VERSION:
            raise BundleError(
                f"The bundle has manifest schema {version}; this version of edgedistill reads up to {SCHEMA_VERSION}.",
                hint="Upgrade with: pip install --upgrade edgedistill",
            )
        try:
            return _from_dict(raw)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(
                f"manifest.json is incomplete or malformed ({type(error).__name__}: {error}).",
                hint="Export the bundle again.",
            ) from error


def _from_dict(raw: dict[str, Any]) -> Manifest:
    model = dict(raw["model"])
    model["eos_token_ids"] = tuple(int(i) for i in model["eos_token_ids"])
    return Manifest(
        created=str(raw["created"]),
        tool=dict(raw["tool"]),
        source=dict(raw["source"]),
        profile=dict(raw["profile"]),
        model=ModelInfo(**model),
        kv_cache=KVCacheInfo(**raw["kv_cache"]),
        parameters=int(raw["parameters"]),
        bits_per_weight=float(raw["bits_per_weight"]),
        weights=tuple(
            WeightEntry(str(w["name"]), tuple(w["shape"]), WeightFormat(**w["format"]), int(w["nbytes"]))
            for w in raw["weights"]
        ),
        files=tuple(FileEntry(str(f["name"]), int(f["size"]), str(f["sha256"])) for f in raw["files"]),
        predicted=dict(raw.get("predicted", {})),
        check=dict(raw.get("check", {})),
        calibration=dict(raw.get("calibration", {})),
        choice=dict(raw.get("choice", {})),
        verification=dict(raw.get("verification", {})),
        tuning=dict(raw.get("tuning", {})),
        schema_version=int(raw["schema_version"]),
    )
