"""Reasoning switched on and off: by what a template reads, or by the beginning of the reply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import chat_templates
import pytest

from edgedistill.catalog.reasoning import find_grammar
from edgedistill.errors import GenerationError
from edgedistill.runtime.text.chat_template import ChatTemplate, PassThrough
from edgedistill.runtime.text.reasoning import opened_by, split
from edgedistill.runtime.text.thinking import EFFORTS, Switch, ThinkingControl, find_switch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ASK = [{"role": "user", "content": "Why?"}]
_TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
R1 = _TURNS + "{% if add_generation_prompt %}<assistant><think>\n{% endif %}"
GRANITE = "{% if thinking %}Think first.{% endif %}" + _TURNS + "<assistant>"
HARMONY = "Reasoning: {{ reasoning_effort | default('medium') }}" + _TURNS + "<|start|>assistant"
MISTRAL = "{% if reasoning_effort == 'high' %}Think in [THINK].{% endif %}" + _TURNS
MISTRAL += "{% if reasoning_effort == 'none' %}No reasoning.{% endif %}"
SEED = (
    "{% if thinking_budget is defined %}{% if thinking_budget == 0 %}Answer at once.{% else %}"
    "At most {{ thinking_budget }} tokens.{% endif %}{% endif %}" + _TURNS + "<assistant>"
)
NEMOTRON = (
    "{% set ns = namespace(on=true) %}{% for m in messages %}{% if '/no_think' in m.content %}{% set ns.on = false %}"
    "{% endif %}{% endfor %}" + _TURNS + "<assistant>{% if ns.on %}<think>\n{% else %}<think></think>{% endif %}"
)
M3 = (
    _TURNS
    + "<assistant>{% if thinking_mode == 'enabled' %}<mm:think>{% endif %}"
    + "{% if thinking_mode == 'disabled' %}</mm:think>{% endif %}"
)
RING = "{% if thinking_option == 'on' %}detailed thinking on{% else %}detailed thinking off{% endif %}" + _TURNS
SAYS_OPTION = "{{ thinking_option }}" + _TURNS
ECHO = "{% if messages[0].role == 'system' %}S: {{ messages[0].content }}{% endif %}" + _TURNS


@pytest.fixture
def control() -> Iterator[Callable[..., ThinkingControl]]:
    made: list[ChatTemplate] = []

    def make(source: str, *tokens: str) -> ThinkingControl:
        made.append(ChatTemplate(source))
        return ThinkingControl(made[-1], find_grammar(source, tokens), tokens.__contains__)

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize(
    ("source", "switch"),
    [
        (chat_templates.QWEN3, Switch("enable_thinking", {"enable_thinking": True}, {"enable_thinking": False})),
        (chat_templates.SMOLLM3_LIKE, Switch("enable_thinking", {"enable_thinking": True}, {"enable_thinking": False})),
        (GRANITE, Switch("thinking", {"thinking": True}, {"thinking": False})),
        (SEED, Switch("thinking_budget", {}, {"thinking_budget": 0}, "thinking_budget")),
        (MISTRAL, Switch("reasoning_effort", {"reasoning_effort": "high"}, {"reasoning_effort": "none"})),
        (HARMONY, Switch("reasoning_effort", {"reasoning_effort": "high"}, None)),
        (NEMOTRON, Switch("/no_think", flag=True)),
        (M3, Switch("thinking_mode", {"thinking_mode": "enabled"}, {"thinking_mode": "disabled"})),
        (RING, Switch("thinking_option", {"thinking_option": "on"}, {"thinking_option": "off"})),
        (SAYS_OPTION, None),
        (R1, None),
        (ECHO, None),
        (chat_templates.CHATML, None),
        (chat_templates.GEMMA, None),
    ],
)
def test_the_switch_is_the_one_that_changes_the_prompt(control: Any, source: str, switch: Switch | None) -> None:
    assert control(source).switch == switch


def test_a_switch_is_used_and_the_users_variables_count_more(control: Any) -> None:
    granite = control(GRANITE)
    assert granite.render(ASK, thinking=True).startswith("Think first.")
    assert not granite.render(ASK, thinking=False).startswith("Think first.")
    assert not granite.render(ASK, thinking=True, variables={"thinking": False}).startswith("Think first.")
    assert "/no_think" in control(NEMOTRON).render(ASK, thinking=False)
    assert control(NEMOTRON).render([{"role": "system", "content": "Brief."}, *ASK], thinking=False).startswith(
        "<system>Brief.\n/no_think<user>Why?"
    )  # fmt: skip
    assert control(SEED).render(ASK, budget=99).startswith("At most 99 tokens.")
    assert control(SEED).render(ASK, thinking=False, budget=99).startswith("Answer at once.")
    assert control(HARMONY).render(ASK, variables={"reasoning_effort": "low"}).startswith("Reasoning: low")
    with pytest.raises(GenerationError, match="messages cannot be set"):
        granite.render(ASK, variables={"messages": []})


def test_without_a_switch_the_reply_is_begun(control: Any) -> None:
    r1 = control(R1)
    assert r1.render(ASK) == r1.render(ASK, thinking=True) == "<user>Why?<assistant><think>\n"
    closed = r1.render(ASK, thinking=False)
    assert closed == "<user>Why?<assistant><think>\n\n</think>\n\n"
    assert opened_by(closed, find_grammar(R1)) is None
    known = control(chat_templates.CHATML, "<think>", "</think>")
    assert known.render(ASK, thinking=True).endswith("assistant\n<think>\n")
    assert known.render(ASK, thinking=False).endswith("assistant\n<think>\n\n</think>\n\n")
    harmony = control(HARMONY, "<|channel|>", "<|message|>")
    assert harmony.render(ASK, thinking=True).startswith("Reasoning: high")
    straight = harmony.render(ASK, thinking=False)
    assert straight.endswith("<|start|>assistant<|channel|>final<|message|>")
    assert split("4", find_grammar("", ("<|channel|>", "<|message|>"))).answer == "4"


def test_what_cannot_be_done_is_said(control: Any) -> None:
    plain = control(chat_templates.CHATML)
    assert plain.render(ASK, thinking=False) == plain.render(ASK)
    assert "cannot be switched off" in plain.note(False)
    assert "cannot be asked for" in plain.note(True)
    assert plain.note(None) is None
    assert control(R1).note(False) is None
    assert ThinkingControl(PassThrough(), find_grammar(None), lambda _: False).note(True) is not None


def test_a_template_that_refuses_variables_has_no_switch() -> None:
    template = ChatTemplate("{% if enable_thinking is defined or thinking is defined %}{{ raise_exception('no') }}"
                            "{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}")  # fmt: skip
    try:
        assert find_switch(template.render) is None
    finally:
        template.close()


def test_an_effort_is_the_templates_own_or_a_budget(control: Callable[..., ThinkingControl]) -> None:
    assert control(HARMONY).effort("minimal", 512) == (True, 0, {"reasoning_effort": "low"})
    assert control(HARMONY).effort("high", 512) == (True, 0, {"reasoning_effort": "high"})
    assert control(R1).effort("none", 512) == (False, 0, {})
    budgets = [control(R1).effort(effort, 1000)[1] for effort in EFFORTS]
    assert budgets == [0, 100, 200, 500, 800]
    with pytest.raises(GenerationError, match="'huge'; expected one of none, minimal"):
        control(R1).effort("huge", 512)  # type: ignore[arg-type]
