"""Generation settings: one frozen, validated record that the command line, the API and bundles share."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edgedistill.errors import GenerationError

if TYPE_CHECKING:
    from collections.abc import Mapping

Numerics = Literal["fast", "exact"]
SPECULATE = ("auto", "off", "identical")
NUMERICS: tuple[Numerics, ...] = ("fast", "exact")
MAX_STOP_STRINGS = 32
MAX_GUESSES = 15


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How tokens are chosen and when generation ends.

    Attributes:
        temperature: 0 is greedy; otherwise logits are divided by it.
        top_k: Keep the k most likely tokens; 0 keeps all.
        top_p: Keep the smallest set of tokens whose probabilities reach this sum; 1 keeps all.
        min_p: Drop tokens below this share of the most likely token's probability; 0 keeps all.
        repetition_penalty: Divides positive and multiplies negative logits of tokens seen before (1 is off;
            Keskar et al., arXiv 1909.05858, as in transformers).
        seed: Key of the sampling noise; None draws one at random and reports it in the statistics.
        stop: Strings that end generation; they are not part of the text.
        max_new_tokens: Upper bound of generated tokens.
        ignore_eos: Go on after end-of-sequence tokens (benchmarks).
        speculate: Guess tokens from the text so far and compute several in one run, where that is faster: ``auto``, a
            number (at most so many guesses in a run), ``off``, or ``identical``: as ``auto`` where no token can change
            by it, which is under exact numerics (docs/explanation/numerical-paths.md).

    Raises:
        GenerationError: For a value out of range, naming it.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    max_new_tokens: int = 512
    ignore_eos: bool = False
    speculate: str | int = "identical"

    def __post_init__(self) -> None:
        _number("temperature", self.temperature, 0.0, 100.0)
        _integer("top_k", self.top_k, 0)
        _number("top_p", self.top_p, 0.0, 1.0, open_low=True)
        _number("min_p", self.min_p, 0.0, 1.0)
        _number("repetition_penalty", self.repetition_penalty, 0.0, 100.0, open_low=True)
        if self.seed is not None:
            _integer("seed", self.seed, 0, 2**64 - 1)
        _integer("max_new_tokens", self.max_new_tokens, 1)
        if not isinstance(self.stop, tuple) or not all(isinstance(s, str) and s for s in self.stop):
            raise GenerationError(f"stop is {self.stop!r}; expected a tuple of strings that are not empty.")
        if len(self.stop) > MAX_STOP_STRINGS:
            raise GenerationError(f"{len(self.stop)} stop strings were given; at most {MAX_STOP_STRINGS} are possible.")
        if not isinstance(self.ignore_eos, bool):
            raise GenerationError(f"ignore_eos is {self.ignore_eos!r}; expected true or false.")
        number = isinstance(self.speculate, int) and not isinstance(self.speculate, bool)
        if self.speculate not in SPECULATE if not number else not 1 <= int(self.speculate) <= MAX_GUESSES:
            raise GenerationError(
                f"speculate is {self.speculate!r}; expected {', '.join(SPECULATE)} or a number from 1 to {MAX_GUESSES}."
            )

    @property
    def greedy(self) -> bool:
        """True where the most likely token is always taken, so that the seed has no effect."""
        return self.temperature == 0.0

    @classmethod
    def from_defaults(cls, defaults: Mapping[str, Any], **overrides: Any) -> GenerationSettings:
        """Settings from a bundle's ``generation.json`` or a profile, with ``overrides`` that are not None on top.

        Keys that are no setting (``eos_token_id``, ``transformers_version``, ...) are ignored; ``do_sample: false``
        means greedy, as in transformers. A string or list of stop strings is accepted. Raises GenerationError.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        values = {key: value for key, value in defaults.items() if key in names and value is not None}
        if defaults.get("do_sample") is False:
            values["temperature"] = 0.0
        unknown = sorted(set(overrides) - names)
        if unknown:
            raise GenerationError(
                f"{unknown[0]!r} is not a generation setting; expected one of {', '.join(sorted(names))}."
            )
        values.update({key: value for key, value in overrides.items() if value is not None})
        stop = values.get("stop")
        if isinstance(stop, str):
            values["stop"] = (stop,)
        elif isinstance(stop, list):
            values["stop"] = tuple(stop)
        return cls(**values)

    def replace(self, **changes: Any) -> GenerationSettings:
        """A copy with some fields changed and validated again."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form, in field order."""
        return {**dataclasses.asdict(self), "stop": list(self.stop)}


def check_numerics(numerics: str) -> Numerics:
    """``numerics`` if it is one of the numerical paths; raises GenerationError otherwise."""
    for known in NUMERICS:
        if numerics == known:
            return known
    raise GenerationError(f"There are no numerics {numerics!r}; expected {' or '.join(NUMERICS)}.")


def _number(name: str, value: object, low: float, high: float, *, open_low: bool = False) -> None:
    expected = f"a number {'above' if open_low else 'from'} {low:g} {'up ' if open_low else ''}to {high:g}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise GenerationError(f"{name} is {value!r}; expected {expected}.")
    if value > high or value < low or (open_low and value == low):
        raise GenerationError(f"{name} is {value:g}; expected {expected}.")


def _integer(name: str, value: object, low: int, high: int | None = None) -> None:
    expected = f"a whole number of at least {low}" + (f" and at most {high}" if high is not None else "")
    if isinstance(value, bool) or not isinstance(value, int):
        raise GenerationError(f"{name} is {value!r}; expected {expected}.")
    if value < low or (high is not None and value > high):
        raise GenerationError(f"{name} is {value}; expected {expected}.")
