"""Calls and results in the messages of a conversation, in the shapes that chat templates take.

Most templates want the arguments of a call as an object, some as text; some take one call a message; some know
neither calls nor results, which then become plain texts in the form of ``catalog.tool_formats.HERMES``.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from edgedistill.errors import GenerationError
from edgedistill.runtime.tools.types import ID_LENGTH

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_ID = re.compile(rf"[A-Za-z0-9]{{{ID_LENGTH}}}")


def with_objects(message: Mapping[str, Any], index: int) -> dict[str, Any]:
    """``message`` with the arguments of its calls as objects and ids that every template takes.

    Raises:
        GenerationError: Calls that are malformed; ``index`` names the message.
    """
    found = dict(message)
    if isinstance(found.get("tool_call_id"), str):
        found["tool_call_id"] = _id(found["tool_call_id"])
    if not found.get("tool_calls"):
        return found
    if not isinstance(found["tool_calls"], list | tuple):
        raise GenerationError(f"Message {index} has tool_calls that are not a list.")
    found["tool_calls"] = [_call(call, index) for call in found["tool_calls"]]
    if found.get("content") is None:
        found["content"] = ""
    if found.get("reasoning_content") and not found["content"]:
        found.setdefault("thinking", found["reasoning_content"])  # as gpt-oss calls it
    return found


def _call(call: Any, index: int) -> dict[str, Any]:
    inner = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        raise GenerationError(
            f"Message {index} has a tool call without a function's name.",
            hint='A call is {"id": ..., "type": "function", "function": {"name": ..., "arguments": "{...}"}}.',
        )
    arguments = inner.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError as error:
            raise GenerationError(
                f"Message {index}: the arguments of the call of {inner['name']} are not JSON."
            ) from error
    return {
        "id": _id(str(call.get("id") or index)),
        "type": "function",
        "function": {"name": inner["name"], "arguments": {} if arguments is None else arguments},
    }


def _id(given: str) -> str:
    return given if _ID.fullmatch(given) else hashlib.sha256(given.encode()).hexdigest()[:ID_LENGTH]


def has_calls(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any message calls a tool or is the result of a call."""
    return any(message.get("tool_calls") or message.get("role") == "tool" for message in messages)


def tool_forms(messages: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """``messages`` as they are, then in the shapes that a template may want calls and results in instead."""
    yield messages
    if not has_calls(messages):
        return
    yield [_with_texts(message) for message in messages]
    apart = list(_one_a_message(messages))
    if len(apart) > len(messages):
        yield apart
        yield [_with_texts(message) for message in apart]
    yield as_texts(messages)


def _with_texts(message: dict[str, Any]) -> dict[str, Any]:
    if not message.get("tool_calls"):
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": _json(call["function"]["arguments"])}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _one_a_message(messages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Calls that stand together apart, each with its result after it."""
    rest = list(messages)
    while rest:
        message = rest.pop(0)
        calls = message.get("tool_calls") or ()
        if len(calls) < 2:
            yield message
            continue
        results = []
        while rest and rest[0]["role"] == "tool":
            results.append(rest.pop(0))
        for number, call in enumerate(calls):
            yield {**message, "content": message["content"] if number == 0 else "", "tool_calls": [call]}
            own = [one for one in results if one.get("tool_call_id") == call["id"]] or results[number : number + 1]
            yield from own[:1]
            results = [one for one in results if one not in own[:1]]
        yield from results


def as_texts(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Calls and results as texts of assistant and user."""
    found: list[dict[str, Any]] = []
    for message in messages:
        if message.get("tool_calls"):
            calls = [f"<tool_call>\n{_json(call['function'])}\n</tool_call>" for call in message["tool_calls"]]
            rest = {key: value for key, value in message.items() if key != "tool_calls"}
            found.append({**rest, "content": "\n".join([text for text in (message.get("content"),) if text] + calls)})
        elif message["role"] == "tool":
            text = f"<tool_response>\n{message['content']}\n</tool_response>"
            if found and found[-1].get("result"):
                found[-1]["content"] += f"\n{text}"
            else:
                found.append({"role": "user", "content": text, "result": True})
        else:
            found.append(dict(message))
    return [{key: value for key, value in message.items() if key != "result"} for message in found]


def shows_calls(text: str, messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a rendering has the names and arguments of all calls, and all results."""
    for message in messages:
        content = message.get("content")
        if message.get("role") == "tool" and isinstance(content, str) and not _shown(content.strip(), text):
            return False
        for call in message.get("tool_calls") or ():
            function = call["function"]
            printed = repr(function["arguments"])
            if function["name"] not in text or not all(_shown(one, text) for one in _texts(function["arguments"])):
                return False
            if isinstance(function["arguments"], dict) and printed != _json(function["arguments"]) and printed in text:
                return False  # Python's spelling of an object
    return True


def _texts(value: Any) -> Iterator[str]:
    """The texts in a value, which a rendering shows however it spells the value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _shown(content: str, text: str) -> bool:
    """Whether a result is in ``text``, as it is or as a text in JSON."""
    return any(
        form in text for form in (content, json.dumps(content)[1:-1], json.dumps(content, ensure_ascii=False)[1:-1])
    )


def _json(value: Any) -> str:
    return value if isinstance(value, str) and value[:1] == "{" else json.dumps(value, ensure_ascii=False)
