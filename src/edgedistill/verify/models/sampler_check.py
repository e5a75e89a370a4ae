"""Audits the sampler with the engine of the run: same seeds repeat, other seeds differ, frequencies match
probabilities.

This module draws the replies and tokens; the tests on them are in ``stats.sampler_audit``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from edgedistill.errors import VerifyError
from edgedistill.progress import NullProgress
from edgedistill.runtime.sampling import candidates, choose
from edgedistill.verify.sampling.deadline import TimeUpError
from edgedistill.verify.sampling.protocol import slices
from edgedistill.verify.stats.sampler_audit import DRAWS, SamplerAudit, audit_sampler, seeds_differ

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from edgedistill.progress import Progress
    from edgedistill.runtime.batch.request import DrawSettings
    from edgedistill.verify.models.bundle import BundleModel
    from edgedistill.verify.models.torch import TorchModel
    from edgedistill.verify.types import Prompt

    NoisyModel: TypeAlias = BundleModel | TorchModel  # they draw and score here, with noise of their own

OTHER_SEEDS = 3
TOKENS_OF_THE_ROW = 256
"""Tokens of a row of logits, the most likely ones, that the known distribution is cut to. With more, these draws would
take half of the audit's time, and the test pools tokens that are expected less than five times anyway.
"""

_CHUNK = 1 << 22  # logits compared at a time


@dataclass(frozen=True, slots=True)
class Size:
    """Size of an audit: number of prompts, samples of each, and tokens of each sample, which are drawn twice."""

    prompts: int
    samples: int
    tokens: int

    @property
    def most(self) -> int:
        """Tokens that are drawn at most."""
        return (2 + OTHER_SEEDS) * self.prompts * self.samples * self.tokens


SHORT, FIRST, WHOLE = Size(2, 1, 8), Size(4, 2, 16), Size(4, 2, 48)
PART = 0.01
"""Largest share of the run's tokens that the audit draws, except that it is never smaller than ``SHORT``. Its batches
are small, so that it takes about twice that share of the time.
"""

USUAL_TOKENS = 64
"""Assumed length of a reply, before any is drawn; low, so that the audit stays small."""

COLD = 0.3
"""Below this temperature longer replies are as alike as short ones; above it, replies that begin alike differ later."""

SEEDS_OF_THE_ROW = 2000
"""Number of seeds that draw one token each from the most uncertain distribution, if whole replies left too little
choice to tell seeds apart. It is enough unless the most likely token has more than 99.5 %.
"""


def check_sampler(
    model: NoisyModel,
    prompts: Sequence[Prompt],
    settings: DrawSettings,
    *,
    draws: int = DRAWS,
    replies: int | None = None,
    progress: Progress | None = None,
) -> SamplerAudit:
    """Draw a few short replies twice with one seed, and with other seeds until one differs; then many tokens from one
    known distribution: the most uncertain one in these replies, cut to its most likely tokens.

    It begins with short replies. If these leave too little choice to tell seeds apart it draws longer ones, at a low
    temperature only if they are a small part of the run. If that does not tell seeds apart either, many seeds draw one
    token each from the known distribution.

    Args:
        model: Draws and scores on this machine.
        prompts: Of the suite; the first few are used.
        settings: Of the run.
        draws: Tokens drawn from the known distribution.
        replies: Number of replies that the run will draw, of which the audit is a small part. None: many.
        progress: Receives replies.

    Raises:
        VerifyError: No prompts, or settings that leave no choice (temperature 0).
        TimeUpError: The model was cancelled.
    """
    if settings.deterministic:
        raise VerifyError(
            "Decoding is deterministic with these settings, so that there is no sampler to audit.",
            hint="Give a --temperature above 0.",
        )
    if not prompts:
        raise VerifyError("There are no prompts to audit the sampler with.")
    sizes = _sizes(settings, replies)
    progress = progress or NullProgress()
    for size in sizes:
        most = (2 + OTHER_SEEDS) * size.prompts * size.samples
        progress.begin(f"auditing the sampler of {model.identity.name}", most, "items")
        found = _audit(model, prompts, settings, size, draws, progress, last=size is sizes[-1])
        progress.end()
        if found is not None:
            return found
    raise AssertionError("the last size is judged")


def _sizes(settings: DrawSettings, replies: int | None) -> list[Size]:
    """Sizes that are tried in order. The longest one is left out at a temperature below ``COLD``, where longer replies
    are of little use, unless it is a small part of the run.
    """
    if replies is None:
        return [FIRST, WHOLE]
    left = PART * replies * min(settings.max_new_tokens, USUAL_TOKENS)
    first = SHORT if FIRST.most > left else FIRST
    return [first, WHOLE] if settings.temperature >= COLD or first.most + WHOLE.most <= left else [first]


def _audit(
    model: NoisyModel,
    prompts: Sequence[Prompt],
    settings: DrawSettings,
    size: Size,
    draws: int,
    progress: Progress,
    *,
    last: bool,
) -> SamplerAudit | None:
    """The audit with replies of ``size``; None if they leave too little choice to tell seeds apart, unless ``last``."""
    short = settings.replace(max_new_tokens=min(size.tokens, settings.max_new_tokens), repetition_penalty=1.0)
    asked = list(prompts[: size.prompts])
    keys = [(prompt.id, index) for prompt in asked for index in range(size.samples)]

    def run(seed: int) -> list[tuple[int, ...]]:
        drawn = {one.key: one.token_ids for one in model.draw(asked, size.samples, short.replace(seed=seed))}
        progress.advance(len(keys))
        if len(drawn) < len(keys):
            raise TimeUpError(
                f"inconclusive: the time budget ended in the audit of the sampler of {model.identity.name}; nothing "
                "was compared.",
                hint="Give more --time-budget.",
            )
        return [drawn[key] for key in keys]

    first = run(short.seed)
    repeat: list[float] = []
    widest: tuple[float, npt.NDArray[np.float32] | None, int] = (-1.0, None, 0)
    for prompt in asked:
        sequences = [tokens for (prompt_id, _), tokens in zip(keys, first, strict=True) if prompt_id == prompt.id]
        for tokens in sequences:
            probability, entropy, logits, position = _walk(model, prompt, tokens, short)
            repeat.append(probability)
            widest = max(widest, (entropy, logits, position), key=lambda found: found[0])
    # If even all other seeds could repeat the replies by chance, one is enough: the rest would add nothing.
    seeds = OTHER_SEEDS if seeds_differ(first, [first] * OTHER_SEEDS, repeat) is False else 1
    others: list[list[tuple[int, ...]]] = []
    while len(others) < seeds and (not others or others[-1] == first):
        others.append(run((short.seed + len(others) + 1) % 2**64))
    if not last and seeds_differ(first, others, repeat) is None:
        return None
    again = run(short.seed)
    _, known, position = widest
    if known is None:
        raise VerifyError("The replies have no tokens to audit the sampler with.")
    if len(known) > TOKENS_OF_THE_ROW:  # a row of a large vocabulary takes minutes to draw from, and tells no more
        known = known[np.sort(np.argpartition(-known, TOKENS_OF_THE_ROW)[:TOKENS_OF_THE_ROW])]
    counts, probabilities = _many(model, prompts[0].id, known, position, short, draws)
    found = audit_sampler(first, again, others, repeat, counts, probabilities)
    if found.varies is not None:
        return found
    return replace(found, varies=_seeds_of_the_row(model, prompts[0].id, known, position, short))


def _seeds_of_the_row(
    model: NoisyModel, prompt_id: str, logits: npt.NDArray[np.float32], position: int, settings: DrawSettings
) -> bool | None:
    """Whether other seeds draw another token from one distribution; None if equal tokens could be chance."""
    options = candidates(logits, settings.generation)
    likeliest = int(options.ids[options.logprobs.argmax()])
    certain = [float(np.exp(options.logprobs.max()))]
    if seeds_differ([[likeliest]], [[[likeliest]]] * (SEEDS_OF_THE_ROW - 1), certain) is None:
        return None  # all of them may well draw the same token
    keys = np.array([model.noise.keys((settings.seed + n) % 2**64, prompt_id, [0])[0] for n in range(SEEDS_OF_THE_ROW)])
    rows = np.broadcast_to(logits, (len(keys), len(logits)))
    drawn = choose(rows, settings.generation, keys, np.full(len(keys), position, dtype=np.int64)).tolist()
    chance = float(np.exp(options.logprobs[options.ids == drawn[0]].sum()))
    return seeds_differ([drawn[:1]], [[[token]] for token in drawn[1:]], [chance])


def _walk(
    model: NoisyModel, prompt: Prompt, tokens: Sequence[int], settings: DrawSettings
) -> tuple[float, float, npt.NDArray[np.float32], int]:
    """Probability of a reply, and the most uncertain distribution in it: entropy in nats, logits, position."""
    log_probability, best = 0.0, (-1.0, np.empty(0, dtype=np.float32), 0)
    parts = slices([len(tokens)], model.identity.vocab_size)
    at = 0
    for logits in model.score(prompt, [tokens], parts, thinking=settings.thinking):
        for row in logits:
            options = candidates(row, settings.generation)
            entropy = float(-(np.exp(options.logprobs) * options.logprobs).sum())
            if entropy > best[0]:
                best = (entropy, row.copy(), at)
            chosen = options.logprobs[options.ids == tokens[at]]
            # A token may be a candidate on the decode path and not on the scoring path.
            log_probability += float(chosen[0]) if len(chosen) else float(options.logprobs.min())
            at += 1
    return float(np.exp(log_probability)), *best


def _many(
    model: NoisyModel,
    prompt_id: str,
    logits: npt.NDArray[np.float32],
    position: int,
    settings: DrawSettings,
    draws: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Draw one token for each of ``draws`` samples from one distribution; counts and probabilities [V]."""
    counts = np.zeros(len(logits), dtype=np.int64)
    step = max(1, _CHUNK // len(logits))
    for start in range(0, draws, step):
        indices = range(start, min(start + step, draws))
        tokens = choose(
            np.broadcast_to(logits, (len(indices), len(logits))),
            settings.generation,
            model.noise.keys(settings.seed, prompt_id, indices),
            np.full(len(indices), position, dtype=np.int64),
        )
        counts += np.bincount(tokens, minlength=len(logits))
    options = candidates(logits, settings.generation)
    probabilities = np.zeros(len(logits))
    probabilities[options.ids] = np.exp(options.logprobs)
    return counts, probabilities
