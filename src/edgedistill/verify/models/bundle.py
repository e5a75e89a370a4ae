"""A bundle as a model for verification: draws samples by continuous batching, computes logits by teacher forcing.

Every prompt is prefilled once; all its samples share its KV cache and the distribution of the first token.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.bundle.bundle import TOKENIZER, Bundle
from edgedistill.progress import NullProgress
from edgedistill.runtime.batch.replicas import run_lanes
from edgedistill.runtime.batch.scheduler import Engine, Finished, Start
from edgedistill.runtime.generate import TokenLoop
from edgedistill.runtime.model import Model, open_bundle
from edgedistill.runtime.sampling import NoiseKey, NoiseSource, Sampler, choose
from edgedistill.runtime.session import DecoderSession
from edgedistill.runtime.state import with_copies
from edgedistill.runtime.trial import require_tried
from edgedistill.verify.models.teacher_forcing import force, force_one, prefill
from edgedistill.verify.sampling.protocol import SCORE_BYTES, SampledModel
from edgedistill.verify.sampling.replies import Encoded, Replies
from edgedistill.verify.sampling.shipped import read_shipped
from edgedistill.verify.types import ModelIdentity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgedistill.bundle.bundle import Check
    from edgedistill.progress import Progress
    from edgedistill.runtime.batch.request import DrawSettings, Finish, SampleKey
    from edgedistill.verify.metrics.device_agreement import DeviceReport
    from edgedistill.verify.sampling.protocol import Missing, Slice
    from edgedistill.verify.types import Drawn, Prompt, Shipped

    Logits = npt.NDArray[np.float32]

DEFAULT_MEMORY = 2 << 30
MOST_ROWS = 32
MOST_SCORED_ROWS = 32
LANE_BYTES = 64 << 20
"""Largest bundle that is sampled by engines of one thread each (``lanes``)."""
MOST_LANES = 4
LANE_ROWS = 16
LEAST_LANE_ROWS = 4


class BundleModel(SampledModel):
    """A loaded bundle to be verified.

    Args:
        model: The loaded bundle; closed with this object.
        memory: Bytes for the batch's KV cache and logits; default: a quarter of the free memory, at most 2 GiB.
        batch: Rows of the batch; default: what ``memory`` allows, at most 32 (more gain nothing: arithmetic
            is at its limit and the rows' keys and values leave the processor's caches).
        noise: Source of the random numbers; only tests replace it.
    """

    can_score = True

    def __init__(
        self, model: Model, *, memory: int | None = None, batch: int | None = None, noise: NoiseSource | None = None
    ) -> None:
        self.model = model
        self.identity = bundle_identity(model.bundle)
        self.noise = noise or NoiseSource()
        self._memory = memory
        self._batch = batch
        self._lane_session: DecoderSession | None = None
        info = model.bundle.manifest.model
        self._info = info
        self.replies = Replies(
            model.tokenizer,
            lambda messages, thinking: model.render(messages, thinking=thinking),
            model.encode,
            context_length=info.context_length,
            grammar=model.grammar,
        )

    @property
    def generation_defaults(self) -> dict[str, Any]:
        """The bundle's generation.json."""
        return self.model.bundle.generation

    @property
    def shipped(self) -> Shipped:
        """Template, end tokens and sampling defaults."""
        bundle = self.model.bundle
        return read_shipped(
            self.model.tokenizer, bundle.chat_template, self._info.eos_token_ids, self.generation_defaults
        )

    @property
    def here(self) -> BundleModel:
        """The model that is sampled on this machine: itself, unless its sampling is spread over a cluster."""
        return self

    def devices(self, prompts: Sequence[Prompt], settings: DrawSettings) -> DeviceReport | None:  # noqa: ARG002
        """Which devices drew the samples, and whether they agree; None if only this machine did."""
        return None

    @property
    def session(self) -> DecoderSession | None:
        """The session; None for a bundle of the fallback exporter, which decodes only one sequence at a time."""
        session = self.model.session
        return session if isinstance(session, DecoderSession) else None

    @property
    def score_rows(self) -> int:
        """Number of sequences scored at a time, such that two positions of each fit into ``SCORE_BYTES``."""
        if self.session is None:
            return 1
        return max(1, min(MOST_SCORED_ROWS, SCORE_BYTES // (8 * self._info.vocab_size)))

    # ---- sampling -------------------------------------------------------------------------------------------

    def draw_missing(self, missing: Sequence[Missing], settings: DrawSettings) -> Iterator[Drawn]:
        """See ``SampledModel``."""
        encoded = {prompt.id: self.replies.encode(prompt, settings.thinking) for prompt, _ in missing}
        work = [(encoded[prompt.id], indices) for prompt, indices in missing]
        if self.session is None:
            finished = self.one_by_one(work, settings)
        else:
            longest = max((len(one.ids) for one, _ in work), default=0)
            left = sum(len(indices) for _, indices in work)
            session, engines = self.engines(settings, longest=longest, sequences=left)
            finished = run_lanes(engines, self._starts(session, work, settings))
        for ended in finished:
            prompt_id, index = ended.key
            yield self.replies.drawn(encoded[prompt_id], index, ended.tokens, ended.finish)

    def answer(
        self,
        prompts: Sequence[Prompt],
        begun: Mapping[SampleKey, tuple[int, ...]],
        settings: DrawSettings,
        *,
        progress: Progress | None = None,
    ) -> Iterator[Drawn]:
        """Draw replies that begin with given tokens, with the random numbers of the samples with the same keys.

        The given tokens are computed like a prompt. Replies are yielded in the order in which they end.

        Args:
            prompts: Of the replies.
            begun: By key of the sample, the tokens that its reply begins with.
            settings: As for ``draw``.
            progress: Receives replies.

        Raises:
            GenerationError: See ``draw``.
            ValueError: A bundle of the fallback exporter.
        """
        if self.session is None:
            raise ValueError("a bundle of the fallback exporter has no batches")
        encoded = {prompt.id: self.replies.encode(prompt, settings.thinking) for prompt in prompts}
        progress = progress or NullProgress()
        progress.begin(f"answers of {self.identity.name}", len(begun), "items")
        longest = max((len(one.ids) for one in encoded.values()), default=0)
        session, engines = self.engines(settings, longest=longest, sequences=len(begun))
        for ended in run_lanes(engines, self._begun(session, encoded, begun, settings)):
            prompt_id, index = ended.key
            yield self.replies.drawn(encoded[prompt_id], index, ended.tokens, ended.finish)
            progress.advance(1)
        progress.end()

    def _begun(
        self,
        session: DecoderSession,
        encoded: Mapping[str, Encoded],
        begun: Mapping[SampleKey, tuple[int, ...]],
        settings: DrawSettings,
    ) -> Iterator[Start[SampleKey]]:
        for (prompt_id, index), tokens in begun.items():
            if self.cancelled:
                return
            ids = encoded[prompt_id].ids
            decoder, logits = prefill(session, (*ids, *tokens), chunk=self.model.prefill_chunk)
            keys = self.noise.keys(settings.seed, prompt_id, [index])
            seen = np.zeros((1, len(logits)), dtype=np.bool_)
            seen[0, [*ids, *tokens]] = True
            at = np.array([len(tokens)], dtype=np.int64)
            (token,) = choose(logits[None], settings.generation, keys, at, seen).tolist()
            yield Start((prompt_id, index), keys[0], decoder.cache, 0, len(ids), (*tokens, token))

    def engine(self, settings: DrawSettings, *, longest: int, sequences: int) -> Engine:
        """An engine whose batch fits the memory, for prompts of at most ``longest`` tokens."""
        if self.session is None:
            raise ValueError("a bundle of the fallback exporter has no batches")
        batch = self._batch or self._rows_in_memory(longest + settings.max_new_tokens)
        engine = Engine(self.session, settings, batch=min(batch, max(2, sequences)), eos=self._info.eos_token_ids)
        engine.cancel = self.cancel
        return engine

    def engines(self, settings: DrawSettings, *, longest: int, sequences: int) -> tuple[DecoderSession, list[Engine]]:
        """The session and its engines: several of one thread each for a small model, else one engine.

        The engines of one thread use a second session, which needs the memory of the weights again. Python runs one
        thread at a time, so more than ``MOST_LANES`` engines gain nothing.
        """
        session = self.session
        if session is None:
            raise ValueError("a bundle of the fallback exporter has no batches")
        most = min(session.threads, MOST_LANES)
        rows = self._batch or self._rows_in_memory(longest + settings.max_new_tokens, most=most * LANE_ROWS)
        lanes = min(most, rows // LEAST_LANE_ROWS, sequences // LEAST_LANE_ROWS)
        small = sum(entry.size for entry in self.model.bundle.manifest.files) <= LANE_BYTES
        if lanes < 2 or not small:
            return session, [self.engine(settings, longest=longest, sequences=sequences)]
        if self._lane_session is None:
            self._lane_session = DecoderSession(self.model.bundle, replace(session.config, threads=1))
        batch = min(rows // lanes, -(-sequences // lanes))
        eos = self._info.eos_token_ids
        found = [Engine(self._lane_session, settings, batch=batch, eos=eos) for _ in range(lanes)]
        for engine in found:
            engine.cancel = self.cancel
        return self._lane_session, found

    def one_by_one(
        self, work: Iterable[tuple[Encoded, Sequence[int]]], settings: DrawSettings
    ) -> Iterator[Finished[SampleKey]]:
        """The same samples by the runtime's own loop, one sequence at a time."""
        generation = settings.generation
        decoder = self.model.session.decoder()
        for one, indices in work:
            for index, state in zip(indices, self.noise.keys(settings.seed, one.prompt.id, indices), strict=True):
                loop = TokenLoop(
                    decoder,
                    Sampler(generation, NoiseKey(int(state)), vocab_size=self._info.vocab_size),
                    generation,
                    context_length=self._info.context_length,
                    eos=self._info.eos_token_ids,
                    numerics=settings.numerics,
                )
                for _ in loop.prefill(one.ids, chunk=self.model.prefill_chunk):
                    pass
                drawn: list[int] = []
                for token in loop:
                    drawn.append(token)
                    if self.cancelled:
                        return
                tokens = tuple(drawn)
                yield Finished((one.prompt.id, index), tokens, _finish(loop.finish_reason))

    def _starts(
        self, session: DecoderSession, work: Iterable[tuple[Encoded, Sequence[int]]], settings: DrawSettings
    ) -> Iterator[Start[SampleKey]]:
        """One prefill per prompt; the first token of every sample is drawn from its distribution."""
        generation = settings.generation
        for one, indices in work:
            if self.cancelled:
                return
            decoder, logits = prefill(session, one.ids, chunk=self.model.prefill_chunk)
            seen = None
            if generation.repetition_penalty != 1.0:
                seen = np.zeros((1, len(logits)), dtype=np.bool_)
                seen[0, list(one.ids)] = True
            for at in range(0, len(indices), MOST_ROWS):
                part = indices[at : at + MOST_ROWS]
                shape = (len(part), len(logits))
                keys = self.noise.keys(settings.seed, one.prompt.id, part)
                tokens = choose(
                    np.broadcast_to(logits, shape),
                    generation,
                    keys,
                    np.zeros(len(part), dtype=np.int64),
                    None if seen is None else np.broadcast_to(seen, shape),
                )
                for index, key, token in zip(part, keys, tokens.tolist(), strict=True):
                    yield Start((one.prompt.id, index), key, decoder.cache, 0, len(one.ids), (token,))

    def _rows_in_memory(self, tokens: int, *, most: int = MOST_ROWS) -> int:
        import psutil

        memory = self._memory or min(DEFAULT_MEMORY, psutil.virtual_memory().available // 4)
        per_token = self.model.bundle.manifest.kv_cache.bytes_per_token
        states = with_copies(self._info.state_bytes)
        row = min(tokens, self._info.context_length) * per_token + states + 16 * self._info.vocab_size
        return max(2, min(most, memory // row))

    # ---- scoring --------------------------------------------------------------------------------------------

    def score(
        self, prompt: Prompt, sequences: Sequence[Sequence[int]], slices: Sequence[Slice], *, thinking: bool | None
    ) -> Iterator[Logits]:
        """See ``SampledModel.score``; the numerical path is that of a prefill."""
        ids, chunk = self.replies.encode(prompt, thinking).ids, self.model.prefill_chunk
        if self.session is None:
            (sequence,) = sequences
            yield from force_one(self.model.session.decoder(), ids, sequence, slices, chunk=chunk)
            return
        for logits, mask in force(self.session, ids, sequences, slices, chunk=chunk)[1]:
            yield logits[mask]

    # ---- lifetime -------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the model."""
        self._lane_session = None
        self.model.close()


def open_sampled(
    path: str | Path, *, threads: int | None = None, memory: int | None = None, check: Check = "full"
) -> BundleModel:
    """Open the bundle at ``path`` for verification.

    Samples and verdicts are stored under the hashes in the manifest. The files are therefore compared with them first
    (``check``), unless the caller just did that: altered weights must not get the verdict of the original ones.

    Raises:
        BundleError: There is no bundle, its files were altered, or its graph does not end (``require_tried``).
    """
    require_tried(Bundle.open(path, check=check))
    return BundleModel(open_bundle(path, threads=threads, check=check), memory=memory)


def bundle_identity(bundle: Bundle) -> ModelIdentity:
    """Identity of a bundle: its hash, with name, size and origin for reports."""
    manifest = bundle.manifest
    tokenizer = next((f.sha256 for f in manifest.files if f.name == TOKENIZER), "")
    details = {
        "family": manifest.model.family,
        "parameters": str(manifest.parameters),
        "bits per weight": f"{manifest.bits_per_weight:.2f}",
        "activations": ", ".join(sorted({w.format.activations for w in manifest.weights if len(w.shape) == 2})),
        "source": str(manifest.source.get("name", "")),
        "profile": str(manifest.profile.get("name", "")),
    }
    name = bundle.path.resolve().name
    return ModelIdentity("bundle", name, bundle.identity(), tokenizer, manifest.model.vocab_size, details)


def _finish(reason: str | None) -> Finish:
    if reason == "stop":
        return "stop"
    return "context" if reason == "context" else "length"
