"""Calls that have to come: whatever is drawn under the grammar of a form is read back as a call that fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from tokenizers import AddedToken, Tokenizer

import edgedistill.catalog
from edgedistill.catalog.reasoning import DEFAULT_GRAMMAR
from edgedistill.catalog.tool_formats import FORMATS, HERMES
from edgedistill.errors import GenerationError
from edgedistill.runtime.generation_request import request_of
from edgedistill.runtime.structured.masks import MaskMaker
from edgedistill.runtime.structured.opened_call import OpenedCallMask
from edgedistill.runtime.text.detokenize import Detokenizer
from edgedistill.runtime.tools.forced import calls_grammar
from edgedistill.runtime.tools.splitter import ToolSplitter
from edgedistill.runtime.tools.types import Tool

if TYPE_CHECKING:
    from edgedistill.runtime.model import Model

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 6},
        "unit": {"type": "string", "enum": ["c", "f"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "near": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
        "who": {"$ref": "#/$defs/who"},
    },
    "required": ["unit", "days"],
    "$defs": {"who": {"enum": [True, None, 7]}},
}
WEATHER = Tool("get_weather", "The weather.", SCHEMA)
NOW = Tool("now", "The time.")
BOTH = [WEATHER, NOW]


def _tokenizer(special: list[str]) -> Tokenizer:
    path = Path(edgedistill.catalog.__path__[0]) / "models" / "tiny-reasoner" / "tokenizer.json"
    tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    tokenizer.add_special_tokens([AddedToken(one, special=True) for one in special])
    return tokenizer


@pytest.mark.parametrize("special", [False, True], ids=["plain", "special"])
@pytest.mark.parametrize("name", [one.name for one in FORMATS])
def test_drawn_calls_are_read_back(name: str, special: bool) -> None:
    form = next(one for one in FORMATS if one.name == name)
    marks = [mark for mark in (form.open, form.close) if mark]
    tokenizer = _tokenizer(marks if special else [])
    size = tokenizer.get_vocab_size()
    end = tokenizer.token_to_id("<|im_end|>")
    maker = MaskMaker(tokenizer, vocab_size=size, eos=[end])
    rng = np.random.default_rng(sum(map(ord, name)))
    seen = set()
    for turn in range(8):
        called = BOTH if turn < 4 else [WEATHER]
        grammar = calls_grammar(form, called, maker.special, several=turn < 4)
        mask = maker.mask(None, calls=grammar)
        splitter, detokenizer = ToolSplitter([form], BOTH), Detokenizer(tokenizer, keep=form.marks)
        text = ""
        for _ in range(400):
            token = int((mask.apply(np.zeros(size, dtype=np.float32)) + rng.gumbel(size=size)).argmax())
            if token == end:
                break
            mask.observe(token)
            text += detokenizer.feed(token)
            if mask.finished:
                break
        else:
            continue  # a text without a bound went on
        text += detokenizer.finish()
        splitter.feed(text)
        splitter.finish()
        assert splitter.calls, text
        assert not splitter.notes, text
        assert turn < 4 or len(splitter.calls) == 1
        for call in splitter.calls:
            seen.add(call.name)
            Draft202012Validator(SCHEMA if call.name == "get_weather" else {}).validate(json.loads(call.arguments))
            assert turn < 4 or call.name == "get_weather"
    assert seen == {"get_weather", "now"} or name in ("bare JSON",)


@pytest.mark.parametrize("special", [False, True], ids=["plain", "special"])
@pytest.mark.parametrize("name", [one.name for one in FORMATS if one.open])
def test_a_call_that_the_model_opens_is_held_to_its_schema_up_to_its_end(name: str, special: bool) -> None:
    form = next(one for one in FORMATS if one.name == name)
    tokenizer = _tokenizer([mark for mark in (form.open, form.close) if mark] if special else [])
    size, end = tokenizer.get_vocab_size(), tokenizer.token_to_id("<|im_end|>")
    maker = MaskMaker(tokenizer, vocab_size=size, eos=[end])
    rng = np.random.default_rng(sum(map(ord, name)))
    zeros = np.zeros(size, dtype=np.float32)
    seen = set()
    for _turn in range(4):
        mask = OpenedCallMask(maker, tokenizer, DEFAULT_GRAMMAR, [form], BOTH, opened=None)
        detokenizer = Detokenizer(tokenizer, keep=form.marks)
        begun = [*tokenizer.encode(f"I write `{form.open}` and look:\n").ids, *tokenizer.encode(form.open).ids]
        text = ""
        for token in begun:
            assert mask.apply(zeros) is zeros
            mask.observe(token)
            text += detokenizer.feed(token)
        held = mask.apply(zeros)
        assert np.isneginf(held[end])
        for _ in range(400):
            held = mask.apply(zeros)
            token = int((held + rng.gumbel(size=size)).argmax())
            if held is zeros or token == end:
                break
            mask.observe(token)
            text += detokenizer.feed(token)
        else:
            continue  # a text without a bound went on
        text += detokenizer.finish()
        splitter = ToolSplitter([form], BOTH)
        pieces = splitter.feed(text) + splitter.finish()
        assert splitter.calls, text
        assert not splitter.notes, text
        assert "".join(one.text for one in pieces if one.kind == "answer").strip() == f"I write `{form.open}` and look:"
        for call in splitter.calls:
            seen.add(call.name)
            Draft202012Validator(SCHEMA if call.name == "get_weather" else {}).validate(json.loads(call.arguments))
    assert seen


def test_a_mark_in_reasoning_opens_no_call(roomy: Model) -> None:
    maker = MaskMaker(roomy.tokenizer, vocab_size=roomy.bundle.manifest.model.vocab_size, eos=[0])
    zeros = np.zeros(maker.vocab_size, dtype=np.float32)
    mask = OpenedCallMask(maker, roomy.tokenizer, DEFAULT_GRAMMAR, [HERMES], BOTH, opened=None)
    for text, free in (("<think>Perhaps <tool_call>", True), (" or not.</think>", True), ("<tool_call>", False)):
        for token in roomy.tokenizer.encode(text).ids:
            mask.observe(token)
        assert (mask.apply(zeros) is zeros) == free
    continued = OpenedCallMask(
        maker, roomy.tokenizer, DEFAULT_GRAMMAR, [HERMES], BOTH, opened=None, begun='<tool_call>\n{"name": "n'
    )
    assert continued.apply(zeros) is not zeros
    request = request_of(roomy, "?", tools=[COLOR])
    assert isinstance(roomy.mask(request, "?"), OpenedCallMask)
    assert roomy.mask(request_of(roomy, "?"), "?") is None


COLOR = Tool(
    "pick", "Choose.", {"type": "object", "properties": {"color": {"enum": ["red", "blue"]}}, "required": ["color"]}
)


def test_a_random_model_calls_what_it_has_to(roomy: Model) -> None:
    keywords: dict[str, Any] = {"temperature": 1.0, "max_new_tokens": 200, "thinking": False}
    named: dict[str, Any] = {"type": "function", "function": {"name": "pick"}}
    for seed in range(3):
        result = roomy.generate("Pick.", tools=[COLOR, NOW], tool_choice=named, seed=seed, **keywords)
        [call] = result.tool_calls
        assert call.name == "pick"
        assert json.loads(call.arguments)["color"] in ("red", "blue")
        assert (result.answer, result.finish_reason) == ("", "stop")
        batch = roomy.generate_batch(["Pick.", "Now."], tools=[COLOR, NOW], tool_choice=named, seed=seed, **keywords)
        assert all(one.tool_calls[0].name == "pick" for one in batch)
    required = roomy.generate("Pick.", tools=[COLOR, NOW], tool_choice="required", seed=0, **keywords)
    assert required.tool_calls or required.finish_reason == "length"


def test_deltas_join_to_the_call(roomy: Model) -> None:
    deltas = [
        event.call
        for event in roomy.stream(
            "Pick.", tools=[COLOR], tool_choice="required", seed=1, temperature=1.0, max_new_tokens=60, thinking=False
        )
        if event.call is not None and event.call.index == 0
    ]
    assert len(deltas) > 2
    assert json.loads("".join(delta.arguments for delta in deltas))["color"] in ("red", "blue")
    assert [delta.done for delta in deltas] == [False] * (len(deltas) - 1) + [True]


def test_an_answer_in_a_form_or_a_call(roomy: Model) -> None:
    keywords: dict[str, Any] = {"temperature": 1.0, "max_new_tokens": 200, "thinking": False, "tools": [COLOR]}
    kinds = set()
    for seed in range(6):
        result = roomy.generate("Pick.", json_schema={"enum": ["<yes>", "no"]}, seed=seed, **keywords)
        kinds.add("call" if result.tool_calls else json.loads(result.answer))
    assert kinds <= {"call", "<yes>", "no"}
    assert len(kinds) > 1
    with pytest.raises(GenerationError, match="one of the two"):
        roomy.generate("Pick.", json_schema={}, tool_choice="required", **keywords)


def test_conversations_go_on_with_results(roomy: Model) -> None:
    with roomy.chat(tools=[COLOR], temperature=1.0, seed=1, max_new_tokens=60, thinking=False) as chat:
        asked = chat.ask("Pick.", tool_choice="required")
        [call, *_] = asked.tool_calls
        answer = chat.give({one.id: "blue" for one in asked.tool_calls}, tool_choice="none")
        assert answer.tool_calls == ()
        assert chat.messages[1]["tool_calls"][0]["id"] == call.id
        assert [message["role"] for message in chat.messages][:3] == ["user", "assistant", "tool"]
