"""A conversation with a model: its messages so far, and the KV cache that holds them.

>>> with edgedistill.open_bundle("my-bundle") as model, model.chat(system="Answer briefly.") as chat:
...     chat.ask("What is 12 + 30?").answer
...     chat.ask("And twice that?").answer
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

from edgedistill.errors import GenerationError
from edgedistill.runtime.events import outcome

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping, Sequence

    from edgedistill.runtime.events import Event, Generation
    from edgedistill.runtime.model import Model
    from edgedistill.runtime.settings import GenerationSettings, Numerics
    from edgedistill.runtime.structured.constraint import ResponseFormat, Schema
    from edgedistill.runtime.text.thinking import Effort
    from edgedistill.runtime.tools.types import ToolChoiceArgument, ToolsArgument


class Keywords(TypedDict, total=False):
    """Keywords of everything that generates; ``Model.generate`` describes them."""

    temperature: float | None
    max_new_tokens: int | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    seed: int | None
    stop: str | Sequence[str] | None
    speculate: str | int | None
    logprobs: int | None
    settings: GenerationSettings | None
    numerics: Numerics
    thinking: bool | None
    think_budget: int
    reasoning_effort: Effort | None
    template_vars: Mapping[str, Any] | None
    tools: ToolsArgument | None
    tool_choice: ToolChoiceArgument | None
    response_format: ResponseFormat | None
    json_schema: Schema | None
    grammar: str | None
    regex: str | None
    choices: Sequence[str] | None
    cancel: threading.Event | None


class BatchKeywords(Keywords, total=False):
    """Those without a history besides."""

    raw: bool


class StreamKeywords(BatchKeywords, total=False):
    """Those of a single generation besides; ``Model.stream`` describes them."""

    continuing: str


class Conversation:
    """Questions and answers in turn. Every turn computes only what its KV cache does not hold yet.

    The history holds answers without their reasoning, as chat templates of reasoning models expect, and calls of tools.
    A turn that fails or is left before its end is not part of it.

    Attributes:
        messages: The history, as dicts with ``role`` and ``content``; it may be changed.
    """

    def __init__(self, model: Model, *, system: str | None = None, **keywords: Unpack[Keywords]) -> None:
        """Use ``Model.chat``. ``keywords``: of every turn, unless the turn has its own."""
        self._model = model
        self._keywords = keywords
        self._decoder = model.session.decoder()
        self.messages: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system}]

    def ask(self, text: str, **keywords: Unpack[Keywords]) -> Generation:
        """The answer to ``text``; the keywords are those of ``Model.generate``."""
        return outcome(self.stream(text, **keywords))

    def stream(self, text: str, **keywords: Unpack[Keywords]) -> Iterator[Event]:
        """The same step by step; the turn is part of the history once the last event was given."""
        yield from self._turn([*self.messages, {"role": "user", "content": text}], keywords)

    def give(self, results: Mapping[str, str], **keywords: Unpack[Keywords]) -> Generation:
        """The answer once the calls of the last turn have their results.

        Args:
            results: Of each call, by its id.
            keywords: Of ``Model.generate``.

        Raises:
            GenerationError: The last turn has other calls, or none.
        """
        return outcome(self.give_streamed(results, **keywords))

    def give_streamed(self, results: Mapping[str, str], **keywords: Unpack[Keywords]) -> Iterator[Event]:
        """``give`` step by step."""
        calls = self.messages[-1].get("tool_calls", ()) if self.messages else ()
        names = {call["id"]: call["function"]["name"] for call in calls}
        if not names or set(names) != set(results):
            raise GenerationError(
                f"Results are given for {', '.join(results) or 'no calls'}; "
                f"the last turn has {', '.join(names) or 'no calls'}."
            )
        messages = [
            {"role": "tool", "tool_call_id": key, "name": name, "content": results[key]} for key, name in names.items()
        ]
        yield from self._turn([*self.messages, *messages], keywords)

    def _turn(self, messages: list[dict[str, Any]], keywords: Keywords) -> Iterator[Event]:
        chosen: Keywords = {**self._keywords, **keywords}
        for event in self._model.stream(messages, **chosen, decoder=self._decoder):
            if event.generation is not None:
                self.messages = [*messages, event.generation.message()]
            yield event

    def undo(self) -> str:
        """Take the last turn back; its question. Raises GenerationError if there is none."""
        asked = [index for index, message in enumerate(self.messages) if message["role"] == "user"]
        if not asked or self.messages[-1]["role"] != "assistant":
            raise GenerationError("The conversation has no turn to take back.")
        question = str(self.messages[asked[-1]]["content"])
        del self.messages[asked[-1] :]
        return question

    def close(self) -> None:
        """Give the memory of the KV cache back; a later turn computes the whole history again."""
        self._decoder = self._model.session.decoder()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
