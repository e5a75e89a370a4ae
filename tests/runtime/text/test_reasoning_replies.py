"""Replies of many families, whole and by the character, split as their models mean them.

``reasoning_replies.jsonl``: what the template speaks of, special tokens, its name and the prompt's end; the reply, its
reasoning, its answer, and whether it is past its reasoning.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgedistill.catalog.reasoning import find_grammar
from edgedistill.runtime.text.reasoning import ReasoningSplitter, opened_by, split

FILE = Path(__file__).with_name("reasoning_replies.jsonl")
REPLIES = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("case", REPLIES, ids=lambda case: f"{case['name']}: {case['reply'][:30]}")
def test_replies(case: dict[str, Any]) -> None:
    grammar = find_grammar(case["template"], case["tokens"], case["name"])
    opened = opened_by(case["prompt"], grammar)
    parts = split(case["reply"], grammar, opened=opened)
    assert (parts.reasoning, parts.answer, parts.closed) == (case["reasoning"], case["answer"], case["closed"])
    splitter = ReasoningSplitter(grammar, opened=opened)
    segments = [segment for character in case["reply"] for segment in splitter.feed(character)] + splitter.finish()
    assert "".join(segment.text for segment in segments) == case["reply"]
    for kind in ("reasoning", "answer"):
        assert "".join(segment.text for segment in segments if segment.kind == kind).strip() == case[kind]
