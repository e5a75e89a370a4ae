"""Runs parts of a model (one layer, the embedding, the head) over hidden states instead of over tokens.

``batches`` groups token sequences, ``Stream`` keeps the hidden states of all tokens in a file, and ``Part`` is an ONNX
Runtime session of one part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.graph.parts import OUTPUT, supplied

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import onnx_ir as ir

    from edgedistill.architecture.spec import LogicalWeight, ModelSpec
    from edgedistill.checkpoint.types import TensorSource

    Floats = npt.NDArray[np.float32]
    Ids = npt.NDArray[np.int64]

BATCH_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Batch:
    """Some sequences: ``ids`` int64 [B, S] padded on the right, ``lengths`` int32 [B], and the ``offset`` of their
    first token among the tokens of all sequences."""

    ids: Ids
    lengths: npt.NDArray[np.int32]
    offset: int

    @property
    def tokens(self) -> slice:
        """Positions of these sequences among the tokens of all sequences."""
        return slice(self.offset, self.offset + int(self.lengths.sum()))

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """bool [B, S]: False at padding."""
        return np.arange(self.ids.shape[1])[None, :] < self.lengths[:, None]

    def valid(self, values: Floats) -> Floats:
        """``values`` float32 [B, S, size] without padding, [tokens, size]."""
        return values[self.mask]

    def feeds(self, spec: ModelSpec, hidden: Floats) -> dict[str, npt.NDArray[Any]]:
        """Inputs of ``graph.parts.build_layer`` for hidden states float32 [B, S, H]; ``spec`` has the layer's sizes."""
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

    def get(self, part: Batch, columns: slice = slice(None)) -> Floats:
        """The states of a batch, float32 [B, S, H], or those of their ``columns``; zeros at padding."""
        values = self._map[part.tokens, columns]
        out = np.zeros((*part.ids.shape, values.shape[1]), np.float32)
        out[part.mask] = values
        return out

    def put(self, part: Batch, hidden: Floats) -> None:
        """Store the states of a batch, float32 [B, S, H]."""
        self._map[part.tokens] = hidden[part.mask]

    def remove(self) -> None:
        """Delete the file."""
        del self._map
        self._path.unlink(missing_ok=True)


def embedding_rows(embed: LogicalWeight, source: TensorSource, ids: Ids) -> Floats:
    """Rows of the original embedding float32 [n, H] for token ids int64 [n]."""
    rows = np.concatenate([source.read_rows(embed.parts[0], int(i), int(i) + 1) for i in ids])
    return rows + np.float32(embed.offset)


class Part:
    """A session of a part of a model.

    Args:
        model: The part. Matrices that its builder left out are supplied from the weights file.
        path: Where its graph is written, beside the weights that it refers to; may be overwritten afterwards.
        threads: Of ONNX Runtime.
        prepack: False: matrices stay mapped from their file instead of being copied into memory (and run slower).
    """

    def __init__(self, model: ir.Model, path: Path, *, threads: int, prepack: bool = True) -> None:
        import onnx_ir
        import onnxruntime

        from edgedistill.runtime.bit_planes import widened_values

        onnx_ir.save(model, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_cpu_mem_arena = False
        # A part runs a few large steps: threads that wait actively between them gain nothing and slow the solver down.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        if not prepack:
            options.add_session_config_entry("session.disable_prepacking", "1")
        values = widened_values(path.parent, supplied(model), threads=threads)
        for name in values:
            options.add_initializer(name, values[name])
        self._session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        self._names = {value.name for value in self._session.get_inputs()}

    def run(self, outputs: list[str], feeds: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Values of ``outputs``; ``feeds`` may have more than the part's inputs, which are fewer if it ends early."""
        used = {name: value for name, value in feeds.items() if name in self._names}
        found: list[npt.NDArray[Any]] = self._session.run(outputs, used)
        return found

    def through(self, spec: ModelSpec, sequences: Sequence[Ids], hidden: Floats, output: str = OUTPUT) -> Floats:
        """``output`` [tokens, size] of a layer for ``hidden`` float32 [tokens, H], run sequence by sequence."""
        found, start = [], 0
        for ids in sequences:
            one = Batch(ids[None], np.array([len(ids)], np.int32), start)
            found.append(self.run([output], one.feeds(spec, np.asarray(hidden[one.tokens])[None]))[0][0])
            start += len(ids)
        return np.concatenate(found)
