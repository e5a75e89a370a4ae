"""Makes traces: what a bundle itself says to the built-in prompts, or a user's file cut into sequences.

Self-generated traces are sampled at temperature 1, so that they are draws from the model's own distribution (all but
its far tail), and are cached under the hash of the bundle's weights and the settings.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.bundle.bundle import TOKENIZER
from edgedistill.catalog.builtin import cache_dir
from edgedistill.errors import CalibrationError, EdgedistillError
from edgedistill.runtime.batch.request import DrawSettings
from edgedistill.traces.prompts import calibration_prompts
from edgedistill.traces.traces import Traces, check_ids, is_traces_file
from edgedistill.verify.models.bundle import BundleModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgedistill.progress import Progress
    from edgedistill.runtime.model import Model

DEFAULT_SEQUENCES = 64
DEFAULT_LENGTH = 512
SHORTEST = 256
"""Fewest tokens of a user's file: below that, statistics per input feature are noise."""
_TEMPERATURE = 1.0
_TOP_K = 128
"""Likeliest tokens that may be drawn: what lies behind them is next to nothing, and drawing from all takes longer than
the model does."""
_SHORTEST_ROOM = 16

__all__ = ["Traces", "from_file", "self_generated"]


def self_generated(
    model: Model,
    *,
    sequences: int = DEFAULT_SEQUENCES,
    length: int = DEFAULT_LENGTH,
    seed: int = 0,
    cache: bool = True,
    progress: Progress | None = None,
) -> Traces:
    """Prompt and reply of ``model`` on the built-in prompts, until there are about ``sequences * length`` tokens.

    Args:
        model: A bundle that is close to the original, such as an int8 one. It stays open.
        sequences: Sequences of full length that the tokens would make; replies that end earlier are kept as they are,
            and more prompts are asked instead, at most four times as many.
        length: Most tokens of prompt and reply together, at most the model's context.
        seed: Other prompts and other noise.
        cache: Keep the traces in the user's cache directory, and take them from there.
        progress: Receives replies.

    Returns:
        Equal arguments give equal traces on the same machine.
    """
    info = model.bundle.manifest.model
    length = min(length, info.context_length)
    tokenizer_sha256 = _tokenizer_hash(model)
    path = _cache_path(model, sequences, length, seed)
    if cache and path.is_file():
        with contextlib.suppress(CalibrationError):
            return Traces.load(path, tokenizer_sha256=tokenizer_sha256, vocab_size=info.vocab_size)
    drawer = BundleModel(model)
    wanted = sequences * length
    found: list[npt.NDArray[np.int64]] = []
    prompt_tokens: list[int] = []
    total = asked = 0
    while total < wanted and asked < 4 * sequences:
        batch = calibration_prompts(asked + sequences, seed)[asked:]
        asked += sequences
        encoded = [drawer.replies.encode(prompt, None) for prompt in batch]
        fitting = [one for one in encoded if len(one.ids) + _SHORTEST_ROOM <= length]
        if not fitting:
            continue
        settings = DrawSettings(
            temperature=_TEMPERATURE,
            top_k=_TOP_K,
            max_new_tokens=length - min(len(one.ids) for one in fitting),
            seed=seed,
        )
        # In order of the prompts, whatever the order in which replies ended.
        replies = {
            drawn.key[0]: drawn.token_ids
            for drawn in drawer.draw([one.prompt for one in fitting], 1, settings, progress=progress)
        }
        for one in fitting:
            ids = np.array([*one.ids, *replies[one.prompt.id]][:length], dtype=np.int64)
            if total < wanted and len(ids) >= 2:
                found.append(ids)
                prompt_tokens.append(len(one.ids))
                total += len(ids)
    traces = Traces(tuple(found), tuple(prompt_tokens), tokenizer_sha256, f"self-generated, seed {seed}")
    check_ids(traces, info.vocab_size, "the model's own traces")
    if cache:
        with contextlib.suppress(OSError):
            traces.save(path)
    return traces


def from_file(
    path: Path,
    *,
    encode: Callable[[str], Sequence[int]],
    render: Callable[[list[dict[str, Any]]], str],
    tokenizer_sha256: str,
    vocab_size: int,
    length: int = DEFAULT_LENGTH,
    limit: int | None = None,
) -> Traces:
    """Sequences from a user's file.

    A ``.jsonl`` file holds on each line one of ``{"text": ...}``, ``{"messages": [...]}`` (through the chat template),
    ``{"prompt": ..., "reply": ...}``; or it is a file that ``Traces.save`` wrote. Anything else is plain text. Texts
    are cut into pieces of ``length`` tokens.

    Args:
        path: The file.
        encode: Text to ids.
        render: Messages to text.
        tokenizer_sha256: Hash of the model's tokenizer.json.
        vocab_size: Ids must be smaller.
        length: Most tokens of a sequence.
        limit: Most tokens of all together; None: all.

    Raises:
        CalibrationError: No such file, not text, malformed JSON (with the line), empty, fewer than ``SHORTEST`` tokens,
            or traces of another tokenizer.
    """
    if not path.is_file():
        raise CalibrationError(
            f"There is no calibration file {path}.",
            hint="Expected text, or JSONL with text, messages or prompt and reply.",
        )
    if is_traces_file(path):
        traces = Traces.load(path, tokenizer_sha256=tokenizer_sha256, vocab_size=vocab_size)
        _check_length(path, traces.tokens)
        return traces if limit is None else traces.head(limit)
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CalibrationError(
            f"{path.name} is not UTF-8 text (byte {error.start}).", hint="Expected plain text or JSONL."
        ) from error
    texts = _json_texts(path.name, content, render) if path.suffix == ".jsonl" else iter([content])
    found: list[npt.NDArray[np.int64]] = []
    total = 0
    for text in texts:
        ids = np.asarray(encode(text), dtype=np.int64)
        for start in range(0, len(ids), length):
            piece = ids[start : start + length]
            if len(piece) >= 2 and (limit is None or total < limit):
                found.append(piece)
                total += len(piece)
    _check_length(path, total)
    traces = Traces(tuple(found), (0,) * len(found), tokenizer_sha256, path.name)
    check_ids(traces, vocab_size, path.name)
    return traces


def _check_length(path: Path, tokens: int) -> None:
    if tokens < SHORTEST:
        raise CalibrationError(
            f"{path.name} has {tokens} tokens; expected at least {SHORTEST} to calibrate with.",
            hint="Give more text, or leave --calibration out: the model then generates its own traces.",
        )


def from_file_for(model: Model, path: Path, *, length: int = DEFAULT_LENGTH, limit: int | None = None) -> Traces:
    """``from_file`` with the tokenizer and template of an opened bundle."""
    return from_file(
        path,
        encode=lambda text: model.encode(text, raw=True),
        render=lambda messages: _render(model, messages),
        tokenizer_sha256=_tokenizer_hash(model),
        vocab_size=model.bundle.manifest.model.vocab_size,
        length=min(length, model.bundle.manifest.model.context_length),
        limit=limit,
    )


def _render(model: Model, messages: list[dict[str, Any]]) -> str:
    """A conversation as text; the assistant's turn is opened only where the conversation waits for one."""
    answered = bool(messages) and isinstance(messages[-1], dict) and messages[-1].get("role") == "assistant"
    return model.template.render(messages, add_generation_prompt=not answered)


def _json_texts(name: str, content: str, render: Callable[[list[dict[str, Any]]], str]) -> Iterator[str]:
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:  # the latter: nested too deeply
            raise CalibrationError(f"{name}, line {number}: malformed JSON ({error}).") from error
        try:
            if isinstance(value, dict) and isinstance(value.get("text"), str):
                yield value["text"]
            elif isinstance(value, dict) and isinstance(value.get("messages"), list):
                yield render(value["messages"])
            elif isinstance(value, dict) and "prompt" in value and _are_text(value, "prompt", "reply"):
                yield render([{"role": "user", "content": value["prompt"]}]) + value.get("reply", "")
            else:
                raise CalibrationError("Expected an object with `text`, `messages`, or `prompt` and `reply`, all text.")
        except EdgedistillError as error:
            raise CalibrationError(f"{name}, line {number}: {error}") from error


def _are_text(value: dict[str, Any], *keys: str) -> bool:
    return all(isinstance(value.get(key, ""), str) for key in keys)


def _tokenizer_hash(model: Model) -> str:
    return next((f.sha256 for f in model.bundle.manifest.files if f.name == TOKENIZER), "")


def _cache_path(model: Model, sequences: int, length: int, seed: int) -> Path:
    from edgedistill.verify.models.bundle import bundle_identity

    identity = bundle_identity(model.bundle)
    key = json.dumps([identity.sha256, identity.tokenizer_sha256, sequences, length, seed, _TEMPERATURE, _TOP_K])
    return cache_dir() / "traces" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.jsonl"
