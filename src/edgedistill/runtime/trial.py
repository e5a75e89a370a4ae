"""Tries a bundle in a process of its own, within limits of time and memory, before this one opens it.

A graph is a program: it may loop for ever or ask for any amount of memory, and ONNX Runtime lets it. Whoever only
examines a bundle (verification) tries it first; one that was tried here, or made here, is remembered by its identity,
which covers everything that its answers depend on. What a graph does for other inputs only, no trial can tell:
``--time-limit`` and ``--memory-limit`` put a whole command under supervision.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.bundle.bundle import Bundle
from edgedistill.catalog.builtin import cache_dir
from edgedistill.errors import BundleError, ChildError, EdgedistillError
from edgedistill.system.child import run_in_child

if TYPE_CHECKING:
    from edgedistill.progress import Progress

PROMPT = "What is 12 + 30?"
TOKENS = 8
_SLOWEST_BYTES_PER_S = 5_000_000
_TIME_S = 120.0
_MEMORY = 4 << 30
_MEMORY_PER_THREAD = 128 << 20


def limits(size: int) -> tuple[float, int]:
    """Seconds and bytes that opening ``size`` bytes of bundle and decoding a few tokens never takes."""
    return _TIME_S + size / _SLOWEST_BYTES_PER_S, _MEMORY + 4 * size + _MEMORY_PER_THREAD * (os.cpu_count() or 1)


def decode(bundle: Bundle) -> tuple[list[int], str]:
    """Open ``bundle`` in this process and decode a few tokens: them and their text.

    Raises:
        BundleError: It does not open, or its logits are not finite.
    """
    import numpy as np

    from edgedistill.runtime.model import Model
    from edgedistill.runtime.settings import GenerationSettings

    with Model(bundle) as model:
        settings = GenerationSettings(temperature=0.0, max_new_tokens=TOKENS, ignore_eos=True)
        generation = model.generate(PROMPT, settings=settings, raw=True)
        if not np.isfinite(model.score(generation.tokens)).all():
            raise BundleError("Logits are not finite.")
    return list(generation.tokens), generation.text


def decode_at(path: str) -> int:
    """``decode`` for the bundle at ``path``; how many tokens."""
    return len(decode(Bundle.open(Path(path)))[0])


def require_tried(bundle: Bundle, *, progress: Progress | None = None, limit: tuple[float, int] | None = None) -> None:
    """Try ``bundle``, whose hashes were compared, unless it is known here.

    Args:
        bundle: Not opened by ONNX Runtime yet.
        progress: Is told of the trial.
        limit: Seconds and bytes; default: ``limits`` of its size.

    Raises:
        BundleError: It does not decode a few tokens within the limits.
    """
    note = _note(bundle.identity())
    if note.is_file():
        return
    seconds, memory = limit or limits(bundle.size)
    if progress is not None:
        progress.begin(f"trying {bundle.path.name}", 0, "items")
    try:
        run_in_child(decode_at, str(bundle.path.absolute()), time_limit=seconds, memory_limit=memory)
    except ChildError as error:
        raise BundleError(
            f"{bundle.path.name} does not decode {TOKENS} tokens within limits: {error}.",
            hint="Its graph may loop for ever or ask for any amount of memory: use it only if you trust its maker.",
        ) from error
    except EdgedistillError as error:
        raise BundleError(f"{bundle.path.name} does not open: {error}") from error
    if progress is not None:
        progress.end()
    remember(bundle)


def remember(bundle: Bundle) -> None:
    """``bundle`` was tried, or made, on this machine."""
    note = _note(bundle.identity())
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()


def _note(identity: str) -> Path:
    return cache_dir() / "tried" / identity[:64]
