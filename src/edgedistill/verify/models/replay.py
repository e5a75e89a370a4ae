"""Coupled samples through the reference's: score its tokens in parallel, decode only after the first mismatch.

Given the noise of a sample and the reference's tokens, one teacher-forced pass of the bundle gives the bundle's own
choice at every position. Up to the first choice that differs its sample is the reference's; from there it is decoded.
The
result is the coupled sample itself wherever scoring and decoding take one numerical path: in ``exact`` mode, bit for
bit. With ``fast`` settings the choices up to the mismatch come from the scoring path, which is not the deployed one;
``scoring.path_distance`` says how far the two lie apart, and a report has to say which was measured.

Must not know: answers, files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import VerifyError
from edgedistill.progress import NullProgress
from edgedistill.runtime.batch.replicas import run_lanes
from edgedistill.runtime.batch.sampler import choose
from edgedistill.runtime.batch.scheduler import Start
from edgedistill.verify.models.teacher_forcing import force
from edgedistill.verify.sampling.protocol import slices

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from edgedistill.progress import Progress
    from edgedistill.runtime.batch.request import DrawSettings, SampleKey
    from edgedistill.runtime.session import DecoderSession
    from edgedistill.verify.models.bundle import BundleModel
    from edgedistill.verify.sampling.replies import Encoded
    from edgedistill.verify.types import Drawn, Prompt


@dataclass(slots=True)
class ReplayStats:
    """What a replay saved: samples, tokens of the results, those of them that were shared with the reference and only
    scored, and samples that were the reference's to the end.
    """

    samples: int = 0
    tokens: int = 0
    shared: int = 0
    unparted: int = 0

    @property
    def mean_shared(self) -> float:
        """Mean position of the first mismatch (the length where there is none)."""
        return self.shared / self.samples if self.samples else float("nan")


def require_batches(bundle: BundleModel) -> DecoderSession:
    """The session of a bundle; raises VerifyError for one of the fallback exporter."""
    if bundle.session is None:
        raise VerifyError(
            f"{bundle.identity.name} was made by the fallback exporter, which knows no batches to replay in.",
            hint="Leave out --replay.",
        )
    return bundle.session


def replay(
    bundle: BundleModel,
    prompts: Sequence[Prompt],
    reference: Mapping[SampleKey, Sequence[int]],
    settings: DrawSettings,
    *,
    done: Collection[SampleKey] = (),
    progress: Progress | None = None,
    stats: ReplayStats | None = None,
) -> Iterator[Drawn]:
    """The bundle's coupled sample for every sample of the reference, in the order in which they end.

    Args:
        bundle: The model to sample from.
        prompts: The prompts; samples of the reference for others are left out.
        reference: The reference's tokens by (prompt id, index), drawn with the same ``settings``.
        settings: Sampling settings and seed; ``exact`` mode makes the result that of ``bundle.draw``, bit for bit.
        done: Keys to leave out.
        progress: Counts samples.
        stats: Filled as it goes.

    Raises:
        VerifyError: An empty sample, one longer than the settings allow, or a bundle of the fallback exporter.
    """
    session = require_batches(bundle)
    stats = stats or ReplayStats()
    encoded = {prompt.id: bundle.replies.encode(prompt, settings.thinking) for prompt in prompts}
    work = {key: tuple(tokens) for key, tokens in reference.items() if key[0] in encoded and key not in done}
    for (prompt_id, index), tokens in work.items():
        if not 0 < len(tokens) <= settings.max_new_tokens:
            raise VerifyError(
                f"sample {index} of `{prompt_id}` in the reference has {len(tokens)} tokens; expected 1 to "
                f"{settings.max_new_tokens}.",
                hint="Replay with the settings that the reference was drawn with.",
            )
    progress = progress or NullProgress()
    progress.begin(f"replaying {bundle.identity.name}", len(work), "items")
    limit = session.geometry.limit
    work = {key: tokens[: limit - len(encoded[key[0]].ids)] for key, tokens in work.items()}
    longest = max((len(one.ids) for one in encoded.values()), default=0)
    # Scoring takes wide steps, which the threads of the session share well; only what follows them is decoded in lanes.
    _, engines = bundle.engines(settings, longest=longest, sequences=len(work))
    for ended in run_lanes(engines, _starts(bundle, session, encoded, work, settings, stats)):
        prompt_id, index = ended.key
        stats.samples += 1
        stats.tokens += len(ended.tokens)
        yield bundle.replies.drawn(encoded[prompt_id], index, ended.tokens, ended.finish)
        progress.advance(1)
    progress.end()


def _starts(
    bundle: BundleModel,
    session: DecoderSession,
    encoded: Mapping[str, Encoded],
    work: Mapping[SampleKey, tuple[int, ...]],
    settings: DrawSettings,
    stats: ReplayStats,
) -> Iterator[Start]:
    """Score the reference's samples, prompt by prompt and some at a time; each starts where it parts."""
    for prompt_id, one in encoded.items():
        keys = sorted((key for key in work if key[0] == prompt_id), key=lambda key: len(work[key]))
        for at in range(0, len(keys), bundle.score_rows):
            group = keys[at : at + bundle.score_rows]
            yield from _group_starts(bundle, session, one, group, [work[key] for key in group], settings, stats)


def _group_starts(
    bundle: BundleModel,
    session: DecoderSession,
    one: Encoded,
    keys: Sequence[SampleKey],
    sequences: Sequence[tuple[int, ...]],
    settings: DrawSettings,
    stats: ReplayStats,
) -> Iterator[Start]:
    noise = bundle.noise.keys(settings.seed, one.prompt.id, [index for _, index in keys])
    generation = settings.generation
    parts = slices([len(s) for s in sequences], session.info.vocab_size)
    decoder, scored = force(session, one.ids, sequences, parts, chunk=bundle.model.prefill_chunk)
    parted: dict[int, tuple[int, int]] = {}  # row: position of the mismatch, own choice
    for part, (logits, valid) in zip(parts, scored, strict=True):
        for row in parted:
            valid[row] = False
        rows, columns = np.nonzero(valid)
        if not len(rows):
            continue
        positions = columns + part.start
        seen = None
        if generation.repetition_penalty != 1.0:
            seen = _seen(one.ids, sequences, rows, positions, logits.shape[-1])
        own = choose(logits[rows, columns], generation, noise[rows], positions, seen)
        theirs = np.array(
            [sequences[row][position] for row, position in zip(rows.tolist(), positions.tolist(), strict=True)]
        )
        for at in np.flatnonzero(own != theirs).tolist():
            parted.setdefault(int(rows[at]), (int(positions[at]), int(own[at])))
        if len(parted) == len(sequences):
            break
    for row, (key, sequence) in enumerate(zip(keys, sequences, strict=True)):
        position, choice = parted.get(row, (len(sequence), -1))
        stats.shared += position
        stats.unparted += row not in parted
        tokens = (*sequence[:position], choice) if row in parted else sequence
        yield Start(key, noise[row], decoder.cache, row, len(one.ids), tokens)


def _seen(
    prompt: Sequence[int],
    sequences: Sequence[tuple[int, ...]],
    rows: npt.NDArray[np.intp],
    positions: npt.NDArray[np.int64],
    vocab_size: int,
) -> npt.NDArray[np.bool_]:
    """bool [n, V]: what the repetition penalty applies to at each position: the prompt and the tokens before it."""
    seen = np.zeros((len(rows), vocab_size), dtype=np.bool_)
    seen[:, list(prompt)] = True
    for at, (row, position) in enumerate(zip(rows.tolist(), positions.tolist(), strict=True)):
        seen[at, list(sequences[row][:position])] = True
    return seen
