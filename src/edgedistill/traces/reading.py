"""Reads text for a checkpoint that is no bundle yet: its tokenizer and its chat template."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from edgedistill.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgedistill.checkpoint.types import Checkpoint

    Encode = Callable[[str], Sequence[int]]
    Render = Callable[[list[dict[str, Any]]], str]


@contextlib.contextmanager
def reader(checkpoint: Checkpoint) -> Iterator[tuple[Encode, Render]]:
    """Text to ids and messages to text, as the bundle of ``checkpoint`` will do both.

    Raises:
        CalibrationError: The tokenizer cannot be read.
    """
    from tokenizers import Tokenizer

    from edgedistill.runtime.text.chat_template import ChatTemplate, PassThrough

    try:
        tokenizer = Tokenizer.from_str(checkpoint.tokenizer_json.decode("utf-8"))
    except Exception as error:  # tokenizers raises nothing narrower
        raise CalibrationError(f"tokenizer.json cannot be read ({error}).") from error
    special = checkpoint.special_tokens
    names = {f"{name}_token": getattr(special, f"{name}_token") for name in ("bos", "eos", "pad")}
    template = (
        PassThrough()
        if checkpoint.chat_template is None
        else ChatTemplate(checkpoint.chat_template, special_tokens={k: v for k, v in names.items() if v is not None})
    )

    def encode(text: str) -> Sequence[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def render(messages: list[dict[str, Any]]) -> str:
        answered = bool(messages) and isinstance(messages[-1], dict) and messages[-1].get("role") == "assistant"
        return template.render(messages, add_generation_prompt=not answered)

    try:
        yield encode, render
    finally:
        template.close()
