"""Replies in channels, as gpt-oss writes them: blocks of reasoning, the header of the answer's channel, the answer.

The header begins with the same token as a block of reasoning. A mask that begins where reasoning ends would therefore
have to leave out the one or the other; here one grammar describes the reply from its first token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.catalog.reasoning import DEFAULT_TAGS
from edgedistill.runtime.text.reasoning import opened_by
from edgedistill.runtime.tools.forced import lark_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgedistill.runtime.text.reasoning import ReasoningGrammar


def begun_in_channels(grammar: ReasoningGrammar, special: Mapping[str, int], prompt: str, written: str) -> str | None:
    """What of a reply stands already, from its first channel on; None for a reply that is not in channels.

    Args:
        grammar: The marks of the model's reasoning and answers.
        special: The special tokens of its tokenizer by their text.
        prompt: The rendered prompt; where it ends with an answer's header, the answer itself comes next.
        written: The beginning of the reply that is known already.
    """
    named = all(pair.close in special for pair in grammar.tags if pair not in DEFAULT_TAGS)
    if not (grammar.repeats and grammar.answers and named) or prompt.endswith(tuple(p.open for p in grammar.answers)):
        return None
    opened = opened_by(prompt, grammar)
    return written if opened is None else opened.open + written


def channels_grammar(
    grammar: ReasoningGrammar, special: Mapping[str, int], calls: str | None, *, answered: bool
) -> str:
    """Lark grammar of a whole reply.

    Args:
        grammar, special: As in ``begun_in_channels``.
        calls: Lark grammar of calls that the reply may end with, its first line ``start: calls``; None: no calls.
        answered: The reply may end with an answer, which is the rule ``@answer``.
    """
    blocks = (
        f"{lark_text(pair.open, special)} /(.|\\n)*/ {lark_text(pair.close, special)}"
        for pair in grammar.tags
        if pair not in DEFAULT_TAGS
    )
    ends = ["header @answer"] * answered + ["calls"] * (calls is not None)
    rules = [
        f"start: block* ({' | '.join(ends)})",
        f"block: {' | '.join(blocks)}",
        f"header: {' | '.join(lark_text(pair.open, special) for pair in grammar.answers)}",
    ]
    return "\n".join([*(rules if answered else rules[:2]), *(calls or "").splitlines()[1:]])
