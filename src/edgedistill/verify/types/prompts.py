"""The plain data that samplers fill and statistics read: messages, prompts, suites, samples, estimates.

Must not know: how samples are drawn, models, files.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Extraction = Literal["auto", "boxed", "hash", "phrase", "number", "choice", "text", "checks"]
"""How an answer is taken from a reply; see ``answers.extract``."""

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
        """The parameter ``name``; raises KeyError where there is none."""
        return dict(self.parameters)[name]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question of a suite.

    Attributes:
        id: Unique in the suite; the noise of sampling is keyed by it.
        messages: The conversation up to the question.
        answer: Gold answer, canonical (``answers.canonical``), or None.
        extract: How the answer is taken from a reply.
        tags: Free labels; built-in suites put the difficulty band and the kind of problem here.
        checks: Conditions of an instruction prompt (``extract`` is then "checks").
        variant_of: For variants of the audit: the id of the prompt that was changed; None for the empty prompt.
        variant: Which change.
    """

    id: str
    messages: tuple[Message, ...]
    answer: str | None = None
    extract: Extraction = "auto"
    tags: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    variant_of: str | None = None
    variant: Variant | None = None

    @property
    def scored(self) -> bool:
        """Whether a reply can be right or wrong."""
        return self.answer is not None or bool(self.checks)


@dataclass(frozen=True, slots=True)
class SuiteSampling:
    """Sampling settings that a suite asks for; None leaves a setting to the bundle."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_new_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Suite:
    """Prompts that are scored, and the variants that only the audit of collapse asks."""

    name: str
    prompts: tuple[Prompt, ...]
    variants: tuple[Prompt, ...] = ()
    sampling: SuiteSampling = field(default_factory=SuiteSampling)

    @property
    def sha256(self) -> str:
        """Hash of the content: canonical JSON (sorted keys, no spaces, UTF-8) of everything but the name."""
        content = asdict(self)
        del content["name"]
        text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def has_gold(self) -> bool:
        """Whether every prompt can be scored."""
        return all(prompt.scored for prompt in self.prompts)
