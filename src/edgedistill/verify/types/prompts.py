"""Data classes of suites: messages, prompts, checks."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Extraction = Literal[
    "auto", "boxed", "hash", "phrase", "number", "choice", "text", "checks", "code", "likelihood"
]  # fmt: skip
"""How an answer is read from a reply; see ``answers.extract``. ``checks``: conditions that a program checks; ``code``:
a program that has to pass tests; ``likelihood``: no reply is drawn, and the most likely of the choices is the answer.
"""

Variant = Literal["paraphrase", "changed-number", "empty"]
AnswerKind = Literal["parsed", "unparsed", "truncated"]
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, as chat templates take it."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Check:
    """A condition on a reply that a program can decide; ``kind`` and parameters as in ``checks.KINDS``."""

    kind: str
    parameters: tuple[tuple[str, str | int | tuple[str, ...]], ...] = ()

    def get(self, name: str) -> Any:
        """The parameter ``name``; raises KeyError if there is none."""
        return dict(self.parameters)[name]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question of a suite.

    Attributes:
        id: Unique in the suite; the random numbers of its samples depend on it.
        messages: The conversation up to the question.
        answer: Gold answer, canonical (``answers.typed.canonical``), or None.
        answers: Further right answers, canonical.
        tolerance: Largest absolute difference from a right number; None: exact.
        choices: Texts of the choices A, B, ... of a multiple-choice question.
        extract: How the answer is taken from a reply.
        tags: Free labels; built-in suites put the difficulty band and the kind of problem here.
        checks: Conditions of an instruction prompt (``extract`` is then "checks").
        variant_of: For variants of the audit: the id of the prompt that was changed; None for the empty prompt.
        variant: The kind of change.
        tests: For ``code``: a Python program that calls the functions of a reply and raises if they are wrong.
    """

    id: str
    messages: tuple[Message, ...]
    answer: str | None = None
    extract: Extraction = "auto"
    tags: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    variant_of: str | None = None
    variant: Variant | None = None
    answers: tuple[str, ...] = ()
    tolerance: float | None = None
    choices: tuple[str, ...] = ()
    tests: str = ""

    @property
    def scored(self) -> bool:
        """Whether a reply can be right or wrong."""
        return self.answer is not None or bool(self.checks)

    @property
    def golds(self) -> tuple[str, ...]:
        """All right answers."""
        return () if self.answer is None else (self.answer, *self.answers)


@dataclass(frozen=True, slots=True)
class SuiteSampling:
    """Sampling settings of a suite; None leaves a setting to the model."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_new_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Suite:
    """Prompts, and variants of them that only an audit uses."""

    name: str
    prompts: tuple[Prompt, ...]
    variants: tuple[Prompt, ...] = ()
    sampling: SuiteSampling = field(default_factory=SuiteSampling)

    @property
    def sha256(self) -> str:
        """Hash of the content: canonical JSON (sorted keys, no spaces, UTF-8) of everything but the name.

        Fields that were added later count only if they are set, so that older suites keep their hash.
        """
        content = asdict(self)
        del content["name"]
        for prompt in (*content["prompts"], *content["variants"]):
            for name in ("answers", "tolerance", "choices", "tests"):
                if not prompt[name] and prompt[name] != 0.0:
                    del prompt[name]
        text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def has_gold(self) -> bool:
        """Whether every prompt can be scored."""
        return all(prompt.scored for prompt in self.prompts)
