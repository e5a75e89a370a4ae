"""Token by token: divergences by position, coupled pairs until they part, and the two numerical paths of one bundle.

Must not know: answers, models, how divergences were computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.verify.divergence import concatenate, exposure_index, llama_cpp_positions, summarise
from edgedistill.verify.result import PositionBin, TokenReport
from edgedistill.verify.survival import first_divergence, hazard_by_position, hazard_per_100, survival_curve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgedistill.verify.divergence import TokenDivergence
    from edgedistill.verify.run_settings import Drawn
    from edgedistill.verify.survival import Parting

BINS = 32


@dataclass(frozen=True, slots=True)
class PromptDivergences:
    """Divergences on one prompt, an entry per reply, positions counted from the first generated token.

    ``forced``: KL(reference || bundle) on the reference's replies. ``on_policy``: KL(bundle || reference) on the
    bundle's. ``path``: KL(scoring || decoding) of the bundle on replies of its own.
    """

    prompt_id: str
    forced: tuple[TokenDivergence, ...] = ()
    on_policy: tuple[TokenDivergence, ...] = ()
    path: tuple[TokenDivergence, ...] = ()


def token_report(
    divergences: Sequence[PromptDivergences],
    reference: Sequence[Drawn],
    bundle: Sequence[Drawn],
    *,
    coupled: bool,
    level: float,
    seed: int,
) -> TokenReport:
    """Summarise; parts for which nothing was measured stay None.

    Args:
        divergences: An entry per prompt.
        reference, bundle: All replies; pairs of equal prompt and index are compared where they are ``coupled``.
    """
    forced = _per_prompt([prompt.forced for prompt in divergences])
    on_policy = _per_prompt([prompt.on_policy for prompt in divergences])
    path = _per_prompt([prompt.path for prompt in divergences])
    both = [
        (concatenate(prompt.forced), concatenate(prompt.on_policy))
        for prompt in divergences
        if _counts(prompt.forced) and _counts(prompt.on_policy)
    ]
    pairs = _partings(reference, bundle) if coupled else {}
    flat = [parting for partings in pairs.values() for parting in partings]
    return TokenReport(
        forced=summarise(forced, level=level, seed=seed) if forced else None,
        on_policy=summarise(on_policy, level=level, seed=seed) if on_policy else None,
        exposure=exposure_index([f for f, _ in both], [o for _, o in both], level=level, seed=seed) if both else None,
        llama_cpp=_llama_cpp([reply for prompt in divergences for reply in prompt.forced]),
        by_position=_by_position(divergences),
        survival=survival_curve(flat, level) if flat else None,
        coupled_pairs=len(flat),
        parted=sum(parting.parted for parting in flat),
        hazard=hazard_per_100(list(pairs.values()), level=level, seed=seed) if flat else None,
        hazard_by_100=tuple(hazard_by_position(flat, level)) if flat else (),
        path=summarise(path, level=level, seed=seed) if path else None,
    )


def mean_forced_kl(prompt: PromptDivergences) -> float | None:
    """Mean finite teacher-forced KL of a prompt; None where nothing was measured."""
    values = [reply.kl[np.isfinite(reply.kl)] for reply in prompt.forced]
    joined = np.concatenate(values) if values else np.empty(0)
    return float(joined.mean()) if joined.size else None


def _counts(replies: Sequence[TokenDivergence]) -> int:
    """Positions of finite divergence; a prompt without any has no place in a summary."""
    return sum(int(np.isfinite(reply.kl).sum()) for reply in replies)


def _per_prompt(prompts: Sequence[Sequence[TokenDivergence]]) -> list[TokenDivergence]:
    return [concatenate(replies) for replies in prompts if _counts(replies)]


def _partings(reference: Sequence[Drawn], bundle: Sequence[Drawn]) -> dict[str, list[Parting]]:
    other = {drawn.key: drawn.token_ids for drawn in bundle}
    pairs: dict[str, list[Parting]] = {}
    for drawn in reference:
        if (tokens := other.get(drawn.key)) is not None:
            pairs.setdefault(drawn.sample.prompt_id, []).append(first_divergence(drawn.token_ids, tokens))
    return pairs


def _llama_cpp(replies: Sequence[TokenDivergence]) -> float | None:
    """llama.cpp's mean KLD, a reply taking the place of its text; None where no reply has a whole window."""
    scored = [reply.kl_llama_cpp[llama_cpp_positions(len(reply.kl_llama_cpp))] for reply in replies]
    values = np.concatenate(scored) if scored else np.empty(0)
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else None


def _by_position(divergences: Sequence[PromptDivergences]) -> tuple[PositionBin, ...]:
    """At most ``BINS`` bins of equal width that cover the longest reply."""
    forced = [reply.kl for prompt in divergences for reply in prompt.forced]
    on_policy = [reply.kl for prompt in divergences for reply in prompt.on_policy]
    longest = max((len(kl) for kl in (*forced, *on_policy)), default=0)
    width = max(1, math.ceil(longest / BINS))

    def mean(replies: Sequence[np.ndarray], start: int) -> float | None:
        parts = [kl[start : start + width] for kl in replies]
        values = np.concatenate(parts) if parts else np.empty(0)
        values = values[np.isfinite(values)]
        return float(values.mean()) if values.size else None

    return tuple(
        PositionBin(start, min(start + width, longest), mean(forced, start), mean(on_policy, start))
        for start in range(0, longest, width)
    )


def by_prompt_id(divergences: Sequence[PromptDivergences]) -> Mapping[str, PromptDivergences]:
    """The entries by the id of their prompt."""
    return {prompt.prompt_id: prompt for prompt in divergences}
