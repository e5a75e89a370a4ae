"""The extension ``"trajectories": K`` of a chat: several attempts, a vote and its tally, a pass that reads them all.

A run has rows of its own beside the live batch, one run at a time; requests for others wait for it.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, cast, get_args

from starlette.responses import JSONResponse

from edgedistill.errors import EdgedistillError
from edgedistill.runtime.events import in_thread
from edgedistill.server.answers import head
from edgedistill.server.errors import ApiError, failure, refusal
from edgedistill.server.streaming import EventStream, unless_gone
from edgedistill.trajectories.options import DEFAULT_TEMPERATURE, MOST_TRAJECTORIES, TrajectoryOptions, VoteRule
from edgedistill.trajectories.run import stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response

    from edgedistill.server.chat import ChatRequest
    from edgedistill.server.fields import Fields
    from edgedistill.server.service import Service
    from edgedistill.trajectories.result import TrajectoryEvent, TrajectoryResult


FORMS = ("response_format", "json_schema", "grammar", "regex", "choices")


def read_vote(fields: Fields) -> TrajectoryOptions | None:
    """What a request says of trajectories; None where it wants a plain reply. Raises ApiError."""
    count = fields.integer("trajectories", 1, MOST_TRAJECTORIES)
    deliberate = fields.flag("deliberate")
    vote = fields.text("vote", get_args(VoteRule))
    if count is None and not deliberate and vote is None:
        return None
    for name in ("tools", "logprobs", "top_logprobs", "think_budget", "reasoning_effort", *FORMS):
        if fields.take(name):
            raise ApiError(
                400, f"`{name}` cannot be combined with `trajectories`.", param=name, code="unsupported_parameter"
            )
    if (fields.take("n") or 1) != 1:
        raise ApiError(400, "`n` is 1 with `trajectories`: the vote is one answer.", param="n", code="invalid_value")
    rule = cast("VoteRule", vote or "majority")
    return TrajectoryOptions(8 if count is None else count, vote=rule, deliberate=bool(deliberate))


async def answer_by_vote(
    request: Request, service: Service, asked: ChatRequest, options: TrajectoryOptions, *, own_temperature: bool
) -> Response:
    """Answer a conversation; ``own_temperature``: the request names one. Raises ApiError."""
    service.require_room(asked.asked.tokens)
    settings = asked.sampling.settings
    if settings.greedy and not own_temperature:
        settings = settings.replace(temperature=DEFAULT_TEMPERATURE)
    cancel = threading.Event()
    try:
        events = stream(
            service.model,
            asked.asked.request.prompt,
            options=options,
            settings=settings,
            numerics=service.options.numerics,
            thinking=asked.asked.request.thinking,
            cancel=cancel,
        )
    except EdgedistillError as error:
        raise refusal(error) from error
    if service.votes_waiting >= service.options.queue:
        raise ApiError(429, "Too many requests for trajectories wait. Ask again in a moment.", code="queue_full")

    async def run() -> AsyncIterator[TrajectoryEvent]:
        service.votes_waiting += 1
        try:
            async with asyncio.timeout(service.options.timeout_s):
                async with service.voting:
                    async for event in in_thread(events, cancel):
                        yield event
        finally:
            service.votes_waiting -= 1

    if asked.stream:
        return EventStream(_events(service, asked, run()))
    answer = await unless_gone(request, _answer(service, asked, run()))
    return JSONResponse(answer) if isinstance(answer, dict) else answer


async def _answer(service: Service, asked: ChatRequest, events: AsyncIterator[TrajectoryEvent]) -> dict[str, Any]:
    result = None
    try:
        async for event in events:
            result = event.result or result
    except EdgedistillError as error:
        if result is None:
            raise failure(error) from error
    if result is None:
        raise ApiError(500, "The vote ended without a result.", code="generation_failed")
    message: dict[str, Any] = {"role": "assistant", "content": result.answer}
    if result.reasoning:
        message["reasoning_content"] = result.reasoning
    return {
        **head(service, "chatcmpl", "chat.completion"),
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(result)}],
        "usage": _usage(result),
        "edgedistill": _remarks(service, asked, result),
    }


async def _events(
    service: Service, asked: ChatRequest, events: AsyncIterator[TrajectoryEvent]
) -> AsyncIterator[dict[str, Any] | None]:
    """A comment for each attempt that ends, then the answer that stands, whole: before the vote there is none."""
    first = head(service, "chatcmpl", "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**first, "choices": [choice]}

    yield chunk({"role": "assistant", "content": ""})
    async for event in events:
        if event.kind == "finished":
            yield None
        if event.result is None:
            continue
        if event.result.reasoning:
            yield chunk({"reasoning_content": event.result.reasoning})
        yield chunk({"content": event.result.answer})
        last = chunk({}, _finish(event.result))
        yield {**last, "edgedistill": _remarks(service, asked, event.result)}
        if asked.include_usage:
            yield {**first, "choices": [], "usage": _usage(event.result)}


def _finish(result: TrajectoryResult) -> str:
    return "stop" if result.decided_by != "none" else "length"


def _usage(result: TrajectoryResult) -> dict[str, Any]:
    stats = result.stats
    new = stats.trajectory_tokens + stats.pass_tokens
    return {
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": new,
        "total_tokens": stats.prompt_tokens + new,
        "prompt_tokens_details": {"cached_tokens": stats.cached_tokens},
    }


def _remarks(service: Service, asked: ChatRequest, result: TrajectoryResult) -> dict[str, Any]:
    said = service.remarks(asked.ignored, asked.sampling, asked.asked.request)
    trajectories = [
        {"index": one.index, "kind": one.kind, "vote": one.vote, "finish": one.finish, "tokens": len(one.tokens)}
        for one in result.trajectories
    ]
    return {
        **said,
        "seed": result.stats.seed,
        "final": result.final,
        "decided_by": result.decided_by,
        "winner": result.winner,
        "vote": result.vote.to_dict(),
        "trajectories": trajectories,
        "notes": list(result.notes),
        "saved_tokens": result.stats.saved_tokens,
    }
