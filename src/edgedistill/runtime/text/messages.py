"""Messages in OpenAI's form brought to what chat templates take: a role and a content that is text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgedistill.errors import GenerationError

if TYPE_CHECKING:
    from collections.abc import Sequence

_TEXT = ("text", "input_text", "output_text")


def plain_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Copies of ``messages`` whose contents are strings: parts of type ``text`` are joined.

    What is malformed otherwise is left to ``check_messages``.

    Raises:
        GenerationError: A part that is no text, such as an image.
    """
    return [_plain(index, message) for index, message in enumerate(messages)]


def _plain(index: int, message: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise GenerationError(f"Message {index} is {message!r}; expected a dict with 'role' and 'content'.")
    content = message.get("content")
    if not isinstance(content, list | tuple):
        return dict(message)
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        text = part if isinstance(part, str) else part.get("text") if kind in _TEXT else None
        if not isinstance(text, str):
            raise GenerationError(
                f"Message {index} has a part of type {kind!r}; this model reads text only.",
                hint='Send parts such as {"type": "text", "text": "..."}.',
            )
        texts.append(text)
    return {**message, "content": "".join(texts)}
