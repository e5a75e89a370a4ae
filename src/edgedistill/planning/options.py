"""What a plan is asked for: one frozen record that the command line and the Python API share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgedistill.profile.profile import DEFAULT_PROFILE

if TYPE_CHECKING:
    from pathlib import Path

    from edgedistill.profile.profile import Profile


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
