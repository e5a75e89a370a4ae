"""How families of models mark their reasoning, and which of these marks a model uses.

A grammar is found from what comes with the model: its chat template, the special tokens of its tokenizer, its name.
Splitting a reply by it is ``runtime.text.reasoning``'s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from edgedistill.schema import limits

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

Mark = Annotated[str, limits(most=200)]


@dataclass(frozen=True, slots=True)
class TagPair:
    """An opening and a closing mark. ``close`` of a wrapper is empty where nothing but the end of the reply ends it."""

    open: Mark
    close: Mark

    def __post_init__(self) -> None:
        if not self.open or self.open == self.close:
            raise ValueError(f"a tag pair needs two different, non-empty tags, found {self.open!r} and {self.close!r}")


@dataclass(frozen=True, slots=True)
class ReasoningGrammar:
    """The marks of one model.

    Attributes:
        tags: Around reasoning, at the start of a reply.
        answers: Around the answer that follows; a reply may also begin with one, or have none.
        repeats: Blocks of reasoning may follow each other before the answer (channels).
    """

    tags: tuple[TagPair, ...]
    answers: tuple[TagPair, ...] = ()
    repeats: bool = False

    def __post_init__(self) -> None:
        if any(not pair.close for pair in self.tags):
            raise ValueError("reasoning needs a closing mark")

    @property
    def marks(self) -> tuple[str, ...]:
        """Every mark, of reasoning and of answers."""
        return tuple(mark for pair in (*self.tags, *self.answers) for mark in (pair.open, pair.close) if mark)


DEFAULT_TAGS: tuple[TagPair, ...] = (
    TagPair("<think>", "</think>"),
    TagPair("<thinking>", "</thinking>"),
    TagPair("<reasoning>", "</reasoning>"),
    TagPair("[THINK]", "[/THINK]"),
)
DEFAULT_GRAMMAR = ReasoningGrammar(DEFAULT_TAGS)
"""For a model of which nothing is known."""


@dataclass(frozen=True, slots=True)
class _Family:
    """A grammar and what gives it away: each of ``evidence`` is in the template or a special token; or the name is."""

    grammar: ReasoningGrammar
    evidence: tuple[str, ...]
    name: str = ""


def _pair(open_: str, close: str, *answers: tuple[str, str]) -> ReasoningGrammar:
    return ReasoningGrammar((TagPair(open_, close),), tuple(TagPair(*answer) for answer in answers))


_THINK = ("<think>", "</think>")
_ANSWER = ("<answer>", "</answer>")
_HEADS = ("", "<|start|>assistant")
_HARMONY = ReasoningGrammar(
    tuple(
        TagPair(f"{head}<|channel|>{channel}<|message|>", "<|end|>")
        for head in _HEADS for channel in ("analysis", "commentary")
    ),
    tuple(
        TagPair(f"{head}<|channel|>final{form}<|message|>", "")
        for form in ("", " <|constrain|>json", " <|constrain|>JSON", "<|constrain|>json") for head in _HEADS
    ),
    repeats=True,
)  # fmt: skip

FAMILIES: dict[str, _Family] = {
    "gpt-oss": _Family(_HARMONY, ("<|channel|>", "<|message|>")),
    "Gemma 4": _Family(_pair("<|channel>thought", "<channel|>"), ("<|channel>", "<channel|>")),
    "OpenThinker, Sky-T1, Bespoke-Stratos": _Family(
        _pair("<|begin_of_thought|>", "<|end_of_thought|>", ("<|begin_of_solution|>", "<|end_of_solution|>")),
        ("<|begin_of_thought|>",),
        name=r"open-?thinker|sky-?t1|bespoke-stratos",
    ),
    "Cohere": _Family(
        _pair("<|START_THINKING|>", "<|END_THINKING|>", ("<|START_RESPONSE|>", "<|END_RESPONSE|>")),
        ("<|START_THINKING|>",),
    ),
    "Kimi": _Family(_pair("◁think▷", "◁/think▷"), ("◁think▷",)),
    "Seed-OSS": _Family(
        # With a budget of 0 the template writes a note into the reasoning, and the reply begins with its end.
        ReasoningGrammar(
            tuple(TagPair(mark, "</seed:think>") for mark in ("<seed:think>", "</seed:cot_budget_reflect>"))
        ),
        ("<seed:think>",),
    ),
    "K2-V2": _Family(
        ReasoningGrammar(tuple(TagPair(f"<{name}>", f"</{name}>") for name in ("think_fast", "think_faster"))),
        ("<think_fast>",),
    ),
    "K2-Horizon": _Family(
        ReasoningGrammar(
            tuple(TagPair(f"<ifm|{name}>", f"</ifm|{name}>") for name in ("think", "think_fast", "think_faster"))
        ),
        ("<ifm|think>",),
    ),
    "MiniMax-M3": _Family(_pair("<mm:think>", "</mm:think>"), ("<mm:think>",)),
    "HuatuoGPT-o1": _Family(_pair("## Thinking", "## Final Response"), ("## Final Response",), name=r"huatuogpt-?o1"),
    "Apertus": _Family(_pair("<|inner_prefix|>", "<|inner_suffix|>"), ("<|inner_prefix|>",)),
    "Apriel": _Family(
        _pair(
            "Here are my reasoning steps:",
            "[BEGIN FINAL RESPONSE]",
            ("[BEGIN FINAL RESPONSE]", "[END FINAL RESPONSE]"),
        ),
        ("[BEGIN FINAL RESPONSE]",),
    ),
    "Granite 3.2": _Family(
        ReasoningGrammar(
            tuple(TagPair(f"{here} my thought process:", f"{here} my response:") for here in ("Here is", "Here's"))
        ),
        ("Here is my thought process:",),
    ),
    "Granite 3.3": _Family(_pair(*_THINK, ("<response>", "</response>")), ("<think>", "<response>")),
    "Marco-o1": _Family(_pair("<Thought>", "</Thought>", ("<Output>", "</Output>")), ("<Thought>",), name=r"marco-?o1"),
    "EXAONE Deep": _Family(_pair("<thought>", "</thought>"), ("<thought>",)),
    "s1": _Family(
        _pair("<|im_start|>think", "<|im_start|>answer"), ("<|im_start|>think",), name=r"(^|[/_-])s1(\.1)?([/_-]|$)"
    ),
    "Magistral": _Family(_pair("[THINK]", "[/THINK]"), ("[THINK]",)),
    "R1-zero, Hunyuan": _Family(_pair(*_THINK, _ANSWER), ("<think>", "<answer>"), name=r"r1-?zero"),
    "GRPO": _Family(_pair("<reasoning>", "</reasoning>", _ANSWER), ("<reasoning>", "<answer>")),
    "Reflection": _Family(_pair("<thinking>", "</thinking>", ("<output>", "</output>")), ("<thinking>", "<output>")),
    "think": _Family(_pair(*_THINK), ("<think>",)),
}
"""Known families. DeepSeek-R1, Qwen3, QwQ, GLM, MiniMax, Nemotron, SmolLM3, EXAONE 4, Phi-4 and more are ``think``."""


def find_grammar(template: str | None, tokens: Collection[str] = (), name: str = "") -> ReasoningGrammar:
    """The grammar of a model: the marks of all families that its files speak of, then those that need no evidence.

    Args:
        template: Its chat template.
        tokens: Special and added tokens of its tokenizer.
        name: Its name, as a checkpoint or a repository has it.
    """
    text = template or ""
    tags: list[TagPair] = []
    answers: list[TagPair] = []
    repeats = False
    for family in FAMILIES.values():
        spoken = all(mark in text or mark in tokens for mark in family.evidence)
        if spoken or (family.name and re.search(family.name, name.lower())):
            tags += family.grammar.tags
            answers += family.grammar.answers
            repeats |= family.grammar.repeats
    return ReasoningGrammar(tuple(dict.fromkeys([*tags, *DEFAULT_TAGS])), tuple(dict.fromkeys(answers)), repeats)


def with_tags(grammar: ReasoningGrammar, tags: Iterable[str]) -> ReasoningGrammar:
    """``grammar`` with the reasoning marks that a user gave, an opening and a closing one; raises ValueError."""
    found = tuple(tags)
    if len(found) != 2:
        raise ValueError(f"expected an opening and a closing reasoning tag, found {len(found)}")
    return ReasoningGrammar((TagPair(*found),), grammar.answers, grammar.repeats)
