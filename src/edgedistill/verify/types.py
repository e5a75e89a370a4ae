"""The plain data that samplers fill and statistics read: messages, prompts, suites, samples, estimates.

Must not know: how samples are drawn, models, files.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self, get_args

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


@dataclass(frozen=True, slots=True)
class Sample:
    """One generated reply, reduced to what statistics need.

    Attributes:
        prompt_id, index: The prompt, and the number of the sample of it, from 0. Samples of two models with equal
            prompt and index share their noise if they were drawn coupled.
        kind: "truncated" where the reply ran into the token limit (whatever it says), "unparsed" where no answer could
            be taken from it, else "parsed".
        answer: Canonical answer; None unless parsed.
        text: The reply without its reasoning.
        tokens: Generated tokens, reasoning included.
        reasoning_tokens: Of those, the ones inside the reasoning.
        unclosed: The reasoning was opened and never closed.
        repetition: Share of repeated 8-grams among the tokens (``lengths.repetition_rate``).
        correct: Whether the answer is the gold answer (or all checks hold); None without gold. Garbage is not correct.
        loose: For checks: whether all hold after loosening (see ``checks.follows``).
    """

    prompt_id: str
    index: int
    kind: AnswerKind
    answer: str | None
    text: str
    tokens: int
    reasoning_tokens: int
    unclosed: bool
    repetition: float
    correct: bool | None
    loose: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Read ``to_dict``'s result back; raises KeyError, TypeError or ValueError for anything else."""
        for name, kinds in _FIELDS.items():
            found = value.get(name) if name == "loose" else value[name]
            if type(found) not in kinds:
                raise TypeError(f"{name} is {found!r}")
        if value["kind"] not in get_args(AnswerKind) or (value["kind"] == "parsed") != (value["answer"] is not None):
            raise ValueError(f"kind is {value['kind']!r}, answer {value['answer']!r}")
        return cls(**value)


_NONE = type(None)
_FIELDS: dict[str, tuple[type, ...]] = {
    "prompt_id": (str,), "index": (int,), "kind": (str,), "answer": (str, _NONE), "text": (str,), "tokens": (int,),
    "reasoning_tokens": (int,), "unclosed": (bool,), "repetition": (float, int), "correct": (bool, _NONE),
    "loose": (bool, _NONE),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval: ends, the coverage it claims, and how it was computed."""

    low: float
    high: float
    level: float
    method: str

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and how well it is known. ``interval`` is None where the data allow none; NaN means undefined."""

    value: float
    interval: Interval | None = None

    def scaled(self, factor: float) -> Estimate:
        """In another unit: value and ends times a positive ``factor``."""
        found = self.interval
        if found is not None:
            found = Interval(factor * found.low, factor * found.high, found.level, found.method)
        return Estimate(factor * self.value, found)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: NaN and infinities become None."""
        interval = None if self.interval is None else asdict(self.interval)
        if interval is not None:
            interval["low"], interval["high"] = _finite(interval["low"]), _finite(interval["high"])
        return {"value": _finite(self.value), "interval": interval}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
