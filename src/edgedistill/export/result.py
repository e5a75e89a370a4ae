"""What an exporter hands to the rest of the pipeline, whichever exporter it was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from edgedistill.bundle.manifest import Signature
    from edgedistill.quantize.plan import Plan


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
    def kv_bytes_per_token(self, itemsize: float = 4) -> int: ...


@dataclass(frozen=True, slots=True)
class Made:
    """Graphs and weights are written; this is what they are.

    ``planned`` lists the weights and their formats, ``signature`` the graph's inputs, ``predicted`` the budget that was
    checked before (empty where none could be made), ``weights_seconds`` the time of reading, quantizing and writing,
    ``calibration`` what the weights were calibrated with (empty: they were not).
    """

    geometry: Geometry
    planned: Plan
    context_length: int
    signature: Signature
    predicted: dict[str, Any]
    weights_seconds: float
    reused_weights: int
    calibration: dict[str, Any] = field(default_factory=dict)
