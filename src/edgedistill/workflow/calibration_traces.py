"""Calibration data for a checkpoint that is no bundle yet: text through its tokenizer, or traces of a passing bundle.

A model that is to be calibrated on its own traces has to run once before: it is exported in 8 bits into a temporary
directory, answers the built-in prompts, and is deleted. Built-in texts join its replies. The traces stay in the user's
cache, under the checkpoint's hash. A quick calibration takes the built-in texts alone, which needs no run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.catalog.builtin import cache_dir
from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.errors import BudgetError, CalibrationError, EdgedistillError
from edgedistill.export import pipeline
from edgedistill.export.options import ExportOptions
from edgedistill.progress import NullProgress
from edgedistill.runtime.model import open_bundle
from edgedistill.system.temporary import scratch
from edgedistill.traces.generate import from_file, self_generated
from edgedistill.traces.prompts import BUILT_IN, built_in_texts
from edgedistill.traces.reading import reader
from edgedistill.traces.traces import Traces

if TYPE_CHECKING:
    from edgedistill.checkpoint.open import Checkpoint
    from edgedistill.progress import Progress

LENGTH = 512
QUICK_TOKENS = 2048
"""Most tokens of a quick calibration; the built-in texts have some 3,000 in most tokenizers."""
FEWEST_TOKENS = 256
TEXT_SHARE = 4
"""One token in so many of a thorough calibration is built-in text, at most: replies to one set of prompts are alike."""
_FORMATS = ("int8-b32-sym-search", "int4-b32-asym-search")
"""What the model is run in to generate its traces: the first that the memory allows."""


def traces_for(model: str | Path, options: ExportOptions | None = None, *, progress: Progress | None = None) -> Traces:
    """About ``options.calibration_tokens`` calibration tokens for ``model``.

    Args:
        model: What ``export`` takes.
        options: Of the export that they are for: ``calibration`` is the user's text (see ``traces.from_file``; None:
            the model's own traces), ``calibration_tokens`` at least 256; a temporary export, if one is needed, keeps
            to the limits of ``profile``.
        progress: Receives the stages of a temporary export and of sampling.

    Raises:
        CalibrationError: A file that does not do, or too few tokens asked for.
        EdgedistillError: What opening or exporting the model raises.
    """
    options = options or ExportOptions()
    file, tokens = options.calibration, options.calibration_tokens
    if isinstance(file, Traces):
        return file
    if tokens < FEWEST_TOKENS:
        raise CalibrationError(
            f"{tokens} calibration tokens were requested; expected at least {FEWEST_TOKENS}.",
            hint=f"The default is {ExportOptions().calibration_tokens}.",
        )
    progress = progress or NullProgress()
    source = _source(options)
    with open_checkpoint(str(model), **source, progress=progress) as checkpoint:
        pipeline.calibratable(checkpoint.config, options)
        tokenizer_sha256 = hashlib.sha256(checkpoint.tokenizer_json).hexdigest()
        vocab_size = int(checkpoint.config["vocab_size"])
        if file is not None:
            return _from_text(Path(file), checkpoint, tokenizer_sha256, vocab_size, tokens)
        path = _cache_path(checkpoint.hash_source(progress), tokens)
    if path.is_file():
        with contextlib.suppress(CalibrationError):
            return Traces.load(path, tokenizer_sha256=tokenizer_sha256, vocab_size=vocab_size)
    temporary = ExportOptions(profile=options.profile, check=False, force=True, **source)
    texts = quick_traces(model, options, progress=progress) if tokens >= FEWEST_TOKENS * TEXT_SHARE else None
    if texts is not None:
        texts = texts.head(tokens // TEXT_SHARE)
    with scratch(path.parent, "calibration-") as work:
        own = tokens - (texts.tokens if texts else 0)
        traces = _with_texts(_own_traces(model, work / "bundle", own, temporary, progress), texts)
    traces.save(path)
    return traces


def _with_texts(traces: Traces, texts: Traces | None) -> Traces:
    if texts is None:
        return traces
    return replace(
        traces,
        sequences=(*traces.sequences, *texts.sequences),
        prompt_tokens=(*traces.prompt_tokens, *texts.prompt_tokens),
        origin=f"{traces.origin}, and {BUILT_IN}",
    )


def _own_traces(model: str | Path, out: Path, tokens: int, options: ExportOptions, progress: Progress) -> Traces:
    """What the model answers, in the first of ``_FORMATS`` that profile and memory allow."""
    for last, fmt in ((fmt == _FORMATS[-1], fmt) for fmt in _FORMATS):
        try:
            result = pipeline.export(model, out, replace(options, format=fmt), progress=progress)
            with open_bundle(result.path) as opened:
                count = max(2, round(tokens / LENGTH))
                return self_generated(opened, sequences=count, length=LENGTH, cache=False, progress=progress)
        except BudgetError:
            if last:
                raise
    raise AssertionError("unreachable")


def quick_traces(model: str | Path, options: ExportOptions, *, progress: Progress | None = None) -> Traces | None:
    """The built-in texts in the tokens of ``model``: what a quick calibration runs over, without generating anything.

    Args:
        model, progress: As for ``traces_for``.
        options: Of the export that they are for.

    Returns:
        None where they are too few tokens to tell anything (a tokenizer that knows next to nothing), or where tokenizer
        or template do not work.

    Raises:
        EdgedistillError: What opening the model raises.
    """
    source = _source(options)
    with open_checkpoint(str(model), **source, progress=progress or NullProgress()) as checkpoint:
        vocab_size = int(checkpoint.config["vocab_size"])
        try:
            with reader(checkpoint) as (encode, render):
                sequences = tuple(np.asarray(encode(text)[:LENGTH], np.int64) for text in built_in_texts(render))
        except EdgedistillError:
            return None  # the export says what is wrong with tokenizer or template, where that matters to it
        sha256 = hashlib.sha256(checkpoint.tokenizer_json).hexdigest()
    traces = Traces(tuple(ids for ids in sequences if len(ids) > 1), (), sha256, BUILT_IN)
    traces = replace(traces, prompt_tokens=(0,) * len(traces.sequences))
    if traces.tokens < FEWEST_TOKENS or any(ids.max() >= vocab_size for ids in traces.sequences):
        return None
    return traces.head(QUICK_TOKENS)


def _source(options: ExportOptions) -> dict[str, Any]:
    """Which checkpoint ``options`` mean, besides its name."""
    adapter = Path(options.adapter) if options.adapter else None
    return {"adapter": adapter, "revision": options.revision, "offline": options.offline}


def _from_text(file: Path, checkpoint: Checkpoint, tokenizer_sha256: str, vocab_size: int, tokens: int) -> Traces:
    with reader(checkpoint) as (encode, render):
        return from_file(
            file,
            encode=encode,
            render=render,
            tokenizer_sha256=tokenizer_sha256,
            vocab_size=vocab_size,
            length=LENGTH,
            limit=tokens,
        )


def _cache_path(source_sha256: str, tokens: int) -> Path:
    key = json.dumps([source_sha256, tokens, LENGTH, _FORMATS, TEXT_SHARE])
    return cache_dir() / "traces" / f"source-{hashlib.sha256(key.encode()).hexdigest()[:32]}.jsonl"
