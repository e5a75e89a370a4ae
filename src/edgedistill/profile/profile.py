"""Hardware profiles: TOML files, data only, read into a frozen ``Profile``.

A profile says what the target machine has, how weights are stored, how sessions run, what generation defaults to and
what verification tolerates. ``profiles/README.md`` documents every key for people; the dataclasses below are the
schema.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edgedistill.catalog.reasoning import DEFAULT_GRAMMAR, with_tags
from edgedistill.errors import ProfileError
from edgedistill.json_codec import encode
from edgedistill.profile.files import FORM, profile_directories, read_profile_table
from edgedistill.quantize.plan import PREFILL, Rule, override, parse_format, solved
from edgedistill.quantize.spec import KV_BITS, WeightFormat
from edgedistill.schema import limits

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

DEFAULT_PROFILE = "laptop-cpu"
_FORM = replace(FORM, readers={WeightFormat: parse_format})

ISA_FLAGS = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "amx_int8",
    "neon",
    "dotprod",
    "i8mm",
    "sve",
)
"""Names of instruction sets, as ``system/processor.py`` detects them."""


@dataclass(frozen=True, slots=True)
class Target:
    """The machine that a bundle is for. Sizes in GB = 10^9 bytes.

    ``isa``: alternatives, of which the machine needs at least one. ``cpu``: patterns of the names of processors or
    boards, of which the machine's has to match one; empty: any. ``cores``: physical. ``ram_gb``: memory that the
    running model may take, of a machine whose whole memory is ``machine_ram_gb``. ``disk_gb``: largest bundle.
    ``memory_bandwidth_gbs``: of the machine's memory, in 10^9 bytes per second; bounds decoding from above.
    """

    isa: tuple[str, ...] = field(metadata=limits(choices=ISA_FLAGS))
    cores: int = field(metadata=limits(low=1, high=1024))
    machine_ram_gb: float = field(metadata=limits(above=0))
    ram_gb: float = field(metadata=limits(above=0))
    disk_gb: float = field(metadata=limits(above=0))
    memory_bandwidth_gbs: float | None = field(default=None, metadata=limits(above=0))
    cpu: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Session:
    """Options of the ONNX Runtime session. ``intra_op_num_threads`` 0: one per physical core, never more."""

    execution_provider: str = field(default="CPUExecutionProvider", metadata=limits(choices=("CPUExecutionProvider",)))
    intra_op_num_threads: int = field(default=0, metadata=limits(low=0, high=1024))
    allow_spinning: bool = True
    graph_optimization_level: str = field(
        default="all", metadata=limits(choices=("disable", "basic", "extended", "layout", "all"))
    )


@dataclass(frozen=True, slots=True)
class Context:
    """Lengths in tokens: ``length`` prompt and answer together, ``kv_step`` growth of the cache, ``prefill_chunk``."""

    length: int = field(default=4096, metadata=limits(low=16, high=1 << 20))
    kv_step: int = field(default=256, metadata=limits(low=1, high=1 << 20))
    prefill_chunk: int = field(default=256, metadata=limits(low=2, high=1 << 16))


@dataclass(frozen=True, slots=True)
class Weights:
    """Formats of weight matrices: the first of ``rules`` that matches, else ``default``. Vectors stay float32.

    ``smoothing``: share of the outliers in activations that W8A8 matrices take over; 0: none. ``prefill``: format of a
    second form of the layers' matrices, for steps of several tokens; None: one form for everything. ``candidates``:
    formats to choose from under a budget; empty: those of ``export.mixed_precision.choose``.
    """

    default: WeightFormat
    rules: tuple[Rule, ...] = ()
    smoothing: float = field(default=0.5, metadata=limits(low=0, high=1))
    prefill: WeightFormat | None = None
    candidates: tuple[WeightFormat, ...] = ()

    @property
    def formats(self) -> tuple[WeightFormat, ...]:
        """Every format that a weight may get."""
        return (self.default, *(rule.format for rule in self.all_rules))

    @property
    def all_rules(self) -> tuple[Rule, ...]:
        """The rules, and before them the one that gives the second form its format."""
        return self.rules if self.prefill is None else (Rule(f"{PREFILL}*", self.prefill), *self.rules)


@dataclass(frozen=True, slots=True)
class KvCache:
    """``dtype`` of keys and values; ``scales`` of a quantized cache: one per channel, or one per layer."""

    dtype: str = field(default="float32", metadata=limits(choices=tuple(KV_BITS)))
    scales: str = field(default="per-channel", metadata=limits(choices=("per-channel", "per-tensor")))

    @property
    def bits(self) -> int:
        """Bits per element."""
        return KV_BITS[self.dtype]

    @property
    def itemsize(self) -> float:
        """Bytes per element."""
        return self.bits / 8

    @property
    def is_quantized(self) -> bool:
        """Whether the cache needs scales."""
        return self.bits < 32


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """Sampling defaults of a bundle. ``temperature`` 0: greedy; ``top_k`` 0, ``top_p`` 1, ``min_p`` 0: off."""

    temperature: float = field(default=0.6, metadata=limits(low=0, high=10))
    top_p: float = field(default=0.95, metadata=limits(above=0, high=1))
    top_k: int = field(default=20, metadata=limits(low=0))
    min_p: float = field(default=0.0, metadata=limits(low=0, high=1))
    repetition_penalty: float = field(default=1.0, metadata=limits(above=0, high=10))
    max_new_tokens: int = field(default=2048, metadata=limits(low=1))
    seed: int | None = field(default=None, metadata=limits(low=0, high=(1 << 63) - 1))
    speculate: str = field(default="identical", metadata=limits(choices=("auto", "off", "identical")))


@dataclass(frozen=True, slots=True)
class VerifyMargins:
    """Largest damage that verification lets pass, against the reference.

    ``accuracy``: loss of accuracy (share). ``agreement``: change of the agreement C, either way. ``entropy_bits``:
    change of the answer entropy in bits, either way. ``length_ratio``: mean tokens over the reference's.
    ``truncation``: rise of the share of truncated or unparsed answers. ``distance``: squared distance of the answer
    distributions, 0 to 2; .05 is as if one prompt in forty had another answer. ``shorter_ratio``: least tokens over the
    reference's; 0: no limit.
    """

    accuracy: float = field(default=0.02, metadata=limits(low=0, high=1))
    agreement: float = field(default=0.05, metadata=limits(low=0, high=1))
    entropy_bits: float = field(default=0.10, metadata=limits(low=0, high=64))
    length_ratio: float = field(default=1.15, metadata=limits(low=1, high=100))
    truncation: float = field(default=0.02, metadata=limits(low=0, high=1))
    distance: float = field(default=0.05, metadata=limits(low=0, high=2))
    shorter_ratio: float = field(default=0.0, metadata=limits(low=0, high=1))


@dataclass(frozen=True, slots=True)
class Profile:
    """A whole profile. ``verified_on`` names the machine it was run on; empty: not run on this hardware.

    ``reasoning_tags``: the texts that open and close reasoning; empty: those that the model's files speak of.
    """

    name: str
    description: str
    target: Target
    weights: Weights
    verified_on: str = ""
    session: Session = field(default_factory=Session)
    context: Context = field(default_factory=Context)
    kv_cache: KvCache = field(default_factory=KvCache)
    generation: GenerationDefaults = field(default_factory=GenerationDefaults)
    verify: VerifyMargins = field(default_factory=VerifyMargins)
    reasoning_tags: tuple[str, ...] = ()

    @property
    def tested(self) -> bool:
        """Whether the profile was run on the hardware it describes."""
        return bool(self.verified_on)

    def to_dict(self) -> dict[str, Any]:
        """The snapshot for a manifest: JSON-able, formats as text; ``from_dict`` reads it back."""
        snapshot: dict[str, Any] = encode(replace(self, weights=Weights(self.weights.default)))
        snapshot["weights"] = {
            "default": self.weights.default.label(),
            "rules": [{"match": rule.match, "format": rule.format.label()} for rule in self.weights.rules],
            "smoothing": self.weights.smoothing,
            "prefill": None if self.weights.prefill is None else self.weights.prefill.label(),
            "candidates": [fmt.label() for fmt in self.weights.candidates],
        }
        return snapshot

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], *, source: str = "profile snapshot") -> Profile:
        """Read a table of the same form as the TOML files, ``extends`` resolved. Raises ProfileError."""
        profile = _FORM.decode(cls, table, source)
        if not profile.target.isa:
            raise ProfileError(f"{source}: `target.isa` is empty; expected at least one of {', '.join(ISA_FLAGS)}.")
        if profile.reasoning_tags:
            try:
                with_tags(DEFAULT_GRAMMAR, profile.reasoning_tags)
            except ValueError as error:
                raise ProfileError(f"{source}: `reasoning_tags`: {error}.") from error
        if profile.target.ram_gb > profile.target.machine_ram_gb:
            raise ProfileError(
                f"{source}: `target.ram_gb` is {profile.target.ram_gb:g}, more than `target.machine_ram_gb` "
                f"{profile.target.machine_ram_gb:g}; expected at most as much."
            )
        if profile.context.prefill_chunk > profile.context.length:
            raise ProfileError(
                f"{source}: `context.prefill_chunk` is {profile.context.prefill_chunk}, more than `context.length` "
                f"{profile.context.length}; expected at most as much."
            )
        return profile

    def with_overrides(
        self,
        *,
        weight_format: WeightFormat | None = None,
        block_size: int | None = None,
        context_length: int | None = None,
        kv_cache: str | None = None,
        prefill: WeightFormat | None = None,
        calibrated: bool = False,
    ) -> Profile:
        """The profile after ``--format``, ``--block-size``, ``--context`` and ``--kv-cache``; see
        ``quantize.plan.override``. ``calibrated`` has calibration data decide where scale search would.

        Raises:
            UsageError: a block size that is not supported or has nothing to apply to.
            ProfileError: a context length out of range, or a KV cache of an unknown type.
        """
        default, rules = override(
            self.weights.default, self.weights.rules, weight_format=weight_format, block_size=block_size
        )
        if calibrated:
            default, rules = solved(default), tuple(Rule(rule.match, solved(rule.format)) for rule in rules)
        table = replace(
            self, weights=replace(self.weights, default=default, rules=rules, prefill=prefill or self.weights.prefill)
        ).to_dict()
        if context_length is not None:
            table["context"]["length"] = context_length
            table["context"]["prefill_chunk"] = max(2, min(self.context.prefill_chunk, context_length))
        if kv_cache is not None:
            table["kv_cache"]["dtype"] = kv_cache
        return Profile.from_dict(table, source="command line")


@dataclass(frozen=True, slots=True)
class ProfileEntry:
    """One line of ``profiles list``. ``error`` is set, and the rest empty, for a file that does not load."""

    name: str
    origin: str
    path: Path
    description: str = ""
    verified_on: str = ""
    error: str | None = None


def load_profile(name_or_path: str | Path) -> Profile:
    """Load a profile by name (user directory, then built-in) or by path (anything with ``.toml`` or a separator).

    Raises:
        ProfileError: no such profile (with the nearest name), malformed TOML (with the line), unknown key, wrong type
            or value, a cycle of ``extends``.
    """
    path, table = read_profile_table(str(name_or_path))
    return Profile.from_dict(table, source=str(path))


def list_profiles() -> tuple[ProfileEntry, ...]:
    """All profiles by name, the user's before a built-in of the same name; broken files carry their error."""
    entries: dict[str, ProfileEntry] = {}
    for origin, directory in profile_directories():
        for path in sorted(directory.glob("*.toml")):
            if path.stem in entries:
                continue
            try:
                profile = load_profile(path)
            except ProfileError as error:
                entries[path.stem] = ProfileEntry(path.stem, origin, path, error=str(error))
            else:
                entries[path.stem] = ProfileEntry(path.stem, origin, path, profile.description, profile.verified_on)
    return tuple(entries[name] for name in sorted(entries))


def usable_profiles() -> Iterator[Profile]:
    """The profiles of ``list_profiles`` that load; none is read before the first is asked for."""
    yield from (load_profile(entry.path) for entry in list_profiles() if entry.error is None)
