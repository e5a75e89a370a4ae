"""Prepared runs of one shape: arrays that are allocated and bound once, over the buffers of a KV cache.

Past and present are the same buffers, so that a run copies no cache. A run that fails raises a user's error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from edgedistill.errors import GenerationError, OutOfMemoryError
from edgedistill.runtime.kv_cache import aligned_zeros, past_names

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgedistill.runtime.kv_cache import KVCache, LoadedGraph

    Ids = npt.NDArray[np.int64]
    Logits = npt.NDArray[np.float32]


class BoundRun:
    """Preallocated inputs and outputs of one (width, logit positions), bound to a cache's present buffers."""

    def __init__(self, session: LoadedGraph, cache: KVCache, width: int, positions: int, wide: bool) -> None:
        batch = cache.batch
        self.ids: Ids = np.zeros((batch, width), dtype=np.int64)
        self.seqlens_k = np.zeros(batch, dtype=np.int32)
        self.query_seqlens = np.zeros(batch, dtype=np.int32)
        self.logit_index: Ids = np.zeros((batch, positions), dtype=np.int64)
        self.logits: Logits = aligned_zeros((batch, positions, session.info.vocab_size))
        self.first: Logits = self.logits[0, -1] if positions else self.logits[0]
        self.total_width = batch * width
        self.state_seqlens = np.zeros(batch, dtype=np.int32)
        total = np.array(cache.capacity, dtype=np.int32)
        inputs: dict[str, npt.NDArray[Any]] = {
            "input_ids": self.ids,
            "seqlens_k": self.seqlens_k,
            "query_seqlens": self.query_seqlens,
            "total_sequence_length": total,
            "logit_index": self.logit_index,
        }
        geometry = session.geometry
        if geometry.states:
            inputs["state_seqlens"] = self.state_seqlens
        self.raw = session.wide if wide else session.raw
        self.binding = self.raw.io_binding()
        # Aliases keep no array alive: the arrays and the values live as long as this object, the cache's buffers until
        # its generation changes, when this object goes as well.
        self._kept: list[Any] = [total]
        for name, array in inputs.items():
            self._bind_input(name, array)
        bound = {}
        for name, buffer in zip(past_names(geometry.layers), cache.buffers, strict=True):
            bound[name] = value = self._bind_input(name, buffer)
            self.binding.bind_ortvalue_output(name.replace("past_key_values", "present"), value)
        # A layer that reads another's keys writes the same ones to the same place: no cache is copied for it either.
        for layer, maker in geometry.readers:
            for present, past in zip(past_names([layer]), past_names([maker]), strict=True):
                self.binding.bind_ortvalue_output(present.replace("past_key_values", "present"), bound[past])
        for (name, _), state in zip(geometry.states, cache.states.arrays, strict=True):
            value = self._bind_input(f"past_state.{name}", state)
            self.binding.bind_ortvalue_output(f"present_state.{name}", value)
        logits = ort.OrtValue.ortvalue_from_numpy(self.logits)
        self._kept.append(logits)
        self.binding.bind_ortvalue_output("logits", logits)

    def _bind_input(self, name: str, array: npt.NDArray[Any]) -> ort.OrtValue:
        value = ort.OrtValue.ortvalue_from_numpy(array)
        self._kept.append(value)
        self.binding.bind_ortvalue_input(name, value)
        return value


_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate memory", "Available memory of")
"""What allocators and kernels say: libstdc++ and libc++, Microsoft's library, the arena, an arena with a limit."""


def run_failure(error: Exception) -> GenerationError:
    """The error to raise from an exception of a run; onnxruntime has no type for memory that ran out."""
    if isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY):
        return OutOfMemoryError(
            "The memory ran out while tokens were computed.",
            hint="Close other programs, shorten the prompt, lower max_new_tokens or use fewer samples at a time.",
        )
    return GenerationError(f"ONNX Runtime failed: {first_line(error)}.")


def first_line(error: Exception) -> str:
    """First line of an exception's text, without its full stop."""
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
