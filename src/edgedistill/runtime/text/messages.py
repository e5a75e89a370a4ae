"""Messages in OpenAI's form brought to what chat templates take: a role and a content that is text.

Templates differ in what they take: some refuse the role ``system`` or leave it out, some know one message of it, at the
beginning, some read contents as texts, some as lists of parts. ``forms`` gives the same messages in other shapes,
``holds`` tells whether a rendering has them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgedistill.errors import GenerationError
from edgedistill.runtime.tools.history import shows_calls, tool_forms, with_objects

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PRINTED = "{'type': 'text', 'text': "
_TEXT = ("text", "input_text", "output_text")


def plain_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Copies of ``messages`` whose contents are strings: parts of type ``text`` are joined; arguments of calls are
    objects.

    What is malformed otherwise is left to ``check_messages``.

    Raises:
        GenerationError: A part that is no text, such as an image; a malformed call.
    """
    return [_plain(index, message) for index, message in enumerate(messages)]


def _plain(index: int, message: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise GenerationError(f"Message {index} is {message!r}; expected a dict with 'role' and 'content'.")
    message = with_objects(message, index)
    if (
        message.get("role") == "developer"
    ):  # OpenAI's newer name; templates drop messages of roles that they do not know
        message = {**message, "role": "system"}
    content = message.get("content")
    if not isinstance(content, list | tuple):
        return message
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


def flattened(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Copies whose contents that are lists of texts are texts; other contents stay as they are."""
    return [
        {**message, "content": _joined(message["content"])} if isinstance(message.get("content"), list) else {**message}
        for message in messages
    ]


def _joined(parts: list[Any]) -> Any:
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    known = [text for text in texts if isinstance(text, str)]
    return "".join(known) if len(known) == len(parts) else parts


def forms(messages: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """``messages`` as they are, then in the other shapes that a template may want instead."""
    for shape in tool_forms(messages):
        yield from _forms(shape)


def _forms(messages: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    yield messages
    plain = flattened(messages)
    if plain != messages:
        yield plain
    yield _in_parts(plain)
    gathered = _gathered(plain)
    if gathered != plain:
        yield gathered
        yield _in_parts(gathered)
    if gathered[0]["role"] == "system" and isinstance(gathered[0].get("content"), str):
        folded = _folded(gathered)
        yield folded
        yield _in_parts(folded)


def _in_parts(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**m, "content": [{"type": "text", "text": m["content"]}]} if isinstance(m.get("content"), str) else m
        for m in messages
    ]


def _gathered(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """System messages one behind the other as one; a later one before the text of the question that follows it, or as a
    question where none does.
    """
    found: list[dict[str, Any]] = []
    for message in messages:
        role, told = message["role"], bool(found) and found[-1]["role"] == "system"
        joins = role == "system" or (role == "user" and len(found) > 1)
        if told and joins and isinstance(message.get("content"), str):
            found[-1] = {**message, "content": f"{found[-1]['content']}\n\n{message['content']}"}
        else:
            found.append(message)
    return [
        {**message, "role": "user"} if at and message["role"] == "system" else message
        for at, message in enumerate(found)
    ]


def _folded(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The system's text before the first question, as the cards of models without that role recommend."""
    system, *rest = messages
    if rest and rest[0]["role"] == "user" and isinstance(rest[0].get("content"), str):
        return [{**rest[0], "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]
    return [{**system, "role": "user"}, *rest]


def holds(text: str, messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a rendering has the texts that nothing may leave out: the system's and the last question's."""
    asked = [message for message in messages if message["role"] == "user"]
    told = [message for message in messages if message["role"] == "system"]
    texts: list[Any] = []
    for message in (*told, *asked[-1:]):
        content = message.get("content")
        parts = content if isinstance(content, list) else [content]
        texts += [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    if _PRINTED in text and not any(_PRINTED in str(one) for one in texts):  # Python's spelling of a list of parts
        return False
    return all(one.strip() in text for one in texts if isinstance(one, str)) and shows_calls(text, messages)
