"""manifest.json: what a bundle contains, where it came from and how it was made, as typed data.

The classes are its schema (see ``schema.py``), bounds included; a reader refuses a newer one rather than guess.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from edgedistill.catalog.reasoning import ReasoningGrammar  # noqa: TC001 - the schema reads annotations
from edgedistill.errors import BundleError
from edgedistill.quantize.spec import KV_BITS, WeightFormat
from edgedistill.safe_text import FILE_NAME
from edgedistill.schema import Form, limits

SCHEMA_VERSION = 1
MAX_LAYERS = 1024
MAX_HEAD_DIM = 1024
MAX_VOCABULARY = 4 << 20
MAX_HIDDEN = 1 << 17
MAX_CONTEXT = 1 << 24
"""More than any model of the kinds that are exported has; what follows loops over some of them."""

FORM = Form(BundleError, hint="Copy the bundle again or export it again.", max_bytes=64 << 20)
Signature = Literal["edgedistill", "optimum"]
FileName = Annotated[str, limits(pattern=FILE_NAME, most=255, words="the name of a file in the bundle")]
Sha256 = Annotated[str, limits(pattern="[0-9a-f]{64}|", words="a SHA-256 in hex, empty while a bundle is written")]
Count = Annotated[int, limits(low=0)]
Size = Annotated[float, limits(low=0)]
TokenId = Annotated[int, limits(low=0, high=MAX_VOCABULARY)]


class _Adapter(TypedDict, total=False):
    name: str


class _Source(TypedDict, total=False):
    kind: str
    name: str
    revision: str | None
    sha256: str | None
    license: str | None
    adapter: _Adapter | None


class _Target(TypedDict, total=False):
    ram_gb: Annotated[float, limits(above=0, high=1e6)]


class _Session(TypedDict, total=False):
    execution_provider: str
    intra_op_num_threads: Annotated[int, limits(low=0, high=1024)]
    allow_spinning: bool
    graph_optimization_level: Literal["disable", "basic", "extended", "layout", "all"]


class _Context(TypedDict, total=False):
    length: Annotated[int, limits(low=1, high=MAX_CONTEXT)]
    kv_step: Annotated[int, limits(low=1, high=MAX_CONTEXT)]
    prefill_chunk: Annotated[int, limits(low=2, high=1 << 16)]


class _Profile(TypedDict, total=False):
    name: str
    target: _Target
    session: _Session
    context: _Context
    verify: dict[str, Size]


class _Speed(TypedDict, total=False):
    decode_tps: dict[str, Size]
    prefill_tps: dict[str, Size]


class _Predicted(TypedDict, total=False):
    file_bytes: Count
    ram_bytes: Count
    weights_private: Count
    weights_mapped: Count
    weights_reclaimable: Count
    weights_opening: Count
    kv_bytes: Count
    activation_bytes: Count
    logits_bytes: Count
    base_bytes: Count
    decode_tps: Size
    prefill_tps: Size
    speed: _Speed


class _Check(TypedDict, total=False):
    prompt: str
    text: str
    tokens: list[TokenId]


class _Interval(TypedDict):
    low: float | None
    high: float | None


class _Estimate(TypedDict, total=False):
    value: float | None
    interval: _Interval | None


class _Suite(TypedDict, total=False):
    name: str
    sha256: str


class _Verification(TypedDict, total=False):
    status: str
    reason: str
    not_recorded: str
    suite: _Suite
    prompts: Count
    samples: Count
    accuracy: _Estimate | None
    agreement: _Estimate | None
    entropy_bits: _Estimate | None
    certain: bool
    outcome: str | None
    reference: str | None


class _Divergence(TypedDict):
    kl: float


class _Tuning(TypedDict):
    before: _Divergence
    after: _Divergence
    best_step: Count


class _Distance(TypedDict):
    kl: Size
    top1: Annotated[float, limits(low=0, high=1)]
    tokens: Count


class _Gptq(TypedDict, total=False):
    sequential: bool


class _Calibration(TypedDict):
    tokens: Count
    sequences: Count
    origin: str
    gptq: NotRequired[_Gptq]


class _Choice(TypedDict):
    budget: dict[str, float]
    predicted_kl: float
    weights: dict[str, Any]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: ``name`` relative to the bundle, ``size`` in bytes, ``sha256`` in hex."""

    name: FileName
    size: Count
    sha256: Sha256


@dataclass(frozen=True, slots=True)
class WeightEntry:
    """One weight of the plan: logical ``name``, ``shape`` [N, K] or [N], stored ``format`` and ``nbytes``."""

    name: str
    shape: tuple[Annotated[int, limits(low=1, high=1 << 40)], ...]
    format: WeightFormat
    nbytes: Count

    def __post_init__(self) -> None:
        if len(self.shape) not in (1, 2) or (len(self.shape) == 1 and not self.format.is_float):
            raise ValueError(f"{self.name} has {len(self.shape)} dimensions in {self.format.label()}")


@dataclass(frozen=True, slots=True)
class StateEntry:
    """A state of a recurrent layer: ``name`` (``3.conv``: of layer 3) and its shape for one sequence, in float32."""

    name: Annotated[str, limits(pattern=r"(0|[1-9][0-9]{0,3})\.[a-z]{1,16}")]
    shape: tuple[Annotated[int, limits(low=1, high=MAX_HIDDEN)], ...] = field(metadata=limits(most=4))


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Geometry and special ids that a runtime needs.

    ``states`` are those of the layers that have no keys and values. Where layers differ, ``head_dims`` has the size of
    a head of each one, and ``keys_of`` the layer whose keys and values each one reads. ``signature`` names the graph's
    inputs: ``edgedistill`` (own exporter) or ``optimum`` (fallback exporter). ``context_length`` is the most tokens
    (prompt and output together) that the bundle's position tables cover.
    """

    family: str
    hidden_size: int = field(metadata=limits(low=1, high=MAX_HIDDEN))
    num_hidden_layers: int = field(metadata=limits(low=1, high=MAX_LAYERS))
    num_attention_heads: int = field(metadata=limits(low=1, high=MAX_HIDDEN))
    num_key_value_heads: int = field(metadata=limits(low=1, high=MAX_HIDDEN))
    head_dim: int = field(metadata=limits(low=1, high=MAX_HEAD_DIM))
    vocab_size: int = field(metadata=limits(low=1, high=MAX_VOCABULARY))
    context_length: int = field(metadata=limits(low=1, high=MAX_CONTEXT))
    eos_token_ids: tuple[TokenId, ...]
    bos_token_id: TokenId | None
    pad_token_id: TokenId | None
    add_bos: bool
    signature: Signature = "edgedistill"
    states: tuple[StateEntry, ...] = field(default=(), metadata=limits(most=4 * MAX_LAYERS))
    head_dims: tuple[Annotated[int, limits(low=1, high=MAX_HEAD_DIM)], ...] = ()
    keys_of: tuple[Annotated[int, limits(low=0, high=MAX_LAYERS)], ...] = ()

    def __post_init__(self) -> None:
        if not {len(self.head_dims), len(self.keys_of)} <= {0, self.num_hidden_layers}:
            raise ValueError(f"head_dims or keys_of have another length than the {self.num_hidden_layers} layers")
        if any(self.keys_of[maker] != maker for maker in self.keys_of if maker < len(self.keys_of)) or any(
            maker > index for index, maker in enumerate(self.keys_of)
        ):
            raise ValueError("keys_of names a layer that has no keys of its own")

    @property
    def attention_layers(self) -> tuple[int, ...]:
        """Indices of the layers that have keys and values of their own."""
        without = {int(state.name.partition(".")[0]) for state in self.states} | {layer for layer, _ in self.readers}
        return tuple(index for index in range(self.num_hidden_layers) if index not in without)

    @property
    def readers(self) -> tuple[tuple[int, int], ...]:
        """Layers that read another's keys and values, and which."""
        return tuple((layer, maker) for layer, maker in enumerate(self.keys_of) if layer != maker)

    @property
    def cache_head_dims(self) -> tuple[int, ...]:
        """Elements of a head of each of the ``attention_layers``."""
        return tuple(self.head_dims[index] if self.head_dims else self.head_dim for index in self.attention_layers)

    @property
    def is_uniform(self) -> bool:
        """Whether every layer reads the one before it and a cache of one shape: what other programs feed."""
        return not (self.states or self.head_dims or self.keys_of)

    @property
    def state_bytes(self) -> int:
        """Bytes of the states of one sequence."""
        return sum(4 * math.prod(state.shape) for state in self.states)


@dataclass(frozen=True, slots=True)
class KVCacheInfo:
    """KV cache: element type and bytes per token over all layers.

    Of a quantized one also the ``scales`` (per-channel or per-tensor), the ``margin`` above the calibrated maxima, and
    how many tokens of which ``calibration`` they come from. onnxruntime-genai's graph has a float32 cache.
    """

    dtype: str = field(metadata=limits(choices=tuple(KV_BITS)))
    bytes_per_token: int = field(metadata=limits(low=0, high=1 << 40))
    scales: str | None = None
    margin: float | None = None
    calibration: str | None = None
    calibration_tokens: Count = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole manifest; field by field what manifest.json holds.

    ``source``, ``profile``, ``tool``, ``check``, ``predicted``, ``calibration`` (of the weights), ``choice`` (of
    formats under a budget), ``tuning`` (what training of scales gained), ``verification`` (the short look that followed
    the export) and ``distance`` (from the original's output, on held-out text) are JSON objects written by their own
    modules; the last five are empty if there was none.
    ``reasoning``: the marks of the model's reasoning; None in bundles of versions that did not look for them.
    """

    created: str
    tool: dict[str, str]
    source: dict[str, Any] = field(metadata=limits(schema=_Source))
    profile: dict[str, Any] = field(metadata=limits(schema=_Profile))
    model: ModelInfo
    kv_cache: KVCacheInfo
    parameters: Count
    bits_per_weight: Size
    weights: tuple[WeightEntry, ...] = field(metadata=limits(most=1 << 17))
    files: tuple[FileEntry, ...] = field(metadata=limits(most=4096))
    predicted: dict[str, Any] = field(default_factory=dict, metadata=limits(schema=_Predicted))
    check: dict[str, Any] = field(default_factory=dict, metadata=limits(schema=_Check))
    verification: dict[str, Any] = field(default_factory=dict, metadata=limits(schema=_Verification))
    tuning: dict[str, Any] = field(default_factory=dict, metadata=limits(schema=_Tuning))
    calibration: dict[str, Any] = field(default_factory=dict, metadata=limits(schema=_Calibration))
    choice: dict[str, Any] = field(default_factory=dict, metadata=limits(schema=_Choice))
    distance: dict[str, Any] = field(default_factory=dict, metadata=limits(schema=_Distance))
    reasoning: ReasoningGrammar | None = None
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """Canonical text: keys in order of declaration, two spaces, a final newline."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str | bytes) -> Manifest:
        """Parse and check; raises BundleError on malformed text, a newer schema or missing fields."""
        raw = FORM.parse(text, "manifest.json")
        version = raw.get("schema_version") if isinstance(raw, dict) else None
        if not isinstance(version, int) or isinstance(version, bool):
            raise BundleError(
                "manifest.json has no schema_version; expected the manifest of an edgedistill bundle.",
                hint="Copy or export it again.",
            )
        if version > SCHEMA_VERSION:
            raise BundleError(
                f"The bundle has manifest schema {version}; this version of edgedistill reads up to {SCHEMA_VERSION}.",
                hint="Install the version of edgedistill that made it, or a newer one.",
            )
        return FORM.decode(Manifest, raw, "manifest.json")
