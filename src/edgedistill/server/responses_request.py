"""A request of ``/v1/responses`` in the words of ``/v1/chat/completions``.

Nothing is stored here, so that a request brings its whole conversation, and what refers to an earlier one is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgedistill.runtime.text.thinking import EFFORTS
from edgedistill.server.errors import ApiError
from edgedistill.server.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
"""Roles of a message, as chat templates call them: most drop the messages of a role that they do not know."""


def as_chat(fields: Fields) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """The body of a chat that asks the same, what the response repeats of the request, and ignored inner fields.

    What both APIs call alike, and extensions such as ``seed``, are left to the chat.

    Raises:
        ApiError: A value of the wrong type, or something that is not supported.
    """
    fields.unsupported(
        {
            "store": lambda value: value is False,
            "background": lambda value: value is False,
            "previous_response_id": lambda _: False,
            "conversation": lambda _: False,
            "prompt": lambda _: False,
        },
        "this server keeps no responses; send the whole conversation as `input`",
    )
    fields.unsupported(
        {"truncation": lambda value: value == "disabled", "context_management": lambda value: value == []},
        "a conversation that is too long is refused, not shortened",
    )
    fields.unsupported(
        {
            "n": lambda value: value == 1,
            "logprobs": lambda value: value is False,
            "top_logprobs": lambda value: value == 0,
            "include": lambda value: isinstance(value, list) and "message.output_text.logprobs" not in value,
        },
        "a response is one answer without log-probabilities; use /v1/chat/completions for more",
    )
    instructions, messages = fields.text("instructions"), _messages(fields)
    longest = fields.integer("max_output_tokens", 1, 1 << 31)
    reasoning, text = _inner(fields, "reasoning"), _inner(fields, "text")
    effort = reasoning.text("reasoning.effort", EFFORTS)
    form = text.object("text.format") or {"type": "text"}
    kind = form.get("type")
    if kind not in ("text", "json_object") and (kind != "json_schema" or not isinstance(form.get("schema"), dict)):
        text.refuse("text.format", "one of the type text, json_object, or json_schema with a `schema`")
    system = [{"role": "system", "content": instructions}] if instructions else []
    asked = {
        "messages": _joined([*system, *messages]),
        "max_completion_tokens": longest,
        "reasoning_effort": effort,
        "response_format": {"type": kind, "json_schema": form} if kind == "json_schema" else form,
    }
    said = {
        "instructions": instructions,
        "max_output_tokens": longest,
        "metadata": fields.object("metadata") or {},
        "reasoning": {"effort": effort, "summary": None},
        "text": {"format": form},
    }
    chat = {**fields.rest(), **{name: value for name, value in asked.items() if value is not None}}
    return chat, said, [*reasoning.ignored(), *text.ignored()]


def _inner(fields: Fields, name: str) -> Fields:
    """The fields of an object, under names such as ``reasoning.effort``."""
    return Fields({f"{name}.{key}": value for key, value in (fields.object(name) or {}).items()})


def _messages(fields: Fields) -> list[dict[str, Any]]:
    """The messages of ``input``; those of the assistant have a part of a turn each."""
    given = fields.take("input")
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list) or not given or not all(isinstance(item, dict) for item in given):
        fields.refuse("input", "a text or a list of at least one item")
    return [message for item in given for message in _of_item(item)]


def _of_item(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    kind = item.get("type") or "message"
    if kind == "message":
        role = item.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            raise _refused(f"a message of the role {str(role)[:40]!r}; expected one of {', '.join(_ROLES)}")
        yield {"role": _ROLES[role], "content": _text(item.get("content"))}
    elif kind == "reasoning":
        if thought := _text(item.get("content") or ""):
            yield {"role": "assistant", "content": None, "reasoning_content": thought}
    elif kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        yield {"role": "assistant", "content": None, "tool_calls": [call]}
    elif kind == "function_call_output":
        yield {"role": "tool", "tool_call_id": item.get("call_id"), "content": _text(item.get("output"))}
    else:
        expected = "message, reasoning, function_call or function_call_output"
        raise _refused(f"an item of the type {str(kind)[:40]!r}; expected {expected}")


def _text(content: object) -> str:
    """The text of a content, which is one or a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _refused("an item without a text")
    for part in content:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else part
            raise _refused(f"a part of the type {str(kind)[:40]!r}; expected parts with a text, which is all it reads")
    return "".join(part["text"] for part in content)


def _refused(found: str) -> ApiError:
    return ApiError(400, f"`input` has {found}.", param="input", code="invalid_value")


def _joined(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One message for the parts of a turn, and one for instructions that follow each other: templates take no more."""
    found: list[dict[str, Any]] = []
    for message in messages:
        before = found[-1] if found and found[-1]["role"] == message["role"] else None
        if before is None or message["role"] not in ("assistant", "system"):
            found.append(message)
            continue
        for name in ("content", "reasoning_content"):
            if texts := [one[name] for one in (before, message) if one.get(name)]:
                before[name] = "\n\n".join(texts)
        if calls := [call for one in (before, message) for call in one.get("tool_calls", ())]:
            before["tool_calls"] = calls
    return found
