"""Several prompts answered together by the batch scheduler."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.runtime import stats
from edgedistill.runtime.batch.request import DrawSettings
from edgedistill.runtime.batch.scheduler import Engine, Finished, Start
from edgedistill.runtime.generate import TokenLoop
from edgedistill.runtime.generate_one import generation_of
from edgedistill.runtime.sampling import NoiseKey, Sampler
from edgedistill.runtime.text.reasoning import opened_by
from edgedistill.runtime.text.transcript import Transcript

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence

    from edgedistill.runtime.batch.request import SampleKey
    from edgedistill.runtime.events import Generation
    from edgedistill.runtime.generation_request import Request
    from edgedistill.runtime.model import Model
    from edgedistill.runtime.prompting import Prompt
    from edgedistill.runtime.session import DecoderSession


def generate_batch(
    model: Model,
    session: DecoderSession,
    prompts: Sequence[Prompt],
    request: Request,
    *,
    batch: int,
    cancel: threading.Event | None,
) -> list[Generation]:
    """The generation of every prompt, in their order.

    Stop strings end the text, not the computation: the scheduler sees tokens only.

    Args:
        model, session: The model and its session.
        prompts: Instead of the request's.
        request: Its settings have a seed.
        batch: Most prompts decoded at a time.
        cancel: Ends all of them.
    """
    settings, info = request.settings, model.bundle.manifest.model
    texts = [model.rendered(replace(request, prompt=prompt)) for prompt in prompts]
    encoded = [model.encode(text, raw=request.raw) for text in texts]
    seed = settings.seed or 0
    key = NoiseKey.of(seed)
    prefill_s = [0.0] * len(encoded)

    def starts() -> Iterator[Start[SampleKey]]:
        for index, tokens in enumerate(encoded):
            if cancel is not None and cancel.is_set():
                return
            decoder = session.decoder()
            mask = model.mask(replace(request, prompt=prompts[index]), texts[index])
            sampler = Sampler(settings, key, vocab_size=info.vocab_size, mask=mask)
            loop = TokenLoop(decoder, sampler, settings, context_length=info.context_length, eos=(), cancel=cancel)
            for _ in loop.prefill(tokens, chunk=model.prefill_chunk):
                pass
            if loop.finish_reason is not None:
                return
            prefill_s[index] = loop.prefill_watch.total
            first = sampler.choose(loop.logits, 0)
            yield Start(("", index), np.uint64(key.state), decoder.cache, 0, len(tokens), (first,), mask)

    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_new_tokens")
    draw = DrawSettings(seed=seed, numerics=request.numerics, **{name: getattr(settings, name) for name in names})
    eos = () if settings.ignore_eos else info.eos_token_ids
    engine = Engine(session, draw, batch=min(batch, len(encoded)), eos=eos)
    engine.cancel = cancel
    begun = time.perf_counter()
    finished: dict[int, tuple[Finished[SampleKey], float]] = {}
    for one in engine.run(starts()):
        finished[one.key[1]] = (one, time.perf_counter() - begun)
    results = []
    for index, (text, tokens) in enumerate(zip(texts, encoded, strict=True)):
        ended, seconds = finished.get(index, (None, 0.0))
        transcript = Transcript(
            model.tokenizer, settings.stop, model.grammar, opened=opened_by(text, model.grammar),
            tools=request.offered, formats=model.tools.formats if request.offered else (),
        )  # fmt: skip
        for token in ended.tokens if ended else ():
            transcript.add(token)
            if transcript.stopped:
                break
        transcript.finish()
        measured = stats.GenerationStats(
            prompt_tokens=len(tokens),
            cached_tokens=0,
            new_tokens=len(transcript.tokens),
            reasoning_tokens=transcript.reasoning_tokens,
            ttft_s=prefill_s[index],
            prefill_s=prefill_s[index],
            decode_s=seconds,
            step_p50_s=0.0,
            step_p95_s=0.0,
            kv_tokens=len(tokens) + len(transcript.tokens),
            kv_bytes=0,
            rss_bytes=stats.rss_bytes(),
            peak_rss_bytes=stats.peak_rss_bytes(),
            seed=None if settings.greedy else seed,
        )
        reason = ended.finish if ended else "cancelled"
        results.append(generation_of(model, transcript, reason, replace(request, prompt=prompts[index]), measured))
    return results
