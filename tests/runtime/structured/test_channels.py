"""Answers in a form from a model with channels: header, reasoning and calls stay where its template has them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import chat_templates
import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer

import edgedistill.catalog
from edgedistill.bundle.bundle import Bundle
from edgedistill.catalog.reasoning import find_grammar
from edgedistill.catalog.tool_formats import find_formats
from edgedistill.runtime.generation_request import request_of
from edgedistill.runtime.prompting import Prompting
from edgedistill.runtime.settings import GenerationSettings
from edgedistill.runtime.structured.channels import begun_in_channels
from edgedistill.runtime.structured.constraint import Constraint
from edgedistill.runtime.structured.masks import GrammarMask, MaskMaker
from edgedistill.runtime.text.chat_template import ChatTemplate
from edgedistill.runtime.text.reasoning import split
from edgedistill.runtime.think_budget import closing_events
from edgedistill.runtime.tools.forced import calls_grammar
from edgedistill.runtime.tools.types import Tool

MARKS = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|call|>", "<|return|>"]
GRAMMAR = find_grammar(chat_templates.GPT_OSS, MARKS)
PROMPT = "<|start|>user<|message|>17 + 25?<|end|><|start|>assistant"
THOUGHT = "<|channel|>analysis<|message|>{ I add. }<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>"
CALL = '<|channel|>commentary to=functions.now <|constrain|>json<|message|>{"zone": "x"}'
SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
SUM = Constraint("json_schema", json.dumps(SCHEMA))


@pytest.fixture(scope="module")
def maker() -> MaskMaker:
    path = Path(edgedistill.catalog.__path__[0]) / "models" / "tiny-reasoner" / "tokenizer.json"
    tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    tokenizer.add_special_tokens([AddedToken(one, special=True) for one in MARKS])
    return MaskMaker(tokenizer, vocab_size=tokenizer.get_vocab_size(), eos=[tokenizer.token_to_id("<|return|>")])


def ids(maker: MaskMaker, text: str) -> list[int]:
    found: list[int] = maker._tokenizer.encode(text, add_special_tokens=False).ids
    return found


def mask_of(maker: MaskMaker, constraint: Constraint | None, begun: str = "", **options: Any) -> GrammarMask:
    return maker.mask(constraint, channels=GRAMMAR, begun=begun, **options)


def allowed(maker: MaskMaker, mask: GrammarMask) -> set[int]:
    return set(np.flatnonzero(np.isfinite(mask.apply(np.zeros(maker.vocab_size, dtype=np.float32)))).tolist())


def refused(maker: MaskMaker, mask: GrammarMask, reply: str) -> str | None:
    """The rest of ``reply`` from the first token that may not come; None if all of them may."""
    tokens = ids(maker, reply)
    for place, token in enumerate(tokens):
        if token not in allowed(maker, mask):
            return str(maker._tokenizer.decode(tokens[place:], skip_special_tokens=False))
        mask.observe(token)
    return None


@pytest.mark.parametrize("thoughts", [0, 1, 2])
def test_an_answer_in_a_form_has_its_channel_after_any_number_of_thoughts(maker: MaskMaker, thoughts: int) -> None:
    mask = mask_of(maker, SUM)
    reply = THOUGHT * thoughts + FINAL + '{"sum": 42}'
    assert refused(maker, mask, reply) is None
    assert allowed(maker, mask) <= set(maker.eos)
    assert json.loads(split(reply, GRAMMAR).answer) == {"sum": 42}


@pytest.mark.parametrize(
    ("reply", "rest"),
    [
        ('{"sum": 42}', '{"sum": 42}'),
        (THOUGHT + '{"sum": 42}', '{"sum": 42}'),
        (f"{THOUGHT}{FINAL}42", "42"),
        ("<|channel|>analysis<|message|>I add.<|return|>", "<|return|>"),
        (CALL, "to=functions"),
    ],
)
def test_nothing_else_may_come(maker: MaskMaker, reply: str, rest: str) -> None:
    found = refused(maker, mask_of(maker, SUM), reply)
    assert found is not None
    assert rest in found


@pytest.mark.parametrize("required", [True, False])
def test_calls_may_come_after_thoughts_too(maker: MaskMaker, required: bool) -> None:
    [form] = find_formats(chat_templates.GPT_OSS, MARKS)
    tool = Tool("now", "The time.", {"type": "object", "properties": {"zone": {"type": "string"}}})
    calls = calls_grammar(form, [tool], maker.special, several=False)
    constraint = None if required else SUM
    for head in ("", THOUGHT):
        assert refused(maker, mask_of(maker, constraint, calls=calls, required=required), head + CALL) is None
        answered = refused(maker, mask_of(maker, constraint, calls=calls, required=required), f"{head}{FINAL}{{")
        assert (answered is not None) is required


def test_a_reply_that_stands_in_part_goes_on_where_it_is(maker: MaskMaker) -> None:
    def begun(prompt: str, written: str = "") -> str | None:
        return begun_in_channels(GRAMMAR, maker.special, prompt, written)

    opened = begun(f"{PROMPT}<|channel|>analysis<|message|>", "I ")
    assert opened == "<|channel|>analysis<|message|>I "
    assert refused(maker, mask_of(maker, SUM, opened), "add.<|end|><|start|>assistant" + FINAL + '{"sum": 1}') is None
    assert refused(maker, mask_of(maker, SUM, begun(PROMPT, f'{THOUGHT}{FINAL}{{"sum"') or ""), ": 42}") is None
    assert begun(PROMPT) == ""
    assert begun(PROMPT + FINAL) is None, "the answer comes next, which needs no header"
    assert begun_in_channels(find_grammar("<think>", ["<think>"]), maker.special, PROMPT, "") is None
    assert begun_in_channels(GRAMMAR, {}, PROMPT, "") is None, "marks that are plain text end nothing for a grammar"


def test_prompts_and_budgets_lead_into_the_channel(maker: MaskMaker, reasoner_dir: Path) -> None:
    opened = Bundle.open(reasoner_dir)
    info = replace(opened.manifest.model, vocab_size=maker.vocab_size, eos_token_ids=tuple(maker.eos))
    bundle = replace(opened, manifest=replace(opened.manifest, reasoning=GRAMMAR, model=info))
    model: Any = Prompting(bundle, ChatTemplate(chat_templates.GPT_OSS), maker._tokenizer)
    model.default_settings = GenerationSettings()
    for thinking, reply in ((None, THOUGHT + FINAL), (False, "")):
        request = request_of(model, "17 + 25?", json_schema=SCHEMA, thinking=thinking)
        mask = model.mask(request, model.rendered(request))
        assert refused(maker, mask, reply + '{"sum": 42}') is None
    written = "<|channel|>analysis<|message|>I add and"
    written += "".join(event.text for event in closing_events(model, PROMPT, written))
    assert written == f"<|channel|>analysis<|message|>I add and<|end|><|start|>assistant{FINAL}"
    request = request_of(model, "17 + 25?", json_schema=SCHEMA, continuing=written)
    assert refused(maker, model.mask(request, model.rendered(request)), '{"sum": 42}') is None
