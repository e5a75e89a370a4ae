"""``/v1/chat/completions``: messages in, an answer and its reasoning out."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from edgedistill.errors import EdgedistillError
from edgedistill.runtime.text.reasoning import opened_by
from edgedistill.server.answers import chat_logprobs, finish_reason, head, timings, usage
from edgedistill.server.errors import ApiError, refusal
from edgedistill.server.fields import read_fields
from edgedistill.server.sampling import read_sampling, top_count
from edgedistill.server.streaming import IDLE_S, EventStream, Trimmer, unless_gone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from edgedistill.runtime.batch.live import Timings, Update
    from edgedistill.runtime.logprobs import TokenLogprob
    from edgedistill.runtime.text.reasoning import TagPair
    from edgedistill.server.fields import Fields
    from edgedistill.server.sampling import Sampling
    from edgedistill.server.service import Running, Service


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What is asked.

    Attributes:
        tokens: Of the rendered prompt. opened: The reasoning tags that it has opened.
        logprobs: Records of generated tokens wanted, with so many of the most likely; None: none.
        stream: As events, and whether the last one has the usage.
        ignored: Fields that are not known.
    """

    tokens: Sequence[int]
    opened: TagPair | None
    sampling: Sampling
    logprobs: int | None
    stream: bool
    include_usage: bool
    ignored: list[str]


async def chat_completions(request: Request) -> Response:
    """Answer a conversation."""
    service: Service = request.app.state.service
    fields = await read_fields(request, service.options.max_body)
    asked = await read_chat(fields, service)
    running = service.start([asked.tokens], asked.sampling, opened=asked.opened, logprobs=asked.logprobs)
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
    messages = fields.take("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        fields.refuse("messages", "a list of at least one message with a role and a content")
    model = service.model
    thinking = fields.flag("enable_thinking")
    effort = fields.text("reasoning_effort", ("none", "minimal", "low", "medium", "high", "xhigh"))
    variables = dict(fields.object("chat_template_kwargs") or {})
    if effort == "none":
        thinking = False
    elif effort is not None:
        variables.setdefault("reasoning_effort", effort)
    sampling = read_sampling(fields, model.default_settings, vocab_size=model.bundle.manifest.model.vocab_size)
    wants, top = fields.flag("logprobs"), top_count(fields, "top_logprobs")
    if top is not None and not wants:
        raise ApiError(400, "`top_logprobs` needs `logprobs`: true.", param="top_logprobs", code="invalid_value")
    stream, options = fields.flag("stream"), fields.object("stream_options") or {}
    _refuse_what_cannot_be(fields)
    try:
        text = await asyncio.to_thread(model.render, messages, thinking=thinking, template_vars=variables)
        tokens = await asyncio.to_thread(model.encode, text)
    except EdgedistillError as error:
        raise refusal(error, param="messages") from error
    return ChatRequest(
        tokens=tokens,
        opened=opened_by(text, model.grammar),
        sampling=sampling,
        logprobs=(top or 0) if wants else None,
        stream=bool(stream),
        include_usage=options.get("include_usage") is True,
        ignored=fields.ignored(),
    )


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


async def _answer(service: Service, asked: ChatRequest, running: Running) -> dict[str, Any]:
    ends: dict[int, Update] = {}
    records: list[list[TokenLogprob]] = [[] for _ in running.sequences]
    async for index, update in running.updates():
        records[index] += update.logprobs
        if update.last:
            ends[index] = update
    choices = []
    for index, one in enumerate(running.sequences):
        message: dict[str, Any] = {"role": "assistant", "content": one.transcript.text("answer").strip()}
        if reasoning := one.transcript.text("reasoning").strip():
            message["reasoning_content"] = reasoning
        logprobs = None if asked.logprobs is None else chat_logprobs(service, records[index])
        choices.append(
            {
                "index": index,
                "message": message,
                "logprobs": logprobs,
                "finish_reason": finish_reason(ends[index].finish or "stop"),
            }
        )
    measured = [end.timings for _, end in sorted(ends.items()) if end.timings is not None]
    return {
        **head(service, "chatcmpl", "chat.completion"),
        "choices": choices,
        "usage": usage(measured, 1),
        "timings": timings(measured),
        "edgedistill": service.remarks(asked.ignored, asked.sampling),
    }


async def _events(service: Service, asked: ChatRequest, running: Running) -> AsyncIterator[dict[str, Any] | None]:
    first = head(service, "chatcmpl", "chat.completion.chunk")

    def chunk(index: int, delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish, **more}
        return {**first, "choices": [choice], **({"usage": None} if asked.include_usage else {})}

    trimmers = [{"reasoning": Trimmer(), "answer": Trimmer()} for _ in running.sequences]
    ended: list[Timings] = []
    for index in range(len(running.sequences)):
        yield chunk(index, {"role": "assistant", "content": ""})
    async for item in running.watched(IDLE_S):
        if item is None:
            yield None
            continue
        index, update = item
        records = update.logprobs
        for event in update.events:
            text = trimmers[index][event.kind].feed(event.text) if event.kind in trimmers[index] else ""
            if text:
                name = "reasoning_content" if event.kind == "reasoning" else "content"
                yield chunk(index, {name: text}, **_logprobs(service, asked, records))
                records = ()
        if records and asked.logprobs is not None:
            yield chunk(index, {}, **_logprobs(service, asked, records))
        if update.finish is not None and update.timings is not None:
            ended.append(update.timings)
            last = chunk(index, {}, finish_reason(update.finish))
            if len(ended) == len(running.sequences):
                last["timings"] = timings(ended)
                last["edgedistill"] = service.remarks(asked.ignored, asked.sampling)
            yield last
    if asked.include_usage:
        yield {**first, "choices": [], "usage": usage(ended, 1)}


def _logprobs(service: Service, asked: ChatRequest, records: Sequence[TokenLogprob]) -> dict[str, Any]:
    return {} if asked.logprobs is None or not records else {"logprobs": chat_logprobs(service, records)}
