"""Compares a finished bundle's output with the original's on held-out text: KL divergence and equal top tokens.

Both models run in pieces, so that memory does not grow with their depth: the original a layer at a time in float32,
with its output matrix read some rows at a time, and the bundle's own graph in slices of a few layers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.architecture.families import logical_weights
from edgedistill.errors import EdgedistillError, ExportError
from edgedistill.export.calibrate import sliced_run
from edgedistill.export.calibrate.hidden_states import Part, batches, embedding_rows
from edgedistill.export.mixed_precision.sensitivity import kl_sum, log_softmax
from edgedistill.export.writer import Job, slices, write_scratch
from edgedistill.graph.parts import KEYS_AND_VALUES, OUTPUT, PER_LAYER, build_layer
from edgedistill.graph.weights import WeightEmitter
from edgedistill.quantize.plan import plan_weights
from edgedistill.quantize.spec import FLOAT32
from edgedistill.system.temporary import scratch
from edgedistill.traces.prompts import built_in_texts
from edgedistill.traces.reading import reader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgedistill.architecture.spec import LogicalWeight
    from edgedistill.bundle.manifest import Manifest
    from edgedistill.checkpoint.types import Checkpoint
    from edgedistill.export.plan import Plan
    from edgedistill.progress import Progress

    Floats = npt.NDArray[np.float32]
    Ids = npt.NDArray[np.int64]

TOKENS = 512
"""Largest number of positions that are compared."""
FEWEST_TOKENS = 64
_ROWS = 32
"""Positions whose probabilities are in memory at the same time."""
_GRAPH, _WEIGHTS = "part.onnx", "part.bin"


def measure(
    directory: Path, manifest: Manifest, checkpoint: Checkpoint, plan: Plan, *, threads: int, progress: Progress
) -> dict[str, Any]:
    """Compare the bundle in ``directory`` with the checkpoint that it was made from.

    Args:
        directory: Holds graphs and weights of the bundle; scratch files are made in it and removed.
        manifest: The bundle's, so far.
        checkpoint: The original, with its tensors under the names of ``logical_weights``.
        plan: The plan that the bundle was made from.
        threads: Of the original's kernels.
        progress: Receives layers.

    Returns:
        ``kl``: KL(original || bundle), mean over positions, in nats; ``top1``: share of positions where both have the
        same most likely token; ``tokens``: number of positions. Empty where tokenizer or template give too little text,
        and for models with several residual streams (Gemma 3n).
    """
    sequences = held_out(checkpoint, plan.context_length)
    if not sequences or plan.spec.altup:
        return {}
    progress.begin("comparing with the original", plan.spec.num_hidden_layers, "items")
    with scratch(directory, ".original-") as folder:
        original = _Original(folder, checkpoint, plan, sequences, threads)
        hidden = original.hidden(progress)
        kl = agreeing = 0.0
        states = (chunk for values in hidden for chunk in sliced_run.chunks(values))
        for chunk, found in zip(states, sliced_run.logits(directory, manifest, sequences), strict=True):
            expected = original.logits(chunk)
            agreeing += float((expected.argmax(axis=1) == found.argmax(axis=1)).sum())
            for rows in range(0, len(found), _ROWS):
                part = slice(rows, rows + _ROWS)
                kl += kl_sum(log_softmax(expected[part]), log_softmax(found[part]))
    progress.end()
    tokens = sum(map(len, sequences))
    if not math.isfinite(kl):
        raise ExportError(
            "Beside the original on other texts, the bundle or the original gave logits that are no numbers.",
            hint="Try other formats (--format fp32 tells which of the two it is), or --no-check to keep the bundle.",
        )
    return {"kl": max(0.0, kl / tokens), "top1": agreeing / tokens, "tokens": tokens}


def _shared(index: int) -> tuple[str, str]:
    """Names of the keys and values that a layer computes, in its graph."""
    return (f"layers.{index}.attn.k", f"layers.{index}.attn.v")


def held_out(checkpoint: Checkpoint, longest: int) -> list[Ids]:
    """Token ids, int64 [n] each, of texts that no calibration uses, longest first; empty if there are under 64 tokens
    or ids beyond the vocabulary."""
    try:
        with reader(checkpoint) as (encode, render):
            found = [np.asarray(encode(text)[:longest], np.int64) for text in built_in_texts(render, held_out=True)]
    except EdgedistillError:
        return []  # the export reports a broken tokenizer or template itself
    share = TOKENS // len(found)
    found = sorted((ids[:share] for ids in found if len(ids) > 1), key=len, reverse=True)
    known = int(checkpoint.config["vocab_size"])
    if sum(map(len, found)) < FEWEST_TOKENS or any(ids.max() >= known for ids in found):
        return []
    return found


class _Original:
    """Runs the checkpoint's own layers over some sequences."""

    def __init__(
        self, folder: Path, checkpoint: Checkpoint, plan: Plan, sequences: Sequence[Ids], threads: int
    ) -> None:
        self._folder, self._source, self._plan = folder, checkpoint.tensors, plan
        self._sequences, self._threads = sequences, threads
        self._weights = logical_weights(plan.spec)

    def hidden(self, progress: Progress) -> list[Floats]:
        """Output of the last layer for each sequence, float32 [n, H]."""
        spec = self._plan.spec
        parts = list(batches(self._sequences))
        hidden = [self._embedded(part.ids) for part in parts]
        second = [self._second_embedding(part.ids, values) for part, values in zip(parts, hidden, strict=True)]
        made: dict[int, list[list[Floats]]] = {layer.keys_of: [] for layer in spec.layers if layer.keys_of is not None}
        for index in range(spec.num_hidden_layers):
            layer = [weight for weight in self._weights if weight.name.startswith(f"layers.{index}.")]
            model = build_layer(
                spec,
                self._decoded(layer),
                index,
                (OUTPUT, *_shared(index)) if index in made else (),
                positions=len(self._sequences[0]),
                context=self._plan.context_length,
            )
            session = Part(model, self._folder / _GRAPH, threads=self._threads, prepack=False)
            maker, outputs = spec.layers[index].keys_of, [OUTPUT, *(_shared(index) if index in made else ())]
            for at, part in enumerate(parts):
                feeds = part.feeds(spec.of_layer(index), hidden[at])
                if spec.per_layer_size:
                    feeds[PER_LAYER] = second[at][:, :, index]
                if maker is not None:
                    feeds |= dict(zip(KEYS_AND_VALUES, made[maker][at], strict=True))
                hidden[at], *others = session.run(outputs, feeds)
                if others:
                    made[index].append(others)
            progress.advance(1)
        rows = zip(parts, hidden, strict=True)
        return [values[row, :length] for part, values in rows for row, length in enumerate(part.lengths)]

    def logits(self, hidden: Floats) -> Floats:
        """Logits float32 [n, V] of the last layer's output float32 [n, H]; the output matrix is read in slices."""
        spec = self._plan.spec
        x = hidden - hidden.mean(axis=1, keepdims=True) if spec.norm == "layer" else hidden
        x = x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(spec.rms_norm_eps))
        x *= self._vector("final_norm")
        if spec.norm_bias:
            x += self._vector("final_norm.bias")
        matrix = self._weight("embed" if spec.tie_word_embeddings else "lm_head")
        found = np.empty((len(x), spec.vocab_size), np.float32)
        for cut in slices(matrix, self._source):
            found[:, cut.row : cut.row + cut.stop - cut.start] = (
                x @ self._source.read_rows(cut.part, cut.start, cut.stop).T
            )
        cap = spec.final_logit_softcapping
        return found if cap is None else np.tanh(found / np.float32(cap)) * np.float32(cap)

    def _weight(self, name: str) -> LogicalWeight:
        return next(weight for weight in self._weights if weight.name == name)

    def _vector(self, name: str) -> Floats:
        weight = self._weight(name)
        return self._source.read_rows(weight.parts[0], 0, weight.shape[0]) + np.float32(weight.offset)

    def _embedded(self, ids: Ids) -> Floats:
        known = np.unique(ids)
        table = embedding_rows(self._weight("embed"), self._source, known)
        table *= np.float32(self._plan.spec.embedding_scale or 1.0)
        found: Floats = table[np.searchsorted(known, ids)]
        return found

    def _second_embedding(self, ids: Ids, hidden: Floats) -> Floats:
        """What the layers read of a second embedding (see ``graph.per_layer``): float32 [B, S, layers, size], or size 0
        if the model has none."""
        spec = self._plan.spec
        if not spec.per_layer_size:
            return np.zeros((*ids.shape, 0), np.float32)
        shape = (*ids.shape, spec.num_hidden_layers, spec.per_layer_size)
        ids = np.where(ids < spec.per_layer_vocab, ids, 0)
        matrix, known = self._weight("per_layer.in"), np.unique(ids)
        rows = embedding_rows(self._weight("per_layer.embed"), self._source, known)
        read = hidden @ self._source.read_rows(matrix.parts[0], 0, matrix.shape[0]).T
        read = (read * np.float32(spec.hidden_size**-0.5)).reshape(shape)
        read /= np.sqrt(np.square(read).mean(axis=-1, keepdims=True) + np.float32(spec.rms_norm_eps))
        read *= self._vector("per_layer.norm")
        looked_up = rows[np.searchsorted(known, ids)].reshape(shape) * np.float32(spec.per_layer_size**0.5)
        found: Floats = (read + looked_up) * np.float32(2**-0.5)
        return found

    def _decoded(self, weights: Sequence[LogicalWeight]) -> WeightEmitter:
        """``weights`` as float32 in the scratch file, which is written anew."""
        planned = plan_weights(weights, FLOAT32)
        arrays = [array for weight in planned.weights for array in weight.arrays]
        jobs = [Job(weight, FLOAT32) for weight in weights]
        places = write_scratch(self._folder / _WEIGHTS, arrays, jobs, self._source, self._threads)
        return WeightEmitter(planned.by_name(), places)
