"""Whether a model reasons before it answers: by the switch that its template has, or by beginning the reply for it.

Templates call the switch differently, and a variable that a template does not read changes nothing: the real one is
found by rendering a short conversation with and without each. Where there is none, the prompt is given the mark that
opens the reasoning, or an empty reasoning that is over already; the model's grammar knows both.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from edgedistill.catalog.reasoning import DEFAULT_TAGS
from edgedistill.errors import GenerationError, TemplateError
from edgedistill.runtime.text.reasoning import opened_by

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgedistill.runtime.text.chat_template import Message, Template
    from edgedistill.runtime.text.reasoning import ReasoningGrammar, TagPair

Effort = Literal["none", "minimal", "low", "medium", "high"]
EFFORTS: tuple[Effort, ...] = get_args(Effort)
_SHARES = {"minimal": 0.1, "low": 0.2, "medium": 0.5, "high": 0.8}
"""Of the longest reply, for reasoning."""

_PROBE: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]
_NAMED = (("thinking_mode", "enabled", "disabled"), ("thinking_option", "on", "off"))
"""Variables that are no yes or no (MiniMax-M3, Ring)."""
_ANY = "any-value"
_RESERVED = ("messages", "add_generation_prompt")
_FLAGS = {True: "/think", False: "/no_think"}


@dataclass(frozen=True, slots=True)
class Switch:
    """How a template is told to have the model reason or not.

    Attributes:
        name: Of the variable, or the text in the system's message.
        on, off: Variables for either; None where the template cannot do that.
        budget: The variable that takes a number of tokens; empty if there is none.
        flag: ``/think`` or ``/no_think`` goes into the system's message instead.
    """

    name: str
    on: Mapping[str, Any] | None = field(default_factory=dict)
    off: Mapping[str, Any] | None = field(default_factory=dict)
    budget: str = ""
    flag: bool = False


def find_switch(render: Callable[..., str]) -> Switch | None:
    """The switch of the template that ``render`` (messages, then variables by name) renders; None if it has none."""

    def tried(variables: dict[str, Any], messages: Sequence[Message] = _PROBE) -> str | None:
        try:
            return render(messages, **variables)
        except TemplateError:
            return None

    plain = tried({})
    budget = "thinking_budget"
    few, many = tried({budget: 17}), tried({budget: 1717})
    budget = budget if None not in (few, many) and few != many else ""
    for name in ("enable_thinking", "thinking", "reasoning"):
        on, off = tried({name: True}), tried({name: False})
        if on is not None and off is not None and on != off:
            return Switch(name, {name: True}, {name: False}, budget)
    for name, yes, no in _NAMED:
        on, off = tried({name: yes}), tried({name: no})
        echoed = _ANY in (tried({name: _ANY}) or "")
        if on is not None and off is not None and on != off and not echoed:
            return Switch(name, {name: yes}, {name: no}, budget)
    if budget and tried({budget: 0}) not in (plain, None):
        return Switch(budget, {}, {budget: 0}, budget)
    name = "reasoning_effort"
    high, low, none = (tried({name: effort}) for effort in ("high", "low", "none"))
    if high is not None and high != low:
        # A template that writes whatever it is given into the prompt does not know what "none" means.
        known = none is not None and "none" not in none and none not in (high, plain)
        return Switch(name, {name: "high"}, {name: "none"} if known else None)
    on, off = (tried({}, _flagged(_PROBE, flag)) for flag in _FLAGS.values())
    if on is not None and off is not None and on.replace(_FLAGS[True], "") != off.replace(_FLAGS[False], ""):
        return Switch(_FLAGS[False], flag=True)
    return None


def _flagged(messages: Sequence[Message], flag: str) -> list[Message]:
    if messages[0]["role"] == "system":
        return [{**messages[0], "content": f"{messages[0]['content']}\n{flag}"}, *messages[1:]]
    return [{"role": "system", "content": flag}, *messages]


class ThinkingControl:
    """Renders the prompts of one model with or without reasoning.

    Args:
        template: Its chat template.
        grammar: The marks of its reasoning.
        is_token: Whether a text is one token of its vocabulary.
    """

    def __init__(self, template: Template, grammar: ReasoningGrammar, is_token: Callable[[str], bool]) -> None:
        self._template = template
        self._grammar = grammar
        self._is_token = is_token

    @functools.cached_property
    def switch(self) -> Switch | None:
        """The template's own switch; None if it has none."""
        return find_switch(self._template.render)

    @functools.cached_property
    def pair(self) -> TagPair | None:
        """The marks that a reply can be begun with: those that something about the model speaks of."""
        source = self._template.source
        return next(
            (
                pair for pair in self._grammar.tags
                if pair not in DEFAULT_TAGS or pair.open in source or self._is_token(pair.open)
            ),
            None,
        )  # fmt: skip

    def render(
        self,
        messages: Sequence[Message],
        *,
        thinking: bool | None = None,
        budget: int = 0,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt.

        Args:
            messages: The conversation so far.
            thinking: Have the model reason or not; None leaves it to the template.
            budget: Tokens of reasoning, for a template that takes a number; 0: not said.
            variables: Of the template; they count more than ``thinking``.

        Raises:
            TemplateError, GenerationError: See ``ChatTemplate.render``; a variable of a reserved name.
        """
        variables = dict(variables or {})
        if reserved := [name for name in _RESERVED if name in variables]:
            raise GenerationError(f"The template variable {reserved[0]} cannot be set: the conversation decides it.")
        if thinking is None and not budget:
            return self._template.render(messages, **variables)
        switch = self.switch
        chosen = None if switch is None or thinking is None else switch.on if thinking else switch.off
        limit = {switch.budget: budget} if budget and switch is not None and switch.budget else {}
        if switch is not None and switch.flag and thinking is not None and messages:
            messages = _flagged(messages, _FLAGS[thinking])
        text = self._template.render(messages, **{**limit, **(chosen or {}), **variables})
        return text if thinking is None or chosen is not None else text + self._begun(text, thinking=thinking)

    def _begun(self, prompt: str, *, thinking: bool) -> str:
        """The beginning of a reply that reasons, or that is done with it."""
        opened, pair = opened_by(prompt, self._grammar), self.pair
        if thinking:
            return f"{pair.open}\n" if opened is None and pair is not None and not self._grammar.repeats else ""
        if opened is not None:
            return f"{'' if prompt.endswith(chr(10)) else chr(10)}\n{opened.close}\n\n"
        if self._grammar.repeats and self._grammar.answers:
            return self._grammar.answers[0].open  # straight to the channel of the answer
        return "" if pair is None else f"{pair.open}\n\n{pair.close}\n\n"

    def effort(self, effort: Effort, max_new_tokens: int) -> tuple[bool, int, dict[str, Any]]:
        """How much reasoning ``effort`` asks for: whether any, most tokens of it (0: no limit), template variables.

        A template that knows ``reasoning_effort`` is told it (``low`` for ``minimal``, which few know). Otherwise
        minimal, low, medium and high are 10, 20, 50 and 80 % of ``max_new_tokens``.

        Raises:
            GenerationError: There is no such effort.
        """
        if effort not in EFFORTS:
            raise GenerationError(f"reasoning_effort is {effort!r}; expected one of {', '.join(EFFORTS)}.")
        if effort == "none":
            return False, 0, {}
        if self.switch is not None and self.switch.name == "reasoning_effort":
            return True, 0, {"reasoning_effort": "low" if effort == "minimal" else effort}
        return True, max(1, int(_SHARES[effort] * max_new_tokens)), {}

    def note(self, thinking: bool | None) -> str | None:
        """A sentence where ``thinking`` can be had by neither way."""
        if thinking is None or self.switch is not None or self.pair is not None:
            return None
        what = "Reasoning cannot be asked for" if thinking else "Reasoning cannot be switched off"
        return f"{what}: the chat template has no switch, and no marks of this model's reasoning are known."
