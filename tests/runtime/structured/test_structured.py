"""Replies in a given form, from a random model whose replies are garbage without masks."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from tokenizers import AddedToken

import edgedistill.runtime.structured.masks
from edgedistill.errors import GenerationError, MissingExtraError
from edgedistill.runtime.generation_request import request_of
from edgedistill.runtime.structured.constraint import Constraint, constraint_of

if TYPE_CHECKING:
    from edgedistill.runtime.events import Generation
    from edgedistill.runtime.model import Model

POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "name": {"type": "string", "maxLength": 8}},
    "required": ["x", "name"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "v": {"type": "boolean"},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["v", "next"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
SCHEMAS: dict[str, Any] = {
    "object": POINT,
    "enum": {"enum": ["red", "größer", "日本", 'a"b', 3, None]},
    "const": {"const": {"a": [1, "x"]}},
    "boolean": {"type": "boolean"},
    "range": {"type": "integer", "minimum": -5, "maximum": 40},
    "number": {"type": "number", "minimum": 0, "maximum": 1},
    "pattern": {"type": "string", "pattern": "^[a-c]{2,4}$"},
    "date": {"type": "string", "format": "date"},
    "array": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    "tuple": {"type": "array", "prefixItems": [{"type": "null"}, {"enum": ["a"]}], "items": False, "minItems": 2},
    "any of": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {}, "additionalProperties": False}]},
    "optional": {"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": False},
    "recursive": TREE,
    "nested": {
        "type": "object",
        "properties": {
            "p": POINT,
            "l": {"type": "array", "items": {"enum": ["é", "\n"]}, "minItems": 1, "maxItems": 2},
        },
        "required": ["p", "l"],
        "additionalProperties": False,
    },
}


def finished(result: Generation) -> bool:
    """Whether the reply came to its end; a text without a bound may not."""
    assert result.finish_reason in ("stop", "length")
    return result.finish_reason == "stop"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", SCHEMAS)
def test_replies_fit_the_schema(roomy: Model, name: str, temperature: float) -> None:
    ended = 0
    for seed in range(1 if temperature == 0 else 3):
        result = roomy.generate(
            "Give me one.", json_schema=SCHEMAS[name], temperature=temperature, seed=seed, max_new_tokens=400,
            thinking=False,
        )  # fmt: skip
        if finished(result):
            ended += 1
            Draft202012Validator(SCHEMAS[name]).validate(json.loads(result.answer))
    assert ended or name in ("recursive", "object", "nested") or temperature == 0


def test_without_a_mask_the_same_replies_are_garbage(roomy: Model) -> None:
    result = roomy.generate("Give me one.", temperature=1.0, seed=0, max_new_tokens=60, thinking=False)
    with pytest.raises(ValueError, match=r"Expecting|Extra"):
        json.loads(result.answer)


def test_other_forms(roomy: Model) -> None:
    keywords: dict[str, Any] = {"temperature": 1.0, "seed": 5, "max_new_tokens": 100, "thinking": False}
    assert roomy.generate("?", choices=["yes", "no", "größer"], **keywords).answer in ("yes", "no", "größer")
    assert re.fullmatch(r"\d{3}-[a-c]{2}", roomy.generate("?", regex=r"[0-9]{3}-[a-c]{2}", **keywords).answer)
    lark = 'start: "x=" NUMBER\nNUMBER: /[0-9]{1,3}/'
    assert re.fullmatch(r"x=\d{1,3}", roomy.generate("?", grammar=lark, **keywords).answer)
    gbnf = 'root ::= "a" [0-9] [0-9] "b"'
    assert re.fullmatch(r"a\d\db", roomy.generate("?", grammar=gbnf, **keywords).answer)
    given = {"type": "json_schema", "json_schema": {"name": "b", "schema": {"type": "boolean"}}}
    assert roomy.generate("?", response_format=given, **keywords).answer in ("true", "false")
    assert roomy.generate("?", response_format={"type": "json_object"}, **keywords).answer.startswith("{")
    text = roomy.generate("?", response_format={"type": "text"}, **keywords)
    assert text.tokens == roomy.generate("?", **keywords).tokens


@pytest.mark.parametrize(
    "sampling",
    [
        {"top_k": 5},
        {"top_p": 0.5},
        {"min_p": 0.3},
        {"top_k": 3, "top_p": 0.9, "repetition_penalty": 1.3},
        {"temperature": 5.0},
        {"numerics": "exact"},
        {"speculate": 4},
    ],
    ids=str,
)
def test_masks_hold_under_every_setting(roomy: Model, sampling: dict[str, Any]) -> None:
    keywords = {"temperature": 1.0, "seed": 1, "max_new_tokens": 60, "thinking": False, **sampling}
    result = roomy.generate("?", choices=["alpha beta gamma", "alpha beta delta", "ʝ"], **keywords)
    assert result.answer in ("alpha beta gamma", "alpha beta delta", "ʝ")
    assert result.finish_reason == "stop"


def test_guessed_tokens_change_no_reply(roomy: Model) -> None:
    keywords: dict[str, Any] = {"temperature": 0.8, "seed": 3, "max_new_tokens": 120, "thinking": False}
    keywords |= {"json_schema": SCHEMAS["array"], "numerics": "exact"}
    prompt = "[true, false, true] [true, false, true]"
    plain = roomy.generate(prompt, speculate="off", **keywords)
    guessed = roomy.generate(prompt, speculate=6, **keywords)
    assert guessed.tokens == plain.tokens
    assert guessed.finish_reason == plain.finish_reason == "stop"


def test_a_reply_cut_short_says_so(roomy: Model) -> None:
    result = roomy.generate("?", json_schema={"const": "a long text of many tokens"}, max_new_tokens=4, thinking=False)
    assert result.finish_reason == "length"
    assert '"a long text of many tokens"'.startswith(result.answer)


def test_log_probabilities_are_the_models_own(roomy: Model) -> None:
    free = roomy.generate("?", logprobs=2, max_new_tokens=1, temperature=0, thinking=False)
    masked = roomy.generate("?", logprobs=2, max_new_tokens=1, temperature=0, thinking=False, choices=["ʝʝ"])
    assert free.logprobs is not None
    assert masked.logprobs is not None
    assert masked.logprobs[0].top == free.logprobs[0].top
    assert masked.logprobs[0].logprob < free.logprobs[0].logprob


def test_a_batch_gives_each_prompt_its_own_mask(roomy: Model) -> None:
    prompts = ["One.", "Two, please.", "Give me another one."]
    keywords: dict[str, Any] = {"temperature": 1.0, "seed": 2, "max_new_tokens": 80, "thinking": False}
    keywords |= {"json_schema": SCHEMAS["array"], "numerics": "exact"}
    together = roomy.generate_batch(prompts, batch=2, **keywords)
    alone = [roomy.generate(prompt, **keywords) for prompt in prompts]
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    assert [one.finish_reason for one in together] == [one.finish_reason for one in alone]
    for one in together:
        Draft202012Validator(SCHEMAS["array"]).validate(json.loads(one.answer))


def test_reasoning_is_free_and_the_form_begins_where_it_ends(roomy: Model) -> None:
    keywords: dict[str, Any] = {"temperature": 1.0, "json_schema": SCHEMAS["array"], "continuing": "<think>\n"}
    result = roomy.generate("?", thinking=True, think_budget=12, seed=1, max_new_tokens=300, **keywords)
    assert result.stats.reasoning_tokens >= 12
    assert result.reasoning
    assert result.finish_reason == "stop"
    Draft202012Validator(SCHEMAS["array"]).validate(json.loads(result.answer))
    cut = roomy.generate("?", thinking=True, seed=1, max_new_tokens=8, **keywords)
    assert (cut.finish_reason, cut.answer, cut.reasoning_closed) == ("length", "", False)


@pytest.mark.parametrize("thinking", [True, None, False])
def test_a_reply_may_begin_with_reasoning_unless_it_is_switched_off(roomy: Model, thinking: bool | None) -> None:
    request = request_of(roomy, "?", json_schema={"type": "boolean"}, thinking=thinking)
    mask = roomy.mask(request, roomy.rendered(request))
    assert mask is not None
    logits = np.zeros(roomy.bundle.manifest.model.vocab_size, dtype=np.float32)
    first, *rest = roomy.tokenizer.encode("<think>", add_special_tokens=False).ids
    assert (mask.apply(logits)[first] == 0) == (thinking is not False)
    if thinking is False:
        return
    mask.observe(first)
    for token in rest:  # the mark has to be completed
        assert token in np.flatnonzero(mask.apply(logits) == 0)
        mask.observe(token)
    assert np.isfinite(mask.apply(logits)).sum() > 100


def test_a_beginning_of_the_reply_counts(roomy: Model) -> None:
    result = roomy.generate(
        "?", continuing='{"x": 1', json_schema=POINT, thinking=False, max_new_tokens=200, temperature=1.0, seed=4
    )
    if finished(result):
        Draft202012Validator(POINT).validate(json.loads('{"x": 1' + result.answer))
    with pytest.raises(GenerationError, match="does not fit the given form"):
        roomy.generate("?", continuing="Well, ", json_schema=POINT, thinking=False, max_new_tokens=5)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"json_schema": {"type": "strin"}}, "JSON schema cannot be used: Invalid type: strin"),
        ({"json_schema": {"not": {"type": "string"}}}, "Unimplemented keys"),
        ({"json_schema": "text"}, "expected a dict"),
        ({"json_schema": {"enum": [{1}]}}, "cannot be written as JSON"),
        ({"regex": "("}, "regular expression cannot be used"),
        ({"grammar": "start: foo"}, 'grammar cannot be used: .*"foo"'),
        ({"grammar": " "}, "expected a text"),
        ({"choices": []}, "expected texts"),
        ({"choices": ["a", ""]}, "expected texts"),
        ({"choices": ["a"], "regex": "b"}, "A regular expression and a list of choices are given"),
        ({"response_format": {"type": "yaml"}}, "expected the type 'text'"),
        ({"response_format": {"type": "json_schema"}}, "expected the type 'text'"),
    ],
)
def test_what_is_no_form_is_refused_in_one_line(roomy: Model, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(GenerationError, match=message) as error:
        roomy.generate("?", max_new_tokens=2, **keywords)
    assert "\n" not in str(error.value)


def test_a_class_with_a_schema_is_taken() -> None:
    class Point:
        @staticmethod
        def model_json_schema() -> dict[str, Any]:
            return POINT

    assert constraint_of(json_schema=Point) == Constraint("json_schema", json.dumps(POINT))
    assert constraint_of() is None


def test_without_the_package_one_line_says_what_to_install(roomy: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = edgedistill.runtime.structured.masks.MaskMaker(roomy.tokenizer, vocab_size=300, eos=[])
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    with pytest.raises(MissingExtraError, match=r"llguidance.*not installed"):
        maker.mask(Constraint("regex", "a"))


def test_marks_of_several_tokens_end_reasoning_only_with_space_after_them(roomy: Model) -> None:
    """A token such as ``>{`` would end the reasoning and begin an answer that no mask has seen."""
    from edgedistill.catalog.reasoning import ReasoningGrammar, TagPair
    from edgedistill.runtime.structured.gate import ReasoningGate

    tokenizer = type(roomy.tokenizer).from_str(roomy.tokenizer.to_str())
    tokenizer.add_tokens([AddedToken(">{", special=False), AddedToken(">\n\n", special=False)])
    size = tokenizer.get_vocab_size()
    pair = TagPair("<why>", "</why>")
    maker = edgedistill.runtime.structured.masks.MaskMaker(tokenizer, vocab_size=size, eos=[0])
    gate = ReasoningGate(tokenizer, ReasoningGrammar((pair,)), opened=pair)
    mask = maker.mask(Constraint("regex", "[0-9]+"), gate=gate)
    logits = np.zeros(size, dtype=np.float32)
    for token in tokenizer.encode("Because.</why", add_special_tokens=False).ids:
        allowed = mask.apply(logits) == 0
        assert allowed[token]
        assert not allowed[0]
        mask.observe(token)
    allowed = mask.apply(logits) == 0
    bad, good, plain = (tokenizer.token_to_id(text) for text in (">{", ">\n\n", ">"))
    assert (allowed[bad], allowed[good], allowed[plain]) == (False, True, True)
    mask.observe(good)
    assert sorted(tokenizer.id_to_token(int(i)) for i in np.flatnonzero(mask.apply(logits) == 0) if i) == [
        *"0123456789"
    ]
