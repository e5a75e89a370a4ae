"""The grammar of a model from its files, and replies split by it as their models mean them."""

from __future__ import annotations

import pytest

from edgedistill.catalog.reasoning import (
    DEFAULT_GRAMMAR,
    DEFAULT_TAGS,
    FAMILIES,
    ReasoningGrammar,
    TagPair,
    find_grammar,
    with_tags,
)
from edgedistill.runtime.text.reasoning import opened_by, split

OPEN_THINKER = "<|begin_of_thought|>2+2<|end_of_thought|>\n\n<|begin_of_solution|>4<|end_of_solution|>"
APRIEL = "Here are my reasoning steps:\n2+2\n[BEGIN FINAL RESPONSE]\n4\n[END FINAL RESPONSE]\n"
HARMONY = "<|channel|>analysis<|message|>2+2<|end|><|start|>assistant<|channel|>final<|message|>4"
TWO_CHANNELS = "<|channel|>analysis<|message|>2<|end|><|start|>assistant<|channel|>analysis<|message|>+2<|end|>"


@pytest.mark.parametrize(
    ("template", "tokens", "name", "reply"),
    [
        ("", ("<|begin_of_thought|>", "<|end_of_thought|>"), "", OPEN_THINKER),
        ("You think in <|begin_of_thought|> blocks", (), "", OPEN_THINKER),
        ("", (), "open-thoughts/OpenThinker-7B", OPEN_THINKER),
        ("{{ '<thought>' }}", (), "", "<thought>2+2</thought>4"),
        ("Write 'Here is my thought process:'", (), "", "Here is my thought process:2+2Here is my response:4"),
        ("Write 'Here is my thought process:'", (), "", "Here's my thought process: 2+2\nHere's my response: 4"),
        ("<think></think><response></response>", (), "", "<think>2+2</think>\n<response>4</response>"),
        ("<think></think><answer></answer>", (), "", "<think>2+2</think>\n<answer>\n4\n</answer>"),
        ("", ("<think>", "<answer>"), "", "<think>2+2</think><answer>4</answer>"),
        ("", (), "Qwen2.5-R1-Zero", "<think>2+2</think><answer>4</answer>"),
        ("", ("<|channel>", "<channel|>"), "", "<|channel>thought\n2+2<channel|>4"),
        ("", (), "", "[THINK]2+2[/THINK]4"),
        ("", ("<seed:think>",), "", "<seed:think>2+2</seed:think>4"),
        ("", ("<|channel|>", "<|message|>"), "", HARMONY),
        ("", ("<|channel|>", "<|message|>"), "", HARMONY.replace("analysis", "commentary")),
        # An answer whose form was asked for.
        ("", ("<|channel|>", "<|message|>"), "", HARMONY.replace("final", "final <|constrain|>json")),
        ("", ("<|channel|>", "<|message|>"), "", HARMONY.replace("final", "final <|constrain|>JSON")),
        ("", ("<|channel|>", "<|message|>"), "", TWO_CHANNELS + "<|channel|>final<|message|>4"),
        ("", ("<|START_THINKING|>",), "", "<|START_THINKING|>2+2<|END_THINKING|><|START_RESPONSE|>4<|END_RESPONSE|>"),
        ("", ("◁think▷",), "", "◁think▷2+2◁/think▷4"),
        ("", ("<|inner_prefix|>",), "", "<|inner_prefix|>2+2<|inner_suffix|>4"),
        ("[BEGIN FINAL RESPONSE]", (), "", APRIEL),
        ("", (), "AIDC-AI/Marco-o1", "<Thought>2+2</Thought>\n<Output>4</Output>"),
        ("", (), "simplescaling/s1-32B", "<|im_start|>think\n2+2\n<|im_start|>answer\n4"),
        ("<reasoning> ... <answer>", (), "", "<reasoning>2+2</reasoning><answer>4</answer>"),
        ("<thinking> <output>", (), "", "<thinking>2+2</thinking><output>4</output>"),
        ("", (), "MiniMax-M2", "<think>2+2</think>4"),
        ("", (), "", "<answer>4</answer>"),
    ],
)  # fmt: skip
def test_a_model_is_read_by_its_own_marks(template: str, tokens: tuple[str, ...], name: str, reply: str) -> None:
    parts = split(reply, find_grammar(template, tokens, name))
    if reply.startswith("<answer>"):  # nothing says that this model wraps its answers
        assert (parts.reasoning, parts.answer) == ("", reply)
    else:
        assert (parts.reasoning, parts.answer, parts.closed) == ("2+2", "4", True)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_cut_inside_reasoning_is_not_closed(family: str) -> None:
    grammar = FAMILIES[family].grammar
    for pair in grammar.tags:
        reply = f"{pair.open}2+2{pair.close}"
        for end in range(len(pair.open), len(reply)):
            parts = split(reply[:end], grammar)
            assert (parts.answer, parts.closed) == ("", False)
        assert split(reply, grammar).closed == (not grammar.repeats)
        assert opened_by(f"user: hello\nassistant: {pair.open}\n", grammar) is not None


def test_an_opening_in_an_answer_is_text() -> None:
    for reply in ("The tag <reasoning> opens a block. The answer is 42.", "Write `<think>` first. 42"):
        for start, reasoning in (("<think>x</think>", "x"), ("", "")):
            parts = split(start + reply)
            assert (parts.reasoning, parts.answer) == (reasoning, reply)


def test_of_a_model_without_evidence_the_common_tags_are_looked_for() -> None:
    assert find_grammar(None) == DEFAULT_GRAMMAR
    assert find_grammar("{{ messages }}", {"<|im_end|>"}, "smollm2-135m") == DEFAULT_GRAMMAR
    assert set(DEFAULT_TAGS) <= set(find_grammar("<seed:think>").tags)
    assert not find_grammar("<think>", {"<think>"}).answers


def test_a_user_may_say_what_the_tags_are() -> None:
    assert with_tags(DEFAULT_GRAMMAR, ["<<", ">>"]) == ReasoningGrammar((TagPair("<<", ">>"),))
    for wrong in (["<<"], ["<<", "<<"], ["<<", ""], ["", ">>"]):
        with pytest.raises(ValueError, match=r"two different|opening and a closing|closing mark"):
            with_tags(DEFAULT_GRAMMAR, wrong)
