"""``/v1/chat/completions``: messages in, an answer and its reasoning out."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from starlette.responses import JSONResponse

from edgedistill.errors import EdgedistillError
from edgedistill.runtime.generation_request import request_of
from edgedistill.runtime.text.thinking import EFFORTS
from edgedistill.server.answers import chat_logprobs, finish_reason, head, timings, usage
from edgedistill.server.errors import ApiError, refusal
from edgedistill.server.fields import read_fields
from edgedistill.server.sampling import read_form, read_sampling, top_count
from edgedistill.server.service import Asked
from edgedistill.server.streaming import IDLE_S, EventStream, Trimmer, unless_gone
from edgedistill.server.vote import answer_by_vote, read_vote

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from edgedistill.runtime.batch.live_sequence import Timings, Update
    from edgedistill.runtime.events import Event
    from edgedistill.runtime.logprobs import TokenLogprob
    from edgedistill.runtime.text.thinking import Effort
    from edgedistill.runtime.tools.types import ToolCallDelta
    from edgedistill.server.fields import Fields
    from edgedistill.server.sampling import Sampling
    from edgedistill.server.service import Running, Service


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What is asked.

    Attributes:
        asked: The prompt.
        sampling: How its samples are drawn.
        stream: As events, and whether the last one has the usage.
        one_call: Only the first call of a tool is wanted.
        ignored: Fields that are not known.
    """

    asked: Asked
    sampling: Sampling
    stream: bool
    include_usage: bool
    one_call: bool
    ignored: list[str]


async def chat_completions(request: Request) -> Response:
    """Answer a conversation."""
    service: Service = request.app.state.service
    fields = await read_fields(request, service.options.max_body)
    options, own_temperature = read_vote(fields), fields.take("temperature") is not None
    asked = await read_chat(fields, service)
    if options is not None:
        return await answer_by_vote(request, service, asked, options, own_temperature=own_temperature)
    running = await service.start([asked.asked], asked.sampling)
    if asked.stream:
        return EventStream(_events(service, asked, running), running)
    try:
        answer = await unless_gone(request, _answer(service, asked, running))
    finally:
        running.cancel()
    return JSONResponse(answer) if isinstance(answer, dict) else answer


async def read_chat(fields: Fields, service: Service) -> ChatRequest:
    """Read and render a request; raises ApiError."""
    service.require_model(fields)
    model = service.model
    messages = _objects(fields, "messages")
    if not messages:
        fields.refuse("messages", "a list of at least one message with a role and a content")
    tools = _objects(fields, "tools")
    choice = fields.take("tool_choice")
    if choice is not None and not isinstance(choice, str | dict):
        fields.refuse("tool_choice", "auto, none, required or a tool")
    sampling = read_sampling(fields, model.default_settings, vocab_size=model.bundle.manifest.model.vocab_size)
    wants, top = fields.flag("logprobs"), top_count(fields, "top_logprobs")
    if top is not None and not wants:
        raise ApiError(400, "`top_logprobs` needs `logprobs`: true.", param="top_logprobs", code="invalid_value")
    effort = fields.text("reasoning_effort", EFFORTS)
    form = read_form(fields)
    stream, options = fields.flag("stream"), fields.object("stream_options") or {}
    _refuse_what_cannot_be(fields)
    thinking, budget = fields.flag("enable_thinking"), fields.integer("think_budget", 0, 1 << 31)
    if thinking is None and budget is None and effort is None:
        thinking, budget = service.options.thinking, service.options.think_budget

    def rendered() -> Asked:
        request = request_of(
            model,
            messages,
            settings=sampling.settings,
            numerics=service.options.numerics,
            logprobs=(top or 0) if wants else None,
            thinking=thinking,
            think_budget=budget or 0,
            reasoning_effort=cast("Effort | None", effort),
            template_vars=fields.object("chat_template_kwargs"),
            tools=tools or None,
            tool_choice=choice,
            **form,
        )
        text = model.rendered(request)
        return Asked(request, text, model.encode(text))

    try:
        asked = await asyncio.to_thread(rendered)
    except EdgedistillError as error:
        raise refusal(error) from error
    return ChatRequest(
        asked=asked,
        sampling=sampling,
        stream=bool(stream),
        include_usage=options.get("include_usage") is True,
        one_call=fields.flag("parallel_tool_calls") is False,
        ignored=fields.ignored(),
    )


def _objects(fields: Fields, name: str) -> list[dict[str, Any]]:
    """A list of objects; empty where there is none."""
    value = fields.take(name)
    if value is not None and (not isinstance(value, list) or not all(isinstance(one, dict) for one in value)):
        fields.refuse(name, "a list of objects")
    return value or []


def _refuse_what_cannot_be(fields: Fields) -> None:
    fields.unsupported(
        {
            "modalities": lambda value: value == ["text"],
            "audio": lambda _: False,
            "prediction": lambda _: False,
            "web_search_options": lambda _: False,
            "functions": lambda value: value == [],
            "function_call": lambda value: value == "none",
            "continue_final_message": lambda value: value is False,
            "add_generation_prompt": lambda value: value is True,
        },
        "this server writes text, with the tools of `tools`",
    )


class Reply:
    """One sample's message as it grows.

    Attributes:
        content, reasoning, calls: So far. records: Of its tokens.
        finish: Why it ended; None before. timings: Of its end.
    """

    def __init__(self, index: int, asked: ChatRequest) -> None:
        self._trimmers = {"reasoning": Trimmer(), "answer": Trimmer()}
        self._open: dict[int, dict[str, Any]] = {}
        self._one_call = asked.one_call
        self.index = index
        self.content, self.reasoning = "", ""
        self.calls: list[dict[str, Any]] = []
        self.records: list[TokenLogprob] = []
        self.finish: str | None = None
        self.timings: Timings | None = None

    def take(self, update: Update) -> list[dict[str, Any]]:
        """What an update adds, as the deltas of a stream. A call is given when it is whole: before, it may be none."""
        self.records += update.logprobs
        deltas = [delta for event in update.events if (delta := self._delta(event)) is not None]
        if update.finish is not None:
            self.finish = "tool_calls" if self.calls and update.finish == "stop" else finish_reason(update.finish)
            self.timings = update.timings
        return deltas

    def _delta(self, event: Event) -> dict[str, Any] | None:
        if event.call is not None:
            return self._call(event.call)
        if event.kind not in self._trimmers or not (text := self._trimmers[event.kind].feed(event.text)):
            return None
        if event.kind == "reasoning":
            self.reasoning += text
            return {"reasoning_content": text}
        self.content += text
        return {"content": text}

    def _call(self, delta: ToolCallDelta) -> dict[str, Any] | None:
        if delta.withdrawn:
            self._open.pop(delta.index, None)
            return None
        call = self._open.setdefault(delta.index, {"id": delta.id, "name": delta.name, "arguments": ""})
        call["arguments"] += delta.arguments
        if not delta.done or (self._one_call and self.calls):
            return None
        function = {"name": call["name"], "arguments": call["arguments"]}
        whole = {"id": call["id"], "type": "function", "function": function}
        self.calls.append(whole)
        return {"tool_calls": [{"index": len(self.calls) - 1, **whole}]}

    def choice(self, service: Service) -> dict[str, Any]:
        """Of a response that is not streamed."""
        message: dict[str, Any] = {"role": "assistant", "content": self.content}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.calls:
            message |= {"content": self.content or None, "tool_calls": self.calls}
        logprobs = chat_logprobs(service, self.records) if self.records else None
        return {"index": self.index, "message": message, "logprobs": logprobs, "finish_reason": self.finish}


async def _answer(service: Service, asked: ChatRequest, running: Running) -> dict[str, Any]:
    replies = [Reply(index, asked) for index in range(len(running.sequences))]
    async for index, update in running.updates():
        replies[index].take(update)
    measured = _measured(replies)
    return {
        **head(service, "chatcmpl", "chat.completion"),
        "choices": [reply.choice(service) for reply in replies],
        "usage": usage(measured, 1),
        "timings": timings(measured),
        "edgedistill": service.remarks(asked.ignored, asked.sampling, asked.asked.request),
    }


async def _events(service: Service, asked: ChatRequest, running: Running) -> AsyncIterator[dict[str, Any] | None]:
    first = head(service, "chatcmpl", "chat.completion.chunk")

    def chunk(
        index: int, delta: dict[str, Any], records: Sequence[TokenLogprob] = (), finish: str | None = None
    ) -> dict[str, Any]:
        logprobs = chat_logprobs(service, records) if records else None
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return {**first, "choices": [choice], **({"usage": None} if asked.include_usage else {})}

    replies = [Reply(index, asked) for index in range(len(running.sequences))]
    for reply in replies:
        yield chunk(reply.index, {"role": "assistant", "content": ""})
    async for item in running.watched(IDLE_S):
        if item is None:
            yield None
            continue
        index, update = item
        deltas = replies[index].take(update)
        if update.logprobs:  # with the text of their tokens, or without any
            yield chunk(index, deltas.pop(0) if deltas else {}, update.logprobs)
        for delta in deltas:
            yield chunk(index, delta)
        if update.finish is not None:
            last = chunk(index, {}, finish=replies[index].finish)
            if all(reply.finish for reply in replies):
                last["timings"] = timings(_measured(replies))
                last["edgedistill"] = service.remarks(asked.ignored, asked.sampling, asked.asked.request)
            yield last
    if asked.include_usage:
        yield {**first, "choices": [], "usage": usage(_measured(replies), 1)}


def _measured(replies: Sequence[Reply]) -> list[Timings]:
    return [reply.timings for reply in replies if reply.timings is not None]
