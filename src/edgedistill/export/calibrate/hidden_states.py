"""Hidden states on their way through parts of a model: batches of sequences, files of states, sessions of parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.graph.parts import supplied

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import onnx_ir as ir
    import onnxruntime

    from edgedistill.architecture.spec import ModelSpec

    Floats = npt.NDArray[np.float32]
    Ids = npt.NDArray[np.int64]

BATCH_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Batch:
    """Some sequences: ``ids`` int64 [B, S] right-padded, ``lengths`` int32 [B], ``offset`` of their first token."""

    ids: Ids
    lengths: npt.NDArray[np.int32]
    offset: int

    @property
    def tokens(self) -> slice:
        """Where the tokens of these sequences lie among all."""
        return slice(self.offset, self.offset + int(self.lengths.sum()))

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """bool [B, S]: what is no padding."""
        return np.arange(self.ids.shape[1])[None, :] < self.lengths[:, None]

    def valid(self, values: Floats) -> Floats:
        """[tokens, size] of [B, S, size]."""
        return values[self.mask]

    def feeds(self, spec: ModelSpec, hidden: Floats) -> dict[str, npt.NDArray[Any]]:
        """Inputs of ``graph.parts.build_layer`` for hidden states float32 [B, S, H]."""
        batch, width = self.ids.shape
        cache = np.zeros((batch, spec.num_key_value_heads, width, spec.head_dim), np.float32)
        return {
            "hidden": hidden,
            "seqlens_k": self.lengths - 1,
            "query_seqlens": self.lengths,
            "total_sequence_length": np.array(width, np.int32),
            "past.key": cache,
            "past.value": cache,
        }


def batches(sequences: Sequence[Ids], limit: int = BATCH_TOKENS) -> Iterator[Batch]:
    """Sequences (longest first) in batches of about ``limit`` tokens, padding included."""
    start = offset = 0
    while start < len(sequences):
        width = len(sequences[start])
        rows = sequences[start : start + max(1, limit // width)]
        lengths = np.array([len(ids) for ids in rows], dtype=np.int32)
        # Padding repeats a real token: its embedding is known.
        padded = np.full((len(rows), width), rows[0][0], dtype=np.int64)
        for row, ids in enumerate(rows):
            padded[row, : len(ids)] = ids
        yield Batch(padded, lengths, offset)
        start += len(rows)
        offset += int(lengths.sum())


class Stream:
    """Hidden states of all tokens, float32 [tokens, H] in a file that is mapped into memory."""

    def __init__(self, path: Path, tokens: int, size: int) -> None:
        self._path = path
        self._map: Any = np.memmap(path, np.float32, "w+", shape=(tokens, size))

    def get(self, part: Batch) -> Floats:
        """float32 [B, S, H], zeros where there is padding."""
        out = np.zeros((*part.ids.shape, self._map.shape[1]), np.float32)
        out[part.mask] = self._map[part.tokens]
        return out

    def put(self, part: Batch, hidden: Floats) -> None:
        """Keep the states of a batch."""
        self._map[part.tokens] = hidden[part.mask]

    def remove(self) -> None:
        """Delete the file."""
        del self._map
        self._path.unlink(missing_ok=True)


def open_part(model: ir.Model, path: Path, *, threads: int, prepack: bool) -> onnxruntime.InferenceSession:
    """A session of a part of a model (see ``Part``), supplied with the matrices that its builder left out."""
    import onnx_ir
    import onnxruntime

    from edgedistill.runtime.bit_planes import widened_values

    onnx_ir.save(model, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = False
    # A part runs a few large steps: threads that wait actively between them gain nothing and slow the solving down.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    if not prepack:
        options.add_session_config_entry("session.disable_prepacking", "1")
    values = widened_values(path.parent, supplied(model), threads=threads)
    for name in values:
        options.add_initializer(name, values[name])
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])


class Part:
    """A session of a part of a model. It is fed only what its graph still has as inputs: parts that end early need
    fewer.

    Args:
        model: The part.
        path: Where its graph is written, beside the weights that it refers to; may be overwritten afterwards.
        threads: Of ONNX Runtime.
        prepack: False: matrices stay mapped from their file instead of being copied into memory (and run slower).
    """

    def __init__(self, model: ir.Model, path: Path, *, threads: int, prepack: bool = True) -> None:
        self._raw = open_part(model, path, threads=threads, prepack=prepack)
        self._names = {value.name for value in self._raw.get_inputs()}

    def run(self, outputs: list[str], feeds: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Values of ``outputs``."""
        found: list[npt.NDArray[Any]] = self._raw.run(
            outputs, {name: value for name, value in feeds.items() if name in self._names}
        )
        return found
