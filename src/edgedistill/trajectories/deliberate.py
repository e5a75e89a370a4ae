"""Trajectories as the text that a further pass reads: shuffled, cut to what the context can hold.

Conclusions are kept as they are as long as that is possible; of the reasoning, the beginning and the end are kept and
the middle is cut, because a path begins with how the question was understood and ends with what follows from it.
Trajectories that are short leave their share to the long ones.

The prompts of the passes are Jinja files, checked before anything is decoded. One may use ``question`` (the text of the
last user message), ``trajectories`` (each with ``number``, from 1, ``reasoning``, cut to its budget, ``answer``) and
``majority`` (``answer``, ``votes``, ``total``; None where nobody voted), and must use the first two.
"""

from __future__ import annotations

import difflib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.bounded_file import read_bounded
from edgedistill.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tokenizers import Tokenizer

    from edgedistill.trajectories.result import Trajectory
    from edgedistill.trajectories.vote import VoteResult

    Messages = list[dict[str, Any]]

LEAST_TOKENS = 24
"""Of one trajectory: less says nothing, and the pass is not made."""

_GAP = " [...] "
_HEAD = 1 / 3
_TRIES = 6


@dataclass(frozen=True, slots=True)
class PassInput:
    """What a pass is given: its messages, how many tokens they come to, and the trajectories in the order shown."""

    messages: Messages
    tokens: int
    order: tuple[int, ...]
    pruned: bool


class Serializer:
    """Builds the messages of passes for one question.

    Args:
        messages: The conversation; the last one is the question.
        count: Tokens of messages as the model is given them.
        tokenizer: For cutting texts.
    """

    def __init__(
        self, messages: Sequence[Mapping[str, Any]], count: Callable[[Messages], int], tokenizer: Tokenizer
    ) -> None:
        self._before = [dict(message) for message in messages[:-1]]
        self._last = dict(messages[-1])
        self._count = count
        self._tokenizer = tokenizer

    def fit(
        self,
        prompt: PassPrompt,
        trajectories: Sequence[Trajectory],
        *,
        room: int,
        seed: int,
        vote: VoteResult | None = None,
        reasoning: bool = True,
    ) -> PassInput | None:
        """Messages of at most ``room`` tokens; None where that leaves too little of each trajectory.

        Args:
            prompt: The prompt of the pass.
            trajectories: The complete ones.
            room: Tokens that the context can hold beside the reply.
            seed: Of the order in which they are shown.
            vote: Told as a signal; None where there was none.
            reasoning: False shows the answers only.

        Raises:
            TemplateError: The prompt does not render.
        """
        order = sorted(trajectories, key=lambda trajectory: trajectory.index)
        random.Random(f"edgedistill order {seed}").shuffle(order)
        signal = None
        if vote is not None and vote.answer is not None:
            votes = next(tally.votes for tally in vote.tallies if tally.answer == vote.answer)
            signal = {"answer": vote.answer, "votes": votes, "total": vote.voters}

        def build(texts: Sequence[tuple[str, str]]) -> Messages:
            entries = [{"number": i, "reasoning": r, "answer": a} for i, (r, a) in enumerate(texts, 1)]
            content = prompt.render(question=str(self._last["content"]), trajectories=entries, majority=signal)
            return [*self._before, {**self._last, "content": content}]

        whole = [(one.reasoning if reasoning else "", one.answer) for one in order]
        sizes = [self._size(r) + self._size(a) for r, a in whole]
        frame = self._count(build([("", "")] * len(order)))
        available = room - frame
        for _ in range(_TRIES):
            if available < min(LEAST_TOKENS, max(sizes, default=0)) * len(order):
                return None
            shares = share_out(sizes, available)
            texts = [self._cut(r, a, share) for (r, a), share in zip(whole, shares, strict=True)]
            messages = build(texts)
            tokens = self._count(messages)
            if tokens <= room:
                return PassInput(messages, tokens, tuple(one.index for one in order), texts != whole)
            available -= tokens - room + len(order)  # tokens merge and split at the seams
        return None

    def _cut(self, reasoning: str, answer: str, budget: int) -> tuple[str, str]:
        """Reasoning and answer in ``budget`` tokens together, the answer first."""
        answer = prune(self._tokenizer, answer, budget)
        rest = budget - self._size(answer)
        return prune(self._tokenizer, reasoning, rest) if rest > 0 else "", answer

    def _size(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids) if text else 0


def share_out(sizes: Sequence[int], available: int) -> list[int]:
    """Budgets for texts of these sizes that add up to at most ``available``: none gets more than it needs, and those
    that need more than an equal share get equal ones.
    """
    budgets = [0] * len(sizes)
    left, waiting = available, len(sizes)
    for at in sorted(range(len(sizes)), key=lambda i: sizes[i]):
        budgets[at] = min(sizes[at], max(0, left // waiting))
        left -= budgets[at]
        waiting -= 1
    return budgets


def prune(tokenizer: Tokenizer, text: str, budget: int) -> str:
    """``text`` in about ``budget`` tokens: its first third and its end, with a mark where the middle was."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    if len(encoding.ids) <= budget:
        return text
    kept = budget - len(tokenizer.encode(_GAP, add_special_tokens=False).ids)
    if kept < 2:
        return ""
    head = int(kept * _HEAD)
    start, stop = encoding.offsets[len(encoding.ids) - (kept - head)][0], encoding.offsets[head][0]
    return text[:stop].rstrip() + _GAP + text[start:].lstrip()


REQUIRED = ("question", "trajectories")
FIELDS = (*REQUIRED, "majority")
MAX_BYTES = 1_000_000
_EXAMPLE = {
    "question": "What is 1 + 1?",
    "trajectories": [{"number": 1, "reasoning": "1 + 1 = 2.", "answer": "2"}],
    "majority": {"answer": "2", "votes": 1, "total": 1},
}
_HINT = "The shipped one is edgedistill/trajectories/templates/deliberate.jinja."


class PassPrompt:
    """A prompt, parsed and tried."""

    def __init__(self, source: str, name: str) -> None:
        """Check ``source``; ``name`` is what messages call it.

        Raises:
            TemplateError: It is malformed, lacks a required field, uses one that does not exist, or does not render.
        """
        from jinja2 import StrictUndefined, TemplateSyntaxError, meta
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        self._name = name
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        try:
            used = meta.find_undeclared_variables(environment.parse(source))
            self._template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise TemplateError(f"{name} line {error.lineno}: {error.message}.", hint=_HINT) from error
        except RecursionError as error:
            raise TemplateError(f"{name} is nested too deeply.", hint=_HINT) from error
        for field in sorted(used - set(FIELDS)):
            near = difflib.get_close_matches(field, FIELDS, n=1)
            guess = f"Did you mean {near[0]}?" if near else _HINT
            raise TemplateError(f"{name} uses the field {field!r}; expected one of {', '.join(FIELDS)}.", hint=guess)
        for field in REQUIRED:
            if field not in used:
                raise TemplateError(
                    f"{name} does not use the field {field!r}; expected both of {' and '.join(REQUIRED)}.",
                    hint=f"Add {{{{ {field} }}}} to it." if field == "question" else _HINT,
                )
        self.render(**_EXAMPLE)  # type: ignore[arg-type]
        try:
            self.render(**{**_EXAMPLE, "majority": None})  # type: ignore[arg-type]
        except TemplateError as error:
            raise TemplateError(
                f"{name} cannot be rendered where no attempt has an answer to vote on, and majority is None.",
                hint="Write around it: {% if majority %}...{% endif %}.",
            ) from error

    def render(
        self, *, question: str, trajectories: Sequence[Mapping[str, Any]], majority: Mapping[str, Any] | None
    ) -> str:
        """The text of the pass's question; raises TemplateError for a field of an entry that does not exist."""
        try:
            text = self._template.render(question=question, trajectories=list(trajectories), majority=majority)
        except Exception as error:  # whatever an expression of the user's file raises
            raise TemplateError(f"{self._name} cannot be rendered: {error}.", hint=_HINT) from error
        return text.strip()


def load_prompt(path: Path | None, shipped: str) -> PassPrompt:
    """The user's prompt at ``path``, or the shipped one of that name. Raises TemplateError."""
    if path is None:
        return PassPrompt((Path(__file__).parent / "templates" / shipped).read_text(encoding="utf-8"), shipped)
    try:
        data = read_bounded(path, MAX_BYTES)
        if len(data) > MAX_BYTES:
            raise TemplateError(f"{path} has more than {MAX_BYTES} bytes; expected a short prompt.", hint=_HINT)
        source = data.decode("utf-8")
    except OSError as error:
        raise TemplateError(f"{path} cannot be read: {error.strerror}.", hint=_HINT) from error
    except UnicodeDecodeError as error:
        raise TemplateError(f"{path} is not UTF-8 text.", hint=_HINT) from error
    return PassPrompt(source, path.name)
