"""An opened bundle that answers: template, tokens, loop and text put together.

    >>> model = open_bundle("my-bundle")
    >>> model.generate("What is 12 + 30?").answer
    >>> for event in model.stream("Why?"):
    ...     print(event.text, end="")

Must not know: terminals, how the bundle was made, its files of texts.
"""

from __future__ import annotations

import secrets
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from edgedistill.bundle.bundle import Bundle, Check
from edgedistill.errors import GenerationError
from edgedistill.renamed import accepts_old
from edgedistill.runtime import stats
from edgedistill.runtime.events import Event, Generation
from edgedistill.runtime.generate import FinishReason, TokenLoop
from edgedistill.runtime.loading import load_template, load_tokenizer, require_memory
from edgedistill.runtime.optimum_session import OptimumSession
from edgedistill.runtime.sampling import NoiseKey, Sampler
from edgedistill.runtime.session import DecoderSession, SessionConfig
from edgedistill.runtime.settings import GenerationSettings, Numerics, check_numerics
from edgedistill.runtime.text.chat_template import PassThrough
from edgedistill.runtime.text.reasoning import DEFAULT_TAGS, TagPair, opened_after, opened_by
from edgedistill.runtime.text.transcript import Transcript

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgedistill.runtime.decoder import Decoder
    from edgedistill.runtime.optimum_session import OptimumDecoder

    Prompt = str | Sequence[Mapping[str, Any]]

DEFAULT_PREFILL_CHUNK = 256


def open_bundle(
    path: str | Path,
    *,
    threads: int | None = None,
    check: Check = "size",
    trusted: str | Path | None = None,
) -> Model:
    """Open the bundle at ``path`` and load its model.

    Args:
        path: Bundle directory.
        threads: Overrides the profile's; 0 is one per physical core, and more than those are never used.
        check: ``size`` compares file sizes, ``full`` also SHA-256.
        trusted: Public key that must have signed the bundle (see ``Bundle.open``); implies ``full``.

    Raises:
        BundleError: No bundle, a damaged one, one that is not signed by ``trusted``, or a newer schema.
    """
    return Model(Bundle.open(path, check=check, trusted=trusted), threads=threads)


class Model:
    """A loaded bundle. Several generations may run at once in several threads; each has its own KV cache.

    Attributes:
        bundle: The opened bundle.
        tokenizer: Its tokenizer.
        template: Its chat template; a ``PassThrough`` where it has none.
        session: The ONNX Runtime session behind it.
        default_settings: Settings from the bundle's generation.json.
        tags: Reasoning tags to look for.
        load_s: Seconds it took to load.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None, tags: tuple[TagPair, ...] = DEFAULT_TAGS) -> None:
        """Load the model of an opened bundle; raises BundleError, and BudgetError for too little memory."""
        started = time.perf_counter()
        require_memory(bundle)
        self.bundle = bundle
        self.tags = tags
        self.default_settings = GenerationSettings.from_defaults(bundle.generation)
        self.template = load_template(bundle)
        self.tokenizer = load_tokenizer(bundle)
        info, profile = bundle.manifest.model, bundle.manifest.profile
        config = SessionConfig.from_profile(profile, threads=threads)
        kind = OptimumSession if info.signature == "optimum" else DecoderSession
        self.session: DecoderSession | OptimumSession = kind(bundle, config)
        self.prefill_chunk = max(2, int(profile.get("context", {}).get("prefill_chunk", DEFAULT_PREFILL_CHUNK)))
        self._idle: list[Decoder | OptimumDecoder] = []
        self.load_s = time.perf_counter() - started

    # ---- prompts --------------------------------------------------------------------------------------------

    def render(self, prompt: Prompt, *, thinking: bool | None = None, raw: bool = False) -> str:
        """The text that the model is given.

        Args:
            prompt: A question, or messages with ``role`` and ``content``.
            thinking: Ask the template for reasoning or none; None leaves it to the template.
            raw: Take ``prompt``, which must be a string, as it is.

        Raises:
            TemplateError, GenerationError: See ``ChatTemplate.render``.
        """
        if raw and not isinstance(prompt, str):
            raise GenerationError("A raw prompt is a text; messages need the chat template.")
        if isinstance(prompt, str):
            if raw:
                return prompt
            prompt = [{"role": "user", "content": prompt}]
        return self.template.render(prompt, thinking=thinking)

    def encode(self, text: str, *, raw: bool = False) -> list[int]:
        """Token ids of a rendered prompt; ``raw`` adds the beginning-of-sequence token where the model wants one."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        info = self.bundle.manifest.model
        templated = not raw and not isinstance(self.template, PassThrough)
        if not templated and info.add_bos and info.bos_token_id is not None and ids[:1] != [info.bos_token_id]:
            return [info.bos_token_id, *ids]
        return ids

    # ---- generation -----------------------------------------------------------------------------------------

    @accepts_old(mode="numerics")
    def generate(
        self,
        prompt: Prompt,
        *,
        settings: GenerationSettings | None = None,
        numerics: Numerics = "fast",
        thinking: bool | None = None,
        raw: bool = False,
        on_event: Callable[[Event], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> Generation:
        """Generate to the end; the arguments are those of ``stream``, ``on_event`` sees its events."""
        result: Generation | None = None
        for event in self.stream(
            prompt, settings=settings, numerics=numerics, thinking=thinking, raw=raw, cancel=cancel
        ):
            if on_event is not None:
                on_event(event)
            result = event.generation or result
        if result is None:
            raise RuntimeError("a generation ended without its last event")
        return result

    @accepts_old(mode="numerics")
    def stream(
        self,
        prompt: Prompt,
        *,
        settings: GenerationSettings | None = None,
        numerics: Numerics = "fast",
        thinking: bool | None = None,
        raw: bool = False,
        continuing: str = "",
        cancel: threading.Event | None = None,
    ) -> Iterator[Event]:
        """Generate step by step; every event is given as soon as it is certain.

        Args:
            prompt: A question, or messages with ``role`` and ``content``; earlier turns that are still in a KV cache
                are not computed again (with ``exact`` numerics only as far as that changes no bit).
            settings: Default: the bundle's.
            numerics: ``fast`` or ``exact`` (see ``generate``).
            thinking: Ask the template for reasoning or none; None leaves it to the template.
            raw: No chat template.
            continuing: The beginning of the reply, tags included: the model goes on from there, and what comes is the
                rest alone.
            cancel: Set it to end the generation; what there is so far is kept.

        Raises:
            ContextLengthError: A prompt longer than the context.
            TemplateError, GenerationError: See ``render``; a model whose logits are not finite.
        """
        numerics = check_numerics(numerics)
        settings = settings or self.default_settings
        with stats.Stopwatch() as setup:
            text = self.render(prompt, thinking=thinking, raw=raw)
            tokens = self.encode(text + continuing, raw=raw)
            seed = settings.seed if settings.seed is not None else secrets.randbits(32)
            opened = opened_after(continuing, self.tags, opened=opened_by(text, self.tags))
            transcript = Transcript(self.tokenizer, settings.stop, self.tags, opened=opened)
        decoder = self._take()
        loop = TokenLoop(
            decoder,
            Sampler(settings, NoiseKey.of(seed), vocab_size=self.bundle.manifest.model.vocab_size),
            settings,
            context_length=self.bundle.manifest.model.context_length,
            eos=self.bundle.manifest.model.eos_token_ids,
            numerics=numerics,
            cancel=cancel,
        )
        try:
            for done, total in loop.prefill(tokens, chunk=self.prefill_chunk):
                yield Event("prefill", done=done, total=total)
            for token in loop:
                yield from transcript.add(token)
                if transcript.stopped:
                    break
            yield from transcript.finish()
            used, kv_bytes = decoder.length, decoder.kv_bytes
        finally:
            self._idle.append(decoder)
        reason: FinishReason = "stop_string" if transcript.stopped else loop.finish_reason or "cancelled"
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
            kv_tokens=used,
            kv_bytes=kv_bytes,
            rss_bytes=stats.rss_bytes(),
            peak_rss_bytes=stats.peak_rss_bytes(),
            seed=None if settings.greedy else seed,
        )
        result = Generation(
            text=transcript.text(),
            reasoning=transcript.text("reasoning").strip(),
            answer=transcript.text("answer").strip(),
            tokens=tuple(transcript.tokens),
            finish_reason=reason,
            numerics=numerics,
            stats=measured,
            reasoning_closed=transcript.closed,
            note=PassThrough.note if isinstance(self.template, PassThrough) and not raw else None,
        )
        yield Event("done", generation=result)

    def score(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Log-probability of each token given those before it: float32 [n - 1] for n tokens, by one prefill.

        Raises:
            GenerationError: Fewer than two tokens.
            ContextLengthError: More tokens than the context holds.
        """
        if len(tokens) < 2:
            raise GenerationError(f"{len(tokens)} tokens were given to score; expected at least two.")
        following = np.asarray(tokens[1:], dtype=np.int64)
        out = np.empty(len(following), dtype=np.float32)
        ids = np.asarray([tokens[:-1]], dtype=np.int64)
        for part in self.session.decoder().score(ids, chunk=self.prefill_chunk):
            top = part.logits.max(axis=1, keepdims=True)
            total = np.log(np.exp(part.logits - top, dtype=np.float64).sum(axis=1))
            chosen = part.logits[np.arange(len(part.columns)), following[part.columns]]
            out[part.columns] = chosen - top[:, 0] - total
        return out

    # ---- lifetime -------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Give back the memory of idle KV caches; the next turn computes its whole prompt again."""
        self._idle.clear()

    def close(self) -> None:
        """Release the caches and end the template's helper process."""
        self.release()
        self.template.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def decoder(self) -> Iterator[Decoder | OptimumDecoder]:
        """Lend a decoder of one sequence; its cache may hold earlier tokens, and what it holds at the end is kept."""
        decoder = self._take()
        try:
            yield decoder
        finally:
            self._idle.append(decoder)

    def _take(self) -> Decoder | OptimumDecoder:
        """An idle decoder, or a new one where all are in use by other threads."""
        try:
            return self._idle.pop()
        except IndexError:
            return self.session.decoder()
