"""What a request says about sampling: settings, biases and penalties, samples and records of log-probabilities."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.errors import GenerationError
from edgedistill.runtime.logprobs import MOST_TOP
from edgedistill.server.errors import ApiError, refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from edgedistill.runtime.settings import GenerationSettings
    from edgedistill.server.fields import Fields

    Logits = npt.NDArray[np.float32]

MOST_SAMPLES = 128
_MOST_TOKENS = 1 << 31


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the answers of a request are drawn.

    Attributes:
        settings: With a seed; ``max_new_tokens`` is 1 where nothing is to be generated.
        generate: False for a prompt that is only to be scored.
        n: Samples.
        bias: Added to logits, by token. presence, frequency: Subtracted from those of tokens that were generated, once
            and per occurrence.
    """

    settings: GenerationSettings
    generate: bool
    n: int
    bias: Mapping[int, float]
    presence: float
    frequency: float

    def shaping(self) -> Biases | None:
        """What changes the logits of one sample; None where nothing does."""
        return (
            Biases(self.bias, self.presence, self.frequency) if self.bias or self.presence or self.frequency else None
        )


def read_sampling(
    fields: Fields, defaults: GenerationSettings, *, vocab_size: int, max_tokens: int | None = None, least: int = 1
) -> Sampling:
    """Read what a request says; where it says nothing, ``defaults`` (the bundle's) hold.

    Args:
        fields: Of the request.
        defaults: The bundle's settings.
        vocab_size: Ids below it are tokens.
        max_tokens: Instead of the default's. ``least``: fewest that may be asked for.

    Raises:
        ApiError: A value of the wrong type or out of range.
    """
    given = fields.integer("max_completion_tokens", least, _MOST_TOKENS)
    older = fields.integer("max_tokens", least, _MOST_TOKENS)
    chosen = given if given is not None else older if older is not None else max_tokens
    seed = fields.integer("seed", -(1 << 63), (1 << 64) - 1)
    changes = {
        "temperature": fields.number("temperature", 0.0, 100.0),
        "top_p": fields.number("top_p", 0.0, 1.0),
        "top_k": fields.integer("top_k", -1, _MOST_TOKENS),
        "min_p": fields.number("min_p", 0.0, 1.0),
        "repetition_penalty": fields.number("repetition_penalty", 0.0, 100.0),
        "max_new_tokens": None if chosen is None else max(1, chosen),
        "seed": secrets.randbits(32) if seed is None else seed % (1 << 64),
        "stop": _stop(fields),
        "ignore_eos": fields.flag("ignore_eos"),
    }
    if changes["top_k"] == -1:  # vLLM's and llama.cpp's way to say all
        changes["top_k"] = 0
    try:
        settings = defaults.replace(**{name: value for name, value in changes.items() if value is not None})
    except GenerationError as error:
        raise refusal(error) from error
    fields.unsupported({"best_of": lambda value: value == (fields.take("n") or 1)}, "only `n` samples are drawn")
    return Sampling(
        settings=settings,
        generate=chosen != 0,
        n=fields.integer("n", 1, MOST_SAMPLES) or 1,
        bias=_bias(fields, vocab_size),
        presence=fields.number("presence_penalty", -2.0, 2.0) or 0.0,
        frequency=fields.number("frequency_penalty", -2.0, 2.0) or 0.0,
    )


def top_count(fields: Fields, name: str) -> int | None:
    """How many of the most likely tokens a request wants beside each."""
    return fields.integer(name, 0, MOST_TOP)


def read_form(fields: Fields) -> dict[str, Any]:
    """What a request says of the form of its answers: keywords of ``constraint_of``."""
    choices = fields.take("choices")
    if choices is not None and not isinstance(choices, list):
        fields.refuse("choices", "a list of texts")
    return {
        "response_format": fields.object("response_format"),
        "json_schema": fields.object("json_schema"),
        "grammar": fields.text("grammar"),
        "regex": fields.text("regex"),
        "choices": choices,
    }


def _stop(fields: Fields) -> tuple[str, ...] | None:
    value = fields.take("stop")
    if value is None:
        return None
    if isinstance(value, str):
        return (value,) if value else None
    # lm_eval sends [null] for none.
    if isinstance(value, list) and all(isinstance(one, str) or one is None for one in value):
        return tuple(one for one in value if one)
    return fields.refuse("stop", "a string or a list of strings")


def _bias(fields: Fields, vocab_size: int) -> dict[int, float]:
    found = {}
    for name, value in (fields.object("logit_bias") or {}).items():
        token = int(name) if name.isascii() and name.isdecimal() and len(name) < 10 else -1
        number = isinstance(value, int | float) and not isinstance(value, bool) and -100 <= value <= 100
        if not 0 <= token < vocab_size or not number:
            raise ApiError(
                400,
                f"`logit_bias` has {name[:20]!r}: {str(value)[:20]}; expected token ids below {vocab_size} and numbers "
                "from -100 to 100.",
                param="logit_bias",
                code="invalid_value",
            )
        found[token] = float(value)
    return found


class Biases:
    """``logit_bias`` and the penalties of OpenAI's API, which count generated tokens only.

    logits[v] + bias[v] - frequency * count[v] - presence * (count[v] > 0)
    """

    def __init__(self, bias: Mapping[int, float], presence: float, frequency: float) -> None:
        self._ids = np.array(list(bias), dtype=np.int64)
        self._values = np.array(list(bias.values()), dtype=np.float32)
        self._presence, self._frequency = presence, frequency
        self._counts: dict[int, int] = {}

    def apply(self, logits: Logits) -> Logits:
        """float32 [V], changed."""
        out = logits.copy()
        out[self._ids] += self._values
        if self._counts and (self._presence or self._frequency):
            ids = np.fromiter(self._counts, dtype=np.int64)
            counts = np.fromiter(self._counts.values(), dtype=np.float32)
            out[ids] -= np.float32(self._presence) + np.float32(self._frequency) * counts
        return out

    def observe(self, token: int) -> None:
        """A token was generated."""
        self._counts[token] = self._counts.get(token, 0) + 1
