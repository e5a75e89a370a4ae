"""Smoothing factors of one export: runs the model once, in slices, and records the inputs of its W8A8 matrices.

The run needs weights before the bundle's own can be written. It makes temporary ones in a hidden directory, in 8 bits
with a scale per block, a format that does not suffer from outliers. The recorded maxima are kept beside the weights
until the bundle is finished, so that an interrupted export that resumes writes the same bytes.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import ExportError
from edgedistill.export.calibrate import sliced_run as sliced
from edgedistill.export.calibrate.kv_cache import PROMPTS
from edgedistill.export.calibrate.smoothing import Fold, folds, groups
from edgedistill.export.writer import slices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgedistill.architecture.spec import LogicalWeight, ModelSpec
    from edgedistill.bundle.manifest import Manifest
    from edgedistill.checkpoint.open import Checkpoint
    from edgedistill.export.calibrate.smoothing import Group
    from edgedistill.progress import Progress
    from edgedistill.quantize.plan import PlannedWeight

    Floats = npt.NDArray[np.float32]

FORMAT = "int8-b64-sym-rtn"
"""Format of the temporary weights: fast to write, and far nearer to the original than W8A8 without smoothing."""
_FOUND = ".smoothing.npz"
_RUN = ".smoothing"
_MOST_TOKENS = 8192


def prepare(
    directory: Path,
    checkpoint: Checkpoint,
    spec: ModelSpec,
    planned: Mapping[str, PlannedWeight],
    weights: Sequence[LogicalWeight],
    write_run: Callable[[Path], Manifest],
    *,
    alpha: float,
    sequences: Sequence[npt.NDArray[np.int64]] | None,
    resume: bool,
    progress: Progress,
) -> dict[str, Fold]:
    """Factors by weight name; empty where nothing is W8A8 or ``alpha`` is 0.

    Args:
        directory: Where the bundle is being made.
        checkpoint: The original.
        spec: The model.
        planned: The bundle's formats.
        weights: All weights.
        write_run: Writes weights and graph for the run into a directory; returns their manifest.
        alpha: See ``smoothing.folds``.
        sequences: Token ids to run; None: the built-in prompts.
        resume: Use the maxima that an interrupted export recorded.
        progress: Receives the number of recorded values.

    Raises:
        ExportError: Activations that are not finite.
    """
    chosen = groups(spec, planned)
    if not chosen or not alpha:
        return {}
    kept = directory / _FOUND
    if not (resume and kept.is_file()):
        _observe(directory, checkpoint, chosen, weights, write_run, sequences, progress)
    with np.load(kept) as found:
        activations = {group.value: found[f"x:{group.value}"] for group in chosen}
        matrices = {name: found[f"w:{name}"] for group in chosen for name in group.consumers}
    try:
        return folds(chosen, activations, matrices, alpha)
    except ValueError as error:
        raise ExportError(
            f"The model's activations cannot be smoothed: {error}.", hint="Export with --format int8 instead."
        ) from error


def _observe(
    directory: Path,
    checkpoint: Checkpoint,
    chosen: Iterable[Group],
    weights: Sequence[LogicalWeight],
    write_run: Callable[[Path], Manifest],
    sequences: Sequence[npt.NDArray[np.int64]] | None,
    progress: Progress,
) -> None:
    run, values = directory / _RUN, [group.value for group in chosen]
    consumers = {name for group in chosen for name in group.consumers}
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    try:
        manifest = write_run(run)
        texts = _prompts(checkpoint) if sequences is None else [np.asarray(s).tolist() for s in sequences]
        texts = _bounded([text[: manifest.model.context_length] for text in texts])
        progress.begin("observing activations", len(values) * len(texts), "items")
        found: dict[str, Floats] = {}
        for name, value in sliced.observe(run, manifest, texts, values):
            largest = np.abs(value).max(axis=0)
            found[f"x:{name}"] = np.maximum(found[f"x:{name}"], largest) if f"x:{name}" in found else largest
            progress.advance(1)
        progress.end()
    finally:
        shutil.rmtree(run, ignore_errors=True)
    for weight in weights:
        if weight.name in consumers:
            found[f"w:{weight.name}"] = _column_maxima(weight, checkpoint)
    partial = directory / f"{_FOUND}.partial"
    with partial.open("wb") as stream:
        np.savez(stream, **found)  # type: ignore[arg-type]  # the stub takes no arrays by name
    partial.rename(directory / _FOUND)


def _column_maxima(weight: LogicalWeight, checkpoint: Checkpoint) -> Floats:
    """Largest magnitudes per input channel, float32 [K]."""
    largest = np.zeros(weight.shape[1], dtype=np.float32)
    for piece in slices(weight, checkpoint.tensors):
        rows = checkpoint.tensors.read_rows(piece.part, piece.start, piece.stop)
        np.maximum(largest, np.abs(rows).max(axis=0, initial=0), out=largest)
    return largest


def _prompts(checkpoint: Checkpoint) -> list[list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(checkpoint.tokenizer_json.decode("utf-8"))
    return [tokenizer.encode(prompt, add_special_tokens=False).ids or [0] for prompt in PROMPTS]


def _bounded(texts: list[list[int]]) -> list[list[int]]:
    """The first texts, of about ``_MOST_TOKENS`` tokens in all: hidden states of all of them are held at once."""
    kept: list[list[int]] = []
    total = 0
    for text in texts:
        if total >= _MOST_TOKENS:
            break
        kept.append(text[: _MOST_TOKENS - total])
        total += len(kept[-1])
    return kept
