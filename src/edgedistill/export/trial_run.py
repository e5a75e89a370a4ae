"""Tries a finished bundle before it is moved to its final path: a child process opens it and decodes a few tokens.

A crash of ONNX Runtime ends only the child process, its memory is freed afterwards, its peak memory can be measured,
and it is killed if the graph runs too long or takes too much memory.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.bundle.bundle import TOKENIZER, WEIGHTS
from edgedistill.bundle.manifest import Manifest
from edgedistill.errors import BundleError, EdgedistillError, ExportError
from edgedistill.runtime.stats import peak_rss_bytes
from edgedistill.runtime.trial import PROMPT, decode, limits
from edgedistill.system.child import run_in_child

if TYPE_CHECKING:
    from edgedistill.progress import Progress

SLICED_TOKENS = 2
WHOLE_LIMIT = 1 << 30
"""Weights files larger than this are tried in slices, in constant memory: the machine that exports need not be able
to run the model."""


def checked(directory: Path, manifest: Manifest, *, progress: Progress) -> Manifest:
    """The manifest with the outcome of the trial in ``check``.

    Raises:
        ExportError: The bundle does not open, or its logits are not finite.
    """
    progress.begin("trying the bundle", 0, "tokens")
    try:
        seconds, memory = limits(sum(entry.size for entry in manifest.files))
        outcome = run_in_child(try_bundle, str(directory), manifest.to_json(), time_limit=seconds, memory_limit=memory)
    except EdgedistillError as error:
        raise ExportError(
            f"The exported bundle failed its trial decode ({error}).",
            hint="Nothing was left at the output path; please report the model's config.",
        ) from error
    progress.end()
    return dataclasses.replace(manifest, check=outcome)


def try_bundle(path: str, manifest_json: str) -> dict[str, Any]:
    """Open the bundle at ``path`` and decode a few tokens, in this process; returns the manifest's ``check``."""
    directory, manifest = Path(path), Manifest.from_json(manifest_json)
    started = time.perf_counter()
    if (directory / WEIGHTS).stat().st_size > WHOLE_LIMIT and manifest.model.signature == "edgedistill":
        loaded, (tokens, text) = "slices", _in_slices(directory, manifest)
    else:
        loaded, (tokens, text) = "whole", _whole(directory, manifest)
    return {
        "loaded": loaded,
        "prompt": PROMPT,
        "tokens": tokens,
        "text": text,
        "seconds": time.perf_counter() - started,
        "peak_rss_bytes": peak_rss_bytes(),
    }


def _whole(directory: Path, manifest: Manifest) -> tuple[list[int], str]:
    from edgedistill.bundle.bundle import Bundle

    try:
        return decode(Bundle(directory, manifest))
    except BundleError as error:
        raise ExportError(str(error)) from error


def _in_slices(directory: Path, manifest: Manifest) -> tuple[list[int], str]:
    from tokenizers import Tokenizer

    from edgedistill.export.calibrate import sliced_run as sliced

    tokenizer = Tokenizer.from_file(str(directory / TOKENIZER))
    prompt = tokenizer.encode(PROMPT, add_special_tokens=False).ids or [0]
    tokens = sliced.decode(directory, manifest, prompt, SLICED_TOKENS)
    return tokens, tokenizer.decode(tokens)
