"""How replies of a batch are drawn: sampling settings, why a reply ended, what names a sample."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edgedistill.errors import VerifyError
from edgedistill.renamed import fields_accept_old
from edgedistill.runtime.settings import GenerationSettings, Numerics, check_numerics

if TYPE_CHECKING:
    from collections.abc import Mapping

Finish = Literal["stop", "length", "context"]
"""Why a reply ended: end-of-sequence token, ``max_new_tokens``, or the end of the context."""

SampleKey = tuple[str, int]
"""(prompt id, index of the sample): what names a sample within one run, and what its noise is keyed by."""


@fields_accept_old(mode="numerics")
@dataclass(frozen=True, slots=True)
class DrawSettings:
    """Sampling settings of a run; two runs with equal settings and seed share their noise.

    Attributes:
        temperature, top_k, top_p, min_p, repetition_penalty, max_new_tokens: As in ``GenerationSettings``.
        seed: Key of the noise, with the prompt's id, the sample's index, the position and the token.
        numerics: ``fast`` decodes as deployed; ``exact`` makes every logit bit-identical to a prefill (see runtime).
        thinking: Asks the chat template for reasoning or none; None leaves it to the template.
    """

    temperature: float = 0.6
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 512
    seed: int = 0
    numerics: Numerics = "fast"
    thinking: bool | None = None

    def __post_init__(self) -> None:
        check_numerics(self.numerics)
        _ = self.generation  # validates the rest; raises GenerationError

    @classmethod
    def resolve(cls, suite: Mapping[str, Any], defaults: Mapping[str, Any], **overrides: Any) -> DrawSettings:
        """Settings by precedence: an override that is not None, the suite's, the bundle's, the defaults above.

        ``suite`` holds what a suite of prompts asks for, ``defaults`` is the bundle's generation.json; ``do_sample:
        false`` in it means temperature 0.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(overrides) - names)
        if unknown:
            raise VerifyError(f"{unknown[0]!r} is not a sampling setting; expected one of {', '.join(sorted(names))}.")
        sampling = names - {"seed", "numerics", "thinking"}
        values = {k: v for k, v in defaults.items() if k in sampling and v is not None}
        if defaults.get("do_sample") is False:
            values["temperature"] = 0.0
        values |= {k: v for k, v in suite.items() if v is not None}
        return cls(**values | {k: v for k, v in overrides.items() if v is not None})

    @property
    def generation(self) -> GenerationSettings:
        """The same as the runtime wants it."""
        return GenerationSettings(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            max_new_tokens=self.max_new_tokens,
            seed=self.seed,
        )

    @property
    def deterministic(self) -> bool:
        """Whether decoding leaves no choice: such samples are all equal and say nothing about consistency."""
        return self.temperature == 0.0 or self.top_k == 1

    def replace(self, **changes: Any) -> DrawSettings:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, in order of the fields; ``DrawSettings(**d)`` reads it back."""
        return dataclasses.asdict(self)
