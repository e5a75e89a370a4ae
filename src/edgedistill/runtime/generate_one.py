"""One generation from its prompt to its last event: template, tokens, loop and text put together."""

from __future__ import annotations

import secrets
from contextlib import nullcontext
from typing import TYPE_CHECKING

from edgedistill.runtime import stats
from edgedistill.runtime.decoder import Decoder
from edgedistill.runtime.events import Event, Generation
from edgedistill.runtime.generate import FinishReason, TokenLoop
from edgedistill.runtime.logprobs import TokenLogprob, token_logprobs
from edgedistill.runtime.sampling import NoiseKey, Sampler
from edgedistill.runtime.speculate.speculation import speculation
from edgedistill.runtime.text.reasoning import opened_by
from edgedistill.runtime.text.transcript import Transcript

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

    from edgedistill.runtime.generation_request import Request
    from edgedistill.runtime.model import Model
    from edgedistill.runtime.optimum_session import OptimumDecoder


def events(
    model: Model, request: Request, *, decoder: Decoder | OptimumDecoder | None, cancel: threading.Event | None
) -> Iterator[Event]:
    """The events of a generation; ``decoder``: whose KV cache is used, None for an idle one of the model's."""
    settings, info = request.settings, model.bundle.manifest.model
    with stats.Stopwatch() as setup:
        text = model.rendered(request)
        tokens = model.encode(text + request.continuing, raw=request.raw)
        mask = model.mask(request, text)
        seed = settings.seed if settings.seed is not None else secrets.randbits(32)
        key = NoiseKey.of(seed)
        transcript = Transcript(
            model.tokenizer, settings.stop, model.grammar, opened=opened_by(text, model.grammar),
            begun=request.continuing, tools=request.offered, formats=model.tools.formats if request.offered else (),
        )  # fmt: skip
    records: list[TokenLogprob] = []

    def record(logits: npt.NDArray[np.float32], token: int) -> None:
        records.extend(token_logprobs(logits[None], [token], model.tokenizer, top=request.logprobs or 0))

    with (
        model.decoder() if decoder is None else nullcontext(decoder) as used,
        nullcontext(None) if model.draft is None else model.draft.lent(settings, key) as draft,
    ):
        guessing = None  # guesses that turn out wrong are taken back, which states cannot be
        if not info.states:
            guessing = speculation(settings, request.numerics, model.step_costs, draft)
        loop = TokenLoop(
            used,
            Sampler(settings, key, vocab_size=info.vocab_size, mask=mask),
            settings,
            context_length=info.context_length,
            eos=info.eos_token_ids,
            numerics=request.numerics,
            cancel=cancel,
            on_choice=None if request.logprobs is None else record,
            speculation=guessing,
        )
        if model.prompt_cache is not None and isinstance(used, Decoder):
            with setup:
                model.prompt_cache.load(used, tokens, exact=request.numerics == "exact")
        for done, total in loop.prefill(tokens, chunk=model.prefill_chunk):
            yield Event("prefill", done=done, total=total)
        for token in loop:
            yield from transcript.add(token)
            if transcript.stopped:
                break
        yield from transcript.finish()
        if model.prompt_cache is not None and isinstance(used, Decoder):
            model.prompt_cache.store(used)
        kv_tokens, kv_bytes = used.length, used.kv_bytes
    measured = stats.GenerationStats(
        prompt_tokens=len(tokens),
        cached_tokens=loop.cached_tokens,
        new_tokens=len(transcript.tokens),
        reasoning_tokens=transcript.reasoning_tokens,
        ttft_s=setup.total + loop.prefill_watch.total + loop.first_choice.total,
        prefill_s=loop.prefill_watch.total,
        decode_s=loop.step_watch.total,
        step_p50_s=stats.percentile(loop.step_watch.laps, 50),
        step_p95_s=stats.percentile(loop.step_watch.laps, 95),
        kv_tokens=kv_tokens,
        kv_bytes=kv_bytes,
        rss_bytes=stats.rss_bytes(),
        peak_rss_bytes=stats.peak_rss_bytes(),
        seed=None if settings.greedy else seed,
        drafted_tokens=0 if guessing is None else guessing.drafted,
        accepted_tokens=0 if guessing is None else guessing.accepted,
    )
    logprobs = None if request.logprobs is None else tuple(records[: len(transcript.tokens)])
    reason = loop.finish_reason or "cancelled"
    yield Event("done", generation=generation_of(model, transcript, reason, request, measured, logprobs))


def generation_of(
    model: Model,
    transcript: Transcript,
    reason: FinishReason,
    request: Request,
    measured: stats.GenerationStats,
    logprobs: tuple[TokenLogprob, ...] | None = None,
) -> Generation:
    """The record of a finished ``transcript``; ``reason`` holds unless a stop string ended it."""
    return Generation(
        text=transcript.text(),
        reasoning=transcript.text("reasoning").strip(),
        answer=transcript.text("answer").strip(),
        tokens=tuple(transcript.tokens),
        finish_reason="stop_string" if transcript.stopped else reason,
        numerics=request.numerics,
        stats=measured,
        reasoning_closed=transcript.closed,
        note=" ".join(note for note in (model.note(request), *transcript.notes) if note) or None,
        logprobs=logprobs,
        tool_calls=transcript.calls,
    )
