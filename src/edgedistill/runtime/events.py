"""Events of a running generation, in its thread or for asyncio, and the record of a finished one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from edgedistill import notebook
from edgedistill.json_codec import Record

if TYPE_CHECKING:
    import asyncio
    import threading
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator

    from edgedistill.runtime.generate import FinishReason
    from edgedistill.runtime.logprobs import TokenLogprob
    from edgedistill.runtime.settings import Numerics
    from edgedistill.runtime.stats import GenerationStats
    from edgedistill.runtime.tools.types import ToolCall, ToolCallDelta

EventKind = Literal["prefill", "reasoning", "answer", "marker", "tool_call", "done"]


@dataclass(frozen=True, slots=True)
class Generation(Record):
    """A finished generation.

    Attributes:
        text: Everything generated, tags included, as decoded.
        reasoning, answer: The text without its tags and calls, split and stripped of outer white space.
        tokens: Generated ids, the end-of-sequence token included.
        finish_reason: ``stop`` (end-of-sequence token), ``length`` (max_new_tokens), ``stop_string``, ``context`` (the
            context is full) or ``cancelled``.
        reasoning_closed: False where the text ended inside the reasoning.
        note: A remark for the user, such as a missing chat template.
        logprobs: One record a token, where they were asked for.
        tool_calls: Complete calls of the tools that were offered; what could not be read as one is part of the answer.
    """

    text: str
    reasoning: str
    answer: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    numerics: Numerics
    stats: GenerationStats
    reasoning_closed: bool = True
    note: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    tool_calls: tuple[ToolCall, ...] = ()

    def message(self) -> dict[str, Any]:
        """The answer, with its calls, as a message of a history: OpenAI's form."""
        calls = [call.to_dict() for call in self.tool_calls]
        return {"role": "assistant", "content": self.answer, **({"tool_calls": calls} if calls else {})}

    def _repr_html_(self) -> str:
        counts = f"{self.stats.new_tokens} tokens, {self.stats.decode_tps:.1f} tokens/s, {self.finish_reason}"
        return notebook.folded("reasoning", self.reasoning) + notebook.text(self.answer) + notebook.text(counts)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    ``prefill``: ``done`` of ``total`` prompt tokens are computed. ``reasoning``, ``answer``, ``marker`` (a reasoning
    tag, or the text of calls): ``text``, and ``tokens`` generated since the last event; these texts joined are the
    generation's text. ``tool_call``: ``call``, what has become certain of a call. ``done``: the last event, with
    ``generation``.
    """

    kind: EventKind
    text: str = ""
    tokens: int = 0
    done: int = 0
    total: int = 0
    generation: Generation | None = None
    call: ToolCallDelta | None = None


def outcome(events: Iterable[Event], on_event: Callable[[Event], None] | None = None) -> Generation:
    """The generation that ``events`` end with; ``on_event`` sees each of them."""
    result: Generation | None = None
    for event in events:
        if on_event is not None:
            on_event(event)
        result = event.generation or result
    if result is None:
        raise RuntimeError("a generation ended without its last event")
    return result


Item = TypeVar("Item")


async def in_thread(events: Iterator[Item], cancel: threading.Event) -> AsyncGenerator[Item, None]:
    """What ``events`` gives, iterated in a thread.

    Args:
        events: Looks at ``cancel`` and ends soon after it is set.
        cancel: Set when the consumer is cancelled, closes the generator, or raises.
    """
    import asyncio  # an eighth of the time that importing the runtime takes, and most programs do without

    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Item | BaseException | None] = asyncio.Queue()

    def work() -> None:
        try:
            for event in events:
                loop.call_soon_threadsafe(queue.put_nowait, event)
        except BaseException as error:  # every kind: it is raised again where the events are awaited
            loop.call_soon_threadsafe(queue.put_nowait, error)
        else:
            loop.call_soon_threadsafe(queue.put_nowait, None)

    running = loop.run_in_executor(None, work)
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        cancel.set()
        await asyncio.wait([running])
