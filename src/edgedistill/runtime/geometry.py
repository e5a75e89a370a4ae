"""Sizes of a graph's KV cache, the names of its inputs, and what a decoder needs of a loaded graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import onnxruntime as ort

    from edgedistill.bundle.manifest import ModelInfo


@dataclass(frozen=True, slots=True)
class CacheGeometry:
    """Sizes that a cache is made of.

    ``limit`` is the most tokens per row (the model's position tables end there). ``dtype``: float32, int8, or uint8 for
    two 4-bit values in a byte.
    """

    layers: int
    heads: int
    head_dim: int
    limit: int
    dtype: str = "float32"

    @property
    def width(self) -> int:
        """Elements of the stored type per head and token."""
        return self.head_dim // 2 if self.dtype == "uint8" else self.head_dim

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token over all layers, keys and values."""
        return 2 * self.layers * self.heads * self.width * np.dtype(self.dtype).itemsize


def past_names(layers: int) -> list[str]:
    """Names of the cache inputs in the order of ``KVCache.buffers``: key and value of layer 0, of layer 1, ..."""
    return [f"past_key_values.{i}.{kind}" for i in range(layers) for kind in ("key", "value")]


class LoadedGraph(Protocol):
    """A graph that decoders run on; ``DecoderSession`` is one.

    ``raw`` decodes single tokens, ``wide`` serves exact steps and steps of several tokens (often the same session).
    """

    raw: ort.InferenceSession
    wide: ort.InferenceSession
    info: ModelInfo
    geometry: CacheGeometry
