"""Summarises comparisons per token: divergences by position, coupled pairs, and the two numerical paths of a bundle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.verify.metrics.survival import first_divergence, hazard_by_position, hazard_per_100, survival_curve
from edgedistill.verify.metrics.token_divergence import (
    concatenate,
    exposure_index,
    llama_cpp_positions,
    position_mean,
    summarise,
)
from edgedistill.verify.report.model import PositionBin, TokenReport
from edgedistill.verify.stats.cluster_intervals import jackknife_interval, ratio_left_out
from edgedistill.verify.types import Estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from edgedistill.verify.metrics.survival import Parting
    from edgedistill.verify.metrics.token_divergence import TokenDivergence
    from edgedistill.verify.types import Drawn

    Floats = npt.NDArray[np.float64]
    Values = npt.NDArray[np.float64] | npt.NDArray[np.bool_]

BINS = 32
_OVER_REPLIES = "jackknife over replies"


@dataclass(frozen=True, slots=True)
class PromptDivergences:
    """Divergences on one prompt: an entry per reply, with positions counted from the first generated token.

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
    """Summarise the token scores of a run; parts without measurements are None.

    Args:
        divergences: An entry per prompt.
        reference, bundle: All replies; pairs of equal prompt and index are compared if they are ``coupled``, drawn with
            the same random numbers.
        coupled: See above.
        level, seed: Of the intervals.
    """
    forced = _per_prompt([prompt.forced for prompt in divergences])
    on_policy = _per_prompt([prompt.on_policy for prompt in divergences])
    path = _per_prompt([prompt.path for prompt in divergences])
    both = [
        (concatenate(prompt.forced), concatenate(prompt.on_policy))
        for prompt in divergences
        if _counts(prompt.forced) and _counts(prompt.on_policy)
    ]
    parted = _partings(reference, bundle) if coupled else []
    flat = [parting for partings in parted for parting in partings]
    return TokenReport(
        forced=summarise(forced, level=level, seed=seed) if forced else None,
        on_policy=summarise(on_policy, level=level, seed=seed) if on_policy else None,
        exposure=exposure_index([f for f, _ in both], [o for _, o in both], level=level, seed=seed) if both else None,
        llama_cpp=_llama_cpp([prompt.forced for prompt in divergences], level, seed),
        by_position=_by_position(divergences, level, seed),
        survival=survival_curve(parted, level) if flat else None,
        coupled_pairs=len(flat),
        parted=sum(parting.parted for parting in flat),
        hazard=hazard_per_100(parted, level=level, seed=seed) if flat else None,
        hazard_by_100=tuple(hazard_by_position(parted, level)) if flat else (),
        path=summarise(path, level=level, seed=seed) if path else None,
    )


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """Token scores of one prompt: mean KL in nats on the reference's and on the bundle's replies; on the reference's
    also the share of positions with the same first choice and the mean change of the token entropy in bits.
    """

    kl: Estimate | None = None
    kl_on_policy: Estimate | None = None
    top_agreement: Estimate | None = None
    delta_entropy: Estimate | None = None


def prompt_tokens(prompt: PromptDivergences, level: float) -> PromptTokens:
    """Means over the positions of a prompt's replies, each with a jackknife interval over replies (if there are 2 or
    more); None without measurements.
    """

    def mean(
        replies: Sequence[TokenDivergence], of: Callable[[TokenDivergence], Values], *ends: float
    ) -> Estimate | None:
        values = [kept for reply in replies if (kept := of(reply)[np.isfinite(reply.kl)]).size]
        sums, sizes = [float(kept.sum()) for kept in values], [float(kept.size) for kept in values]
        if not values:
            return None
        value, left_out = sum(sums) / sum(sizes), ratio_left_out(sums, sizes)
        interval = jackknife_interval(value, left_out, low=ends[0], high=ends[1], level=level, method=_OVER_REPLIES)
        return Estimate(value, interval)

    return PromptTokens(
        kl=mean(prompt.forced, lambda reply: reply.kl, 0.0, math.inf),
        kl_on_policy=mean(prompt.on_policy, lambda reply: reply.kl, 0.0, math.inf),
        top_agreement=mean(prompt.forced, lambda reply: reply.top_agrees, 0.0, 1.0),
        delta_entropy=mean(prompt.forced, lambda reply: reply.entropy_q - reply.entropy_p, -math.inf, math.inf),
    )


def _counts(replies: Sequence[TokenDivergence]) -> int:
    """Number of positions with a finite divergence; a prompt without any is left out of summaries."""
    return sum(int(np.isfinite(reply.kl).sum()) for reply in replies)


def _per_prompt(prompts: Sequence[Sequence[TokenDivergence]]) -> list[TokenDivergence]:
    return [concatenate(replies) for replies in prompts if _counts(replies)]


def _partings(reference: Sequence[Drawn], bundle: Sequence[Drawn]) -> list[list[Parting]]:
    """The pairs of each prompt that has any, in order of first appearance."""
    other = {drawn.key: drawn.token_ids for drawn in bundle}
    pairs: dict[str, list[Parting]] = {}
    for drawn in reference:
        if (tokens := other.get(drawn.key)) is not None:
            pairs.setdefault(drawn.sample.prompt_id, []).append(first_divergence(drawn.token_ids, tokens))
    return list(pairs.values())


def _llama_cpp(prompts: Sequence[Sequence[TokenDivergence]], level: float, seed: int) -> Estimate | None:
    """llama.cpp's mean KLD, with a reply in place of its text; None if no reply has a whole window."""
    scored = [
        _joined([reply.kl_llama_cpp[llama_cpp_positions(len(reply.kl_llama_cpp))] for reply in replies])
        for replies in prompts
    ]
    return position_mean(scored, level=level, seed=seed) if any(values.size for values in scored) else None


def _by_position(divergences: Sequence[PromptDivergences], level: float, seed: int) -> tuple[PositionBin, ...]:
    """Mean KL in at most ``BINS`` bins of equal width that cover the longest reply."""
    forced = [[reply.kl for reply in prompt.forced] for prompt in divergences]
    on_policy = [[reply.kl for reply in prompt.on_policy] for prompt in divergences]
    longest = max((len(kl) for replies in (*forced, *on_policy) for kl in replies), default=0)
    width = max(1, math.ceil(longest / BINS))

    def mean(prompts: Sequence[Sequence[Floats]], start: int) -> Estimate | None:
        values = [_joined([kl[start : start + width] for kl in replies]) for replies in prompts]
        found = position_mean(values, level=level, seed=seed)
        return None if math.isnan(found.value) else found

    return tuple(
        PositionBin(start, min(start + width, longest), mean(forced, start), mean(on_policy, start))
        for start in range(0, longest, width)
    )


def _joined(parts: Sequence[Floats]) -> Floats:
    """The finite values of all parts."""
    values = np.concatenate(parts) if parts else np.empty(0)
    return values[np.isfinite(values)]


def by_prompt_id(divergences: Sequence[PromptDivergences]) -> Mapping[str, PromptDivergences]:
    """The entries by the id of their prompt."""
    return {prompt.prompt_id: prompt for prompt in divergences}
