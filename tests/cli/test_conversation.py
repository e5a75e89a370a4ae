"""Conversations: what a template gets, what is saved."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from edgedistill.cli.conversation import Conversation, Turn
from edgedistill.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def conversation() -> Conversation:
    """Two turns, the second one stopped in its reasoning."""
    conversation = Conversation(system="Be brief.")
    conversation.ask("1 + 1?")
    conversation.answer(Turn("assistant", "2", "One and one.", "stop", {"decode_tps": 9.5}))
    conversation.ask("2 + 2?")
    conversation.answer(Turn("assistant", "", "Two and", "cancelled"))
    return conversation


def test_messages_carry_reasoning_beside_the_content(conversation: Conversation) -> None:
    assert conversation.messages() == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "2", "reasoning_content": "One and one."},
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "", "reasoning_content": "Two and"},
    ]


def test_trajectories_are_kept_and_a_question_without_an_answer_is_not_shown_again(conversation: Conversation) -> None:
    before = conversation.messages()
    kept = {"index": 1, "kind": "cancelled", "vote": None, "tokens": 3, "text": "<think>Four", "confidence": None}
    conversation.ask("3 + 3?")
    conversation.answer(Turn("assistant", "", "", "cancelled", {}, (kept,)))
    assert conversation.messages() == before
    assert json.loads(conversation.to_json({}))["turns"][-1]["trajectories"] == [kept]
    text = conversation.to_markdown({})
    assert "trajectory 2: cancelled, 3 tokens" in text
    assert "<think>Four" in text


def test_only_an_unanswered_question_is_withdrawn(conversation: Conversation) -> None:
    conversation.withdraw()
    assert len(conversation.turns) == 4
    conversation.ask("3 + 3?")
    conversation.withdraw()
    assert len(conversation.turns) == 4


def test_reset_keeps_the_system_prompt(conversation: Conversation) -> None:
    conversation.reset()
    assert conversation.messages() == [{"role": "system", "content": "Be brief."}]


def test_json_holds_everything(conversation: Conversation, tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    conversation.save(path, {"bundle": "b"})
    saved = json.loads(path.read_text())
    assert saved["bundle"] == "b"
    assert saved["system"] == "Be brief."
    assert [turn["role"] for turn in saved["turns"]] == ["user", "assistant"] * 2
    assert saved["turns"][1]["stats"] == {"decode_tps": 9.5}
    assert saved["turns"][3] == {
        "role": "assistant", "content": "", "reasoning": "Two and", "finish_reason": "cancelled", "stats": {},
    }  # fmt: skip


def test_markdown_folds_the_reasoning_and_marks_what_was_stopped(conversation: Conversation, tmp_path: Path) -> None:
    path = tmp_path / "chat.md"
    conversation.save(path, {"bundle": "b", "n": 3})
    text = path.read_text()
    assert text.startswith('---\nbundle: "b"\nn: 3\n---\n')
    assert "<details><summary>reasoning</summary>\n\nOne and one.\n\n</details>\n\n2\n" in text
    assert text.count("*(stopped)*") == 1


def test_saving_never_overwrites(conversation: Conversation, tmp_path: Path) -> None:
    path = tmp_path / "chat.md"
    path.write_text("precious")
    with pytest.raises(OutputError, match="exists"):
        conversation.save(path, {})
    assert path.read_text() == "precious"
    with pytest.raises(OutputError, match="Cannot write"):
        conversation.save(tmp_path / "no" / "such" / "directory.md", {})
