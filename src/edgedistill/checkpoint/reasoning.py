"""The marks of a checkpoint's reasoning, from its chat template, its tokenizer's added tokens and its name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from edgedistill.catalog.reasoning import find_grammar

if TYPE_CHECKING:
    from edgedistill.catalog.reasoning import ReasoningGrammar
    from edgedistill.checkpoint.types import Checkpoint


def grammar_of(checkpoint: Checkpoint) -> ReasoningGrammar:
    """The reasoning grammar of a checkpoint."""
    added = json.loads(checkpoint.tokenizer_json).get("added_tokens") or ()
    return find_grammar(checkpoint.chat_template, {token["content"] for token in added}, checkpoint.source.name)
