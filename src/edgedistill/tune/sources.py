"""Where a tuning's traces come from (replies of the reference, of the quantized model, a file), and in which batches.

Traces are kept in the partial directory, and batches are a function of seed and number, so that an interrupted run goes
on with the same ones.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.bundle.bundle import TOKENIZER, Bundle
from edgedistill.export.options import ExportOptions
from edgedistill.export.pipeline import export
from edgedistill.runtime.model import Model, open_bundle
from edgedistill.traces.generate import from_file_for, self_generated
from edgedistill.traces.traces import Traces

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgedistill.bundle.manifest import Manifest
    from edgedistill.progress import Progress
    from edgedistill.tune.options import TuneOptions

    Ids = npt.NDArray[np.int64]

_TRACES = ".traces.jsonl"
_REFERENCE = ".reference"


def traces_for(
    directory: Path,
    reference: str,
    *,
    adapter: str | Path | None,
    file: Path | None,
    bundle: Bundle,
    options: TuneOptions,
    progress: Progress,
) -> Traces:
    """Traces to train on and to judge by.

    Args:
        directory: Partial directory, where they are kept and a full-precision bundle lies while it speaks.
        reference, adapter: The original, as ``export`` takes it.
        file: A user's file instead.
        bundle: Whose tokenizer and template read the file.

    Raises:
        CalibrationError: See ``traces.generate``.
    """
    kept = directory / _TRACES
    if kept.is_file():
        tokenizer = next((f.sha256 for f in bundle.manifest.files if f.name == TOKENIZER), "")
        return Traces.load(kept, tokenizer_sha256=tokenizer, vocab_size=bundle.manifest.model.vocab_size)
    if file is not None:
        with open_bundle(bundle.path) as model:
            traces = from_file_for(model, file, length=options.length)
    else:
        export_options = ExportOptions(
            profile="reference-fp32",
            context=bundle.manifest.model.context_length,
            adapter=adapter,
            offline=True,
            force=True,
            check=False,
        )
        made = export(reference, directory / _REFERENCE, export_options, progress=progress)
        with open_bundle(made.path) as model:
            traces = self_generated(
                model, sequences=options.sequences, length=options.length, seed=2 * options.seed, progress=progress
            )
        shutil.rmtree(made.path)
    traces.save(kept)
    return traces


def own_traces(directory: Path, manifest: Manifest, number: int, options: TuneOptions, progress: Progress) -> Traces:
    """The quantized model's replies in the state that ``directory`` holds; round ``number`` of the run.

    Enough for the updates until the next round. The prompts are others in every round, and none that a held-out set
    made with an odd seed has.
    """
    kept = directory / f".on-policy-{number}.jsonl"
    tokenizer = next((f.sha256 for f in manifest.files if f.name == TOKENIZER), "")
    if kept.is_file():
        return Traces.load(kept, tokenizer_sha256=tokenizer, vocab_size=manifest.model.vocab_size)
    tokens = options.redraw * options.on_policy * options.batch_tokens
    count = max(4, min(options.sequences, round(tokens / options.length)))
    with Model(Bundle(directory, manifest)) as model:
        traces = self_generated(
            model, sequences=count, length=options.length, seed=2 * (options.seed + 1 + number), cache=False,
            progress=progress,
        )  # fmt: skip
    traces.save(kept)
    return traces


_WINDOW = 8
"""Batches whose sequences are sorted by length together, so that little is padding."""


class Batches:
    """Sequences in batches of at most ``tokens`` tokens, padding included; every pass has an order of its own."""

    def __init__(self, sequences: Sequence[Ids], tokens: int, seed: int) -> None:
        self._sequences = sequences
        self._tokens = tokens
        self._seed = seed
        self._pass: list[list[int]] = []
        self._number = -1
        self._starts: list[int] = [0]

    def at(self, index: int) -> list[Ids]:
        """The batch of number ``index`` from 0, over as many passes as it takes."""
        while True:
            number = next((n for n, start in enumerate(self._starts) if start > index), None)
            if number is not None:
                break
            self._starts.append(self._starts[-1] + len(self._order(len(self._starts) - 1)))
        batch = self._order(number - 1)[index - self._starts[number - 1]]
        return [self._sequences[i] for i in batch]

    def _order(self, number: int) -> list[list[int]]:
        if number != self._number:
            generator = np.random.default_rng([self._seed, number])
            order = generator.permutation(len(self._sequences)).tolist()
            lengths = [len(sequence) for sequence in self._sequences]
            window = max(1, _WINDOW * self._tokens // max(1, sum(lengths) // len(lengths)))
            batches: list[list[int]] = []
            for start in range(0, len(order), window):
                batches += self._pack(sorted(order[start : start + window], key=lambda i: lengths[i]), lengths)
            self._pass = [batches[i] for i in generator.permutation(len(batches))]
            self._number = number
        return self._pass

    def _pack(self, ordered: list[int], lengths: list[int]) -> list[list[int]]:
        batches: list[list[int]] = [[]]
        for i in ordered:
            if batches[-1] and lengths[i] * (len(batches[-1]) + 1) > self._tokens:
                batches.append([])
            batches[-1].append(i)
        return batches
