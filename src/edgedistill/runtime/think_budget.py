"""A token limit on reasoning: at the limit the reasoning is closed, and the model answers with what it has."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING

from edgedistill.runtime.events import Event
from edgedistill.runtime.generate_one import events
from edgedistill.runtime.text.reasoning import opened_after, opened_by

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgedistill.runtime.decoder import Decoder
    from edgedistill.runtime.events import Generation
    from edgedistill.runtime.generation_request import Request
    from edgedistill.runtime.model import Model
    from edgedistill.runtime.optimum_session import OptimumDecoder

_SUMS = ("new_tokens", "reasoning_tokens", "decode_s", "drafted_tokens", "accepted_tokens")
_LATEST = ("kv_tokens", "kv_bytes", "rss_bytes", "peak_rss_bytes")


def events_within(
    model: Model, request: Request, *, decoder: Decoder | OptimumDecoder | None, cancel: threading.Event | None
) -> Iterator[Event]:
    """``generate_one.events``, in two parts where ``request.think_budget`` (0: none) is used up."""
    budget, stop = request.think_budget, _EitherEvent(cancel)
    thought, written = 0, request.continuing
    first: Generation | None = None
    for event in events(model, request, decoder=decoder, cancel=stop if budget else cancel):
        if event.generation is not None:
            first = event.generation
            continue
        yield event
        written += event.text
        thought += event.tokens if event.kind == "reasoning" else 0
        stop.own = bool(budget) and thought >= budget and (stop.own or event.kind == "reasoning")
    if first is None:
        raise RuntimeError("a generation ended without its last event")
    over = cancel is not None and cancel.is_set()
    left = request.settings.max_new_tokens - first.stats.new_tokens
    if not stop.own or over or first.finish_reason != "cancelled" or left < 1:
        yield Event("done", generation=first)
        return
    closing = closing_events(model, model.rendered(request), written)
    yield from closing
    between = "".join(event.text for event in closing)
    rest = dataclasses.replace(
        request, continuing=written + between, think_budget=0, settings=request.settings.replace(max_new_tokens=left)
    )  # fmt: skip
    for event in events(model, rest, decoder=decoder, cancel=cancel):
        if event.generation is None:
            yield event
        else:
            yield Event("done", generation=_joined(first, between, event.generation))


def closing_events(model: Model, prompt: str, written: str) -> list[Event]:
    """What ends the reasoning of a reply that is ``written`` so far; nothing where none is open.

    Where replies are in channels, the header of the answer's channel comes with it.
    """
    grammar = model.grammar
    pair = opened_after(written, grammar, opened=opened_by(prompt, grammar))
    if pair is None:
        return []
    if grammar.repeats and grammar.answers:
        plain = grammar.answers[0].open
        header = max((pair.open for pair in grammar.answers if pair.open.endswith(plain)), key=len)  # its own message
        return [Event("marker", text=pair.close + header)]
    return [Event("reasoning", text="\n"), Event("marker", text=pair.close), Event("answer", text="\n\n")]


def _joined(first: Generation, between: str, second: Generation) -> Generation:
    a, b = first.stats, second.stats
    sums = {name: getattr(a, name) + getattr(b, name) for name in _SUMS}
    latest = {name: getattr(b, name) for name in _LATEST}
    return dataclasses.replace(
        second,
        text=first.text + between + second.text,
        reasoning="\n".join(part for part in (first.reasoning, second.reasoning) if part),
        answer="\n\n".join(part for part in (first.answer, second.answer) if part),
        tokens=first.tokens + second.tokens,
        stats=dataclasses.replace(a, **sums, **latest),
        logprobs=None if first.logprobs is None else (*first.logprobs, *(second.logprobs or ())),
        tool_calls=first.tool_calls + second.tool_calls,
    )


class _EitherEvent(threading.Event):
    """Set when another event is, or by itself."""

    def __init__(self, other: threading.Event | None) -> None:
        super().__init__()
        self._other = other
        self.own = False

    def is_set(self) -> bool:
        return self.own or (self._other is not None and self._other.is_set())
