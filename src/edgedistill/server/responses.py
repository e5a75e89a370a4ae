"""``/v1/responses``: OpenAI's newer API, over what ``chat`` does.

``responses_request`` puts a request into the words of a chat; here the deltas of its reply become items and the events
that tell of them. An answer that is not streamed is what the last event carries.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from edgedistill.server.answers import timings, usage
from edgedistill.server.chat import Reply, read_chat
from edgedistill.server.fields import Fields, read_fields
from edgedistill.server.responses_request import as_chat
from edgedistill.server.streaming import IDLE_S, EventStream, unless_gone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.requests import Request
    from starlette.responses import Response

    from edgedistill.server.chat import ChatRequest
    from edgedistill.server.service import Running, Service

_PARTS = {"reasoning": "reasoning_text", "message": "output_text"}
"""What the content of an item consists of."""


async def responses(request: Request) -> Response:
    """Answer a conversation."""
    service: Service = request.app.state.service
    fields = await read_fields(request, service.options.max_body)
    chat, said, ignored = as_chat(fields)
    asked = await read_chat(Fields(chat), service)
    settings = asked.sampling.settings
    start = {
        "id": f"resp_{secrets.token_hex(12)}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "model": service.options.name,
        "output": [],
        "error": None,
        "incomplete_details": None,
        "usage": None,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "tools": chat.get("tools") or [],
        "tool_choice": chat.get("tool_choice") or "auto",
        "parallel_tool_calls": not asked.one_call,
        "previous_response_id": None,
        "store": False,
        "truncation": "disabled",
        **said,
    }
    running = await service.start([asked.asked], asked.sampling)
    events = _events(service, asked, running, start, [*asked.ignored, *ignored])
    if asked.stream:
        return EventStream(_numbered(events), running)
    try:
        answer = await unless_gone(request, _last(events))
    finally:
        running.cancel()
    return JSONResponse(answer) if isinstance(answer, dict) else answer


class _Items:
    """The items of a response as they grow; what makes them grow gives the events that tell of it."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []
        self._open = False

    def take(self, delta: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """A delta of a chat."""
        for call in delta.get("tool_calls", ()):
            yield from self._call(call)
        for name, kind in (("reasoning_content", "reasoning"), ("content", "message")):
            if text := delta.get(name):
                yield from self._grow(kind, text)

    def close(self, status: str = "completed") -> Iterator[dict[str, Any]]:
        """The end of the item whose text grows, if one does."""
        if self._open:
            (part,) = self.all[-1]["content"]
            yield self._event(f"{part['type']}.done", content_index=0, text=part["text"], **_records(part))
            yield self._event("content_part.done", content_index=0, part=part)
            yield self._end(status)
            self._open = False

    def _grow(self, kind: str, text: str) -> Iterator[dict[str, Any]]:
        if not self._open or self.all[-1]["type"] != kind:
            yield from self.close()
            rest: dict[str, Any] = {"role": "assistant"} if kind == "message" else {"summary": []}
            yield self._begin(kind, {**rest, "content": []})
            part: dict[str, Any] = {"type": _PARTS[kind], "text": ""}
            if kind == "message":
                part |= {"annotations": [], "logprobs": []}
            yield self._event("content_part.added", content_index=0, part=part)
            self.all[-1]["content"].append(part)
            self._open = True
        (part,) = self.all[-1]["content"]
        part["text"] += text
        yield self._event(f"{part['type']}.delta", content_index=0, delta=text, **_records(part))

    def _call(self, call: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from self.close()
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        yield self._begin("function_call", {"call_id": call["id"], "name": name, "arguments": ""})
        self.all[-1]["arguments"] = arguments
        yield self._event("function_call_arguments.delta", delta=arguments)
        yield self._event("function_call_arguments.done", name=name, arguments=arguments)
        yield self._end("completed")

    def _begin(self, kind: str, rest: dict[str, Any]) -> dict[str, Any]:
        self.all.append({"id": f"{kind}_{secrets.token_hex(12)}", "type": kind, "status": "in_progress", **rest})
        return self._item("added")

    def _end(self, status: str) -> dict[str, Any]:
        self.all[-1]["status"] = status
        return self._item("done")

    def _item(self, what: str) -> dict[str, Any]:
        index = len(self.all) - 1
        return {"type": f"response.output_item.{what}", "output_index": index, "item": self.all[index]}

    def _event(self, kind: str, **more: Any) -> dict[str, Any]:
        index = len(self.all) - 1
        return {"type": f"response.{kind}", "output_index": index, "item_id": self.all[index]["id"], **more}


def _records(part: dict[str, Any]) -> dict[str, Any]:
    return {"logprobs": []} if "logprobs" in part else {}


async def _events(
    service: Service, asked: ChatRequest, running: Running, start: dict[str, Any], ignored: list[str]
) -> AsyncIterator[dict[str, Any] | None]:
    reply, items = Reply(0, asked), _Items()
    yield {"type": "response.created", "response": start}
    yield {"type": "response.in_progress", "response": start}
    async for arrived in running.watched(IDLE_S):
        if arrived is None:
            yield None
            continue
        for delta in reply.take(arrived[1]):
            for event in items.take(delta):
                yield event
    status = "incomplete" if reply.finish == "length" else "completed"
    for event in items.close(status):
        yield event
    measured = [reply.timings] if reply.timings is not None else []
    tokens = usage(measured, 1)
    response = {
        **start,
        "status": status,
        "output": items.all,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "usage": {
            "input_tokens": tokens["prompt_tokens"],
            "input_tokens_details": tokens["prompt_tokens_details"],
            "output_tokens": tokens["completion_tokens"],
            "output_tokens_details": tokens["completion_tokens_details"],
            "total_tokens": tokens["total_tokens"],
        },
        "timings": timings(measured),
        "edgedistill": service.remarks(ignored, asked.sampling, asked.asked.request),
    }
    yield {"type": f"response.{status}", "response": response}


async def _numbered(events: AsyncIterator[dict[str, Any] | None]) -> AsyncIterator[dict[str, Any] | None]:
    number = 0
    async for event in events:
        yield event if event is None else {**event, "sequence_number": number}
        number += event is not None


async def _last(events: AsyncIterator[dict[str, Any] | None]) -> dict[str, Any]:
    """The response that the last of ``events`` carries."""
    response: dict[str, Any] = {}
    async for event in events:
        if event is not None and "response" in event:
            response = event["response"]
    return response
