"""Options of a plan: one frozen record for the command line and the Python API; lists of formats as users write
them.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgedistill.errors import UsageError
from edgedistill.profile.profile import DEFAULT_PROFILE
from edgedistill.quantize.plan import parse_format
from edgedistill.quantize.spec import BLOCK_SIZES, STORED_BITS

if TYPE_CHECKING:
    from pathlib import Path

    from edgedistill.profile.profile import Profile
    from edgedistill.quantize.spec import WeightFormat


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """Settings of a plan; every field has the name of its command line option, and takes one value or several.

    Attributes:
        profile: Hardware profiles (names, paths or profiles): one row each, or one for each ``format``.
        format: Weight formats instead of the profiles' own rules; text may hold several, divided by commas.
        block_size, kv_cache: Replace the profile's, as for an export.
        context: Tokens that memory and decoding are predicted for, the longest being the bundle's context; None: 1024,
            4096 and the profile's.
        prompt_tokens: Prompt lengths that prefill is predicted for; None: 256 and 1024.
        adapter, revision, offline: As for an export.
        threads: Instead of the profile's.
        measure: Time kernels that were never timed on this machine; False: speeds only from earlier timings.
        remeasure: Time all of them again.
    """

    profile: str | Path | Profile | Sequence[str | Path | Profile] = DEFAULT_PROFILE
    format: str | Sequence[str] | None = None
    block_size: int | None = None
    context: int | Sequence[int] | None = None
    prompt_tokens: int | Sequence[int] | None = None
    kv_cache: str | None = None
    adapter: str | Path | None = None
    revision: str | None = None
    offline: bool = False
    threads: int | None = None
    measure: bool = True
    remeasure: bool = False

    @property
    def profiles(self) -> Sequence[str | Path | Profile]:
        """The profiles as a sequence."""
        several = isinstance(self.profile, Sequence) and not isinstance(self.profile, str)
        return self.profile if several else (self.profile,)  # type: ignore[return-value]

    @property
    def contexts(self) -> Sequence[int]:
        """The context lengths as a sequence; empty for the defaults."""
        return _numbers(self.context)

    @property
    def prompts(self) -> Sequence[int]:
        """The prompt lengths as a sequence; empty for the defaults."""
        return _numbers(self.prompt_tokens)


def _numbers(value: int | Sequence[int] | None) -> Sequence[int]:
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else value


def read_formats(formats: str | Sequence[str]) -> list[tuple[str, WeightFormat]]:
    """(name, format) of each part of ``int4-b32,int8-b64``, or of a sequence, in order, doubles left out.

    Raises:
        UsageError: No format at all, or one that does not exist, with the nearest that does.
    """
    texts = [formats] if isinstance(formats, str) else formats
    names = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    if not names:
        raise UsageError("The list of formats is empty.", hint="For example: int4-b32,int8-b64,fp32.")
    return [(name, _read(name)) for name in dict.fromkeys(names)]


def _read(name: str) -> WeightFormat:
    try:
        return parse_format(name)
    except UsageError as error:
        near = difflib.get_close_matches(name.lower(), _candidates(name), n=1, cutoff=0.4)
        if not near:
            raise
        raise UsageError(error.message, hint=f"Did you mean {near[0]}?") from error


def _candidates(name: str) -> list[str]:
    """Names like the misspelt one: its parts after the first two are kept where the rest makes a format of them."""
    heads = ["fp32", "w8a8", *(f"int{bits}" for bits in STORED_BITS)]
    heads += [f"int{bits}-b{block}" for bits in STORED_BITS for block in BLOCK_SIZES]
    rest = "-".join(name.lower().split("-")[2:])
    found = list(heads)
    for head in heads if rest else ():
        try:
            parse_format(f"{head}-{rest}")
        except UsageError:
            continue
        found.append(f"{head}-{rest}")
    return found
