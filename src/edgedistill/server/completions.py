"""``/v1/completions``: texts or token ids continued without a chat template, or scored with ``echo``."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from edgedistill.errors import EdgedistillError
from edgedistill.runtime.generation_request import Request
from edgedistill.runtime.structured.constraint import constraint_of
from edgedistill.server.answers import PlainLogprobs, finish_reason, head, merged, timings, usage
from edgedistill.server.errors import ApiError, refusal
from edgedistill.server.fields import read_fields
from edgedistill.server.sampling import read_form, read_sampling, top_count
from edgedistill.server.service import Asked
from edgedistill.server.streaming import IDLE_S, EventStream, unless_gone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from starlette.requests import Request as HttpRequest
    from starlette.responses import Response

    from edgedistill.runtime.batch.live_sequence import Timings
    from edgedistill.server.fields import Fields
    from edgedistill.server.sampling import Sampling
    from edgedistill.server.service import Running, Service

MOST_PROMPTS = 256
_DEFAULT_TOKENS = 16
"""OpenAI's, of this endpoint."""


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """What is asked.

    Attributes:
        prompts: Each, with the text that ``echo`` gives back.
        logprobs: Records wanted, with so many of the most likely; None: none.
    """

    prompts: list[Asked]
    sampling: Sampling
    logprobs: int | None
    echo: bool
    stream: bool
    include_usage: bool
    ignored: list[str]


async def completions(request: HttpRequest) -> Response:
    """Continue one or several prompts."""
    service: Service = request.app.state.service
    fields = await read_fields(request, service.options.max_body)
    asked = await asyncio.to_thread(_read, fields, service)
    running = await service.start(asked.prompts, asked.sampling, prompt_logprobs=asked.logprobs if asked.echo else None)
    choices = [Choice(service, asked, index) for index in range(len(running.sequences))]
    if asked.stream:
        return EventStream(_events(service, asked, running, choices), running)
    try:
        answer = await unless_gone(request, _answer(service, asked, running, choices))
    finally:
        running.cancel()
    return JSONResponse(answer) if isinstance(answer, dict) else answer


def _read(fields: Fields, service: Service) -> CompletionRequest:
    service.require_model(fields)
    info = service.model.bundle.manifest.model
    echo = bool(fields.flag("echo"))
    sampling = read_sampling(
        fields,
        service.model.default_settings,
        vocab_size=info.vocab_size,
        max_tokens=_DEFAULT_TOKENS,
        least=0 if echo else 1,
    )
    fields.unsupported({"suffix": lambda value: value == ""}, "nothing is filled in between two texts")
    logprobs = top_count(fields, "logprobs")
    try:
        form = constraint_of(**read_form(fields))
    except EdgedistillError as error:
        raise refusal(error) from error
    request = Request(
        "", sampling.settings, service.options.numerics, raw=True, logprobs=logprobs, constraint=form
    )  # fmt: skip
    return CompletionRequest(
        prompts=[Asked(request, text, tokens) for text, tokens in _prompts(fields, service, info.vocab_size)],
        sampling=sampling,
        logprobs=logprobs,
        echo=echo,
        stream=bool(fields.flag("stream")),
        include_usage=(fields.object("stream_options") or {}).get("include_usage") is True,
        ignored=fields.ignored(),
    )


def _prompts(fields: Fields, service: Service, vocab_size: int) -> list[tuple[str, list[int]]]:
    """The text and the token ids of every ``prompt``: a text, texts, ids, or lists of ids."""
    given = fields.take("prompt")
    several = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
    if len(several) > MOST_PROMPTS:
        raise ApiError(400, f"{len(several)} prompts were given; at most {MOST_PROMPTS} are possible.", param="prompt")
    found = []
    for one in several:
        if isinstance(one, str):
            found.append((one, service.model.encode(one, raw=True)))
        elif isinstance(one, list) and one and all(type(token) is int and 0 <= token < vocab_size for token in one):
            found.append((service.decode(one), one))
        else:
            fields.refuse("prompt", f"a text, texts, or lists of token ids below {vocab_size}")
    return found


class Choice:
    """One continuation as it grows.

    Attributes:
        text: So far, the echoed prompt included. logprobs: Of its tokens; None unless asked for.
        finish: Why it ended. timings: Of its sequence.
    """

    def __init__(self, service: Service, asked: CompletionRequest, index: int) -> None:
        self._service, self._asked = service, asked
        self._records = PlainLogprobs()
        prompt = asked.prompts[index // asked.sampling.n]
        self._token = prompt.tokens[0] if prompt.tokens else 0
        self._first = asked.echo and asked.logprobs is not None
        self.index = index
        self.text = prompt.text if asked.echo else ""
        self.logprobs: dict[str, Any] | None = None
        self.finish: str | None = None
        self.timings: Timings | None = None

    def take(self, update: Any) -> tuple[str, dict[str, Any] | None]:
        """The text and the records that an update brings."""
        text, records = "".join(event.text for event in update.events), None
        if self._first and (update.prompt_logprobs or update.last or update.logprobs):
            records, self._first = self._records.prompt(self._service, self._token, update.prompt_logprobs), False
        elif update.prompt_logprobs:
            records = self._records.tokens(update.prompt_logprobs)
        if update.logprobs:
            records = merged(records, self._records.tokens(update.logprobs))
        if update.finish is not None:
            self.finish, self.timings = finish_reason(update.finish), update.timings
        return text, records

    def to_dict(self, text: str, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        """A choice of a response, or of an event."""
        return {"index": self.index, "text": text, "logprobs": logprobs, "finish_reason": self.finish}


async def _answer(
    service: Service, asked: CompletionRequest, running: Running, choices: Sequence[Choice]
) -> dict[str, Any]:
    async for index, update in running.updates():
        text, records = choices[index].take(update)
        choices[index].text += text
        if records is not None:
            choices[index].logprobs = merged(choices[index].logprobs, records)
    measured = [choice.timings for choice in choices if choice.timings is not None]
    return {
        **head(service, "cmpl", "text_completion"),
        "choices": [choice.to_dict(choice.text, choice.logprobs) for choice in choices],
        "usage": usage(measured, len(asked.prompts)),
        "timings": timings(measured),
        "edgedistill": service.remarks(asked.ignored, asked.sampling, asked.prompts[0].request),
    }


async def _events(
    service: Service, asked: CompletionRequest, running: Running, choices: Sequence[Choice]
) -> AsyncIterator[dict[str, Any] | None]:
    first = head(service, "cmpl", "text_completion")
    more = {"usage": None} if asked.include_usage else {}
    if asked.echo:
        for choice in choices:
            yield {**first, "choices": [choice.to_dict(choice.text, None)], **more}
    async for item in running.watched(IDLE_S):
        if item is None:
            yield None
            continue
        index, update = item
        text, records = choices[index].take(update)
        if text or records or update.last:
            yield {**first, "choices": [choices[index].to_dict(text, records)], **more}
    measured = [choice.timings for choice in choices if choice.timings is not None]
    if asked.include_usage:
        yield {
            **first,
            "choices": [],
            "usage": usage(measured, len(asked.prompts)),
            "timings": timings(measured),
            "edgedistill": service.remarks(asked.ignored, asked.sampling, asked.prompts[0].request),
        }
