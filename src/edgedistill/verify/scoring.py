"""Computes divergences between two models on given tokens, in slices that bound the memory.

Both models score the same slice of the same sequences in turn; the logits of a slice are compared and discarded.

``path_distance`` compares a bundle with itself: the path of a prefill, which scoring uses, with the one-token steps of
deployed decoding. With quantized activations these give different distributions, so a divergence measured by teacher
forcing is not that of the deployed model. The distance shows how much of it comes from the path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import VerifyError
from edgedistill.verify.metrics.token_divergence import TokenDivergence, concatenate, divergence
from edgedistill.verify.sampling.protocol import require_same_vocabulary, slices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.verify.models.bundle import BundleModel
    from edgedistill.verify.sampling.protocol import SampledModel
    from edgedistill.verify.types import Prompt


def compare_on(
    p: SampledModel,
    q: SampledModel,
    prompt: Prompt,
    sequences: Sequence[Sequence[int]],
    *,
    thinking: bool | None = None,
) -> list[TokenDivergence]:
    """KL(p || q), entropies and top-1 agreement at every token of the sequences, given all tokens before it.

    Teacher-forced: p is the reference, on its own samples. On-policy: p is the bundle, on its own samples.
    Distributions are those of the models before temperature and filters.

    Args:
        p, q: Models with the same tokenizer. If p is a baseline, it has the distributions of its own samples only, cut
            to the most likely tokens: the divergences are lower bounds then (see ``references.baseline_file``).
        prompt: The prompt that the sequences continue.
        sequences: Token ids, as ``Drawn.token_ids``.
        thinking: As in the ``DrawSettings`` that the sequences were drawn with.

    Returns:
        One per sequence, in order.

    Raises:
        VerifyError: Different vocabularies; logits that are not finite; a model that cannot score.
    """
    from edgedistill.verify.references.baseline import BaselineModel

    require_same_vocabulary(p.identity, q.identity)
    if isinstance(p, BaselineModel):
        return p.compare(q, prompt, sequences, thinking=thinking)
    for model in (p, q):
        if not model.can_score:
            raise VerifyError(
                f"{model.identity.name} is a stored baseline, which cannot score other tokens than its own.",
                hint="Compare on the baseline's samples, or give the model itself as the reference.",
            )
    out: list[TokenDivergence | None] = [None] * len(sequences)
    # Sequences of similar length are grouped, because padding is computed as well.
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    most = min(p.score_rows, q.score_rows)
    for at in range(0, len(order), most):
        group = order[at : at + most]
        for index, result in zip(
            group, _compare_group(p, q, prompt, [sequences[i] for i in group], thinking), strict=True
        ):
            out[index] = result
    return [result for result in out if result is not None]


def _compare_group(
    p: SampledModel, q: SampledModel, prompt: Prompt, group: Sequence[Sequence[int]], thinking: bool | None
) -> list[TokenDivergence]:
    lengths = np.array([len(sequence) for sequence in group])
    parts = slices(lengths.tolist(), p.identity.vocab_size)
    pieces: list[list[TokenDivergence]] = [[] for _ in group]
    first = p.score(prompt, group, parts, thinking=thinking)
    second = q.score(prompt, group, parts, thinking=thinking)
    for part, a, b in zip(parts, first, second, strict=True):
        counts = np.clip(lengths - part.start, 0, part.stop - part.start)
        _scatter(divergence(a, b), counts.tolist(), pieces)
    empty = np.empty((0, 1), dtype=np.float32)
    return [concatenate(own) if own else divergence(empty, empty) for own in pieces]


def _scatter(joined: TokenDivergence, counts: Sequence[int], pieces: list[list[TokenDivergence]]) -> None:
    """Append to every sequence its positions of a slice."""
    at = 0
    for row, count in enumerate(counts):
        if count:
            cut = slice(at, at + count)
            pieces[row].append(
                TokenDivergence(
                    joined.entropy_p[cut],
                    joined.entropy_q[cut],
                    joined.kl[cut],
                    joined.kl_llama_cpp[cut],
                    joined.top_agrees[cut],
                )
            )
        at += count


def path_distance(
    bundle: BundleModel, prompt: Prompt, sequences: Sequence[Sequence[int]], *, thinking: bool | None = None
) -> TokenDivergence:
    """KL(scoring path || deployed decode path) of one bundle at every token of the sequences.

    The deployed path is one-token steps of a single row after a prefill. The first token of a reply comes from the
    prefill itself, so its distance is 0. These steps are slow: some tens of tokens per prompt are enough.

    Raises:
        VerifyError: No tokens; logits that are not finite.
    """
    prompt_ids = bundle.replies.encode(prompt, thinking).ids
    found: list[TokenDivergence] = []
    for sequence in sequences:
        parts = slices([len(sequence)], bundle.identity.vocab_size)
        decoder = bundle.model.session.decoder()
        fed = [prompt_ids[-1], *sequence[:-1]]
        if len(prompt_ids) > 1:
            decoder.feed(prompt_ids[:-1], exact=True, logits=False)
        for part, scored in zip(parts, bundle.score(prompt, [sequence], parts, thinking=thinking), strict=True):
            steps = np.stack([decoder.feed([fed[at]], exact=at == 0).copy() for at in range(part.start, part.stop)])
            found.append(divergence(scored, steps))
    if not found:
        raise VerifyError("There are no tokens to measure the distance of the two numerical paths on.")
    return concatenate(found)
