"""Options of a comparison: one frozen record for the command line and the Python API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgedistill.errors import UsageError
from edgedistill.planning.options import read_formats
from edgedistill.profile.profile import DEFAULT_PROFILE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgedistill.profile.profile import Profile
    from edgedistill.quantize.spec import WeightFormat

DEFAULT_FORMATS = "int4-b128,int4-b32,int6-b32,int8-b64"


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """What to compare and how much to measure; every field has the name of its command line option.

    Attributes:
        format: Weight formats, each for all matrices with the rest of ``profile``; text may hold several, divided by
            commas. None: ``int4-b128,int4-b32,int6-b32,int8-b64``, or no formats where there are ``profiles``.
        profiles: Profiles whose own rules are compared as well.
        profile: Of the formats and of the fp32 reference.
        context, kv_cache, adapter, revision, offline: As for an export; the reference's cache is float32.
        tokens: File of text or traces to compare on; None: what the reference itself says to built-in prompts.
        max_tokens: Tokens that are predicted along the scoring path.
        decode_tokens: Of those, from the front, also along the decode path.
        rounds: Rounds of timing, all bundles in turn; 0: no timing.
        prompt_tokens, new_tokens: Of each round's measurement.
        seed: Of the reference's replies.
        keep: Directory for the bundles, which then stay; None: the user's cache, emptied at the end.
    """

    format: str | Sequence[str] | None = None
    profiles: Sequence[str] = ()
    profile: str | Profile = DEFAULT_PROFILE
    context: int | None = None
    kv_cache: str | None = None
    adapter: str | Path | None = None
    revision: str | None = None
    offline: bool = False
    tokens: str | Path | None = None
    max_tokens: int = 2048
    decode_tokens: int = 512
    rounds: int = 3
    prompt_tokens: int = 256
    new_tokens: int = 64
    seed: int = 0
    keep: str | Path | None = None

    @property
    def formats(self) -> list[tuple[str, WeightFormat]]:
        """(name, format) of each; raises UsageError for one that does not exist."""
        if self.format is None:
            return [] if self.profiles else read_formats(DEFAULT_FORMATS)
        return read_formats(self.format)

    def check(self) -> None:
        """Raises UsageError for numbers that make no sense."""
        low = {"max_tokens": 16, "decode_tokens": 1, "rounds": 0, "prompt_tokens": 1, "new_tokens": 1}
        for name, least in low.items():
            if getattr(self, name) < least:
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option} is {getattr(self, name)}; expected at least {least}.")
