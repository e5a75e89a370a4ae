"""An opened bundle that answers: template, tokens, loop and text put together.

>>> model = open_bundle("my-bundle")
>>> model.generate("What is 12 + 30?").answer
>>> for event in model.stream("Why?"):
...     print(event.text, end="")
"""

from __future__ import annotations

import secrets
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

import numpy as np

from edgedistill.bundle.bundle import Bundle, Check
from edgedistill.errors import GenerationError, UsageError
from edgedistill.renamed import accepts_old
from edgedistill.runtime.conversation import BatchKeywords, Conversation, Keywords, StreamKeywords
from edgedistill.runtime.draft_bundle import DraftBundle
from edgedistill.runtime.events import in_thread, outcome
from edgedistill.runtime.generate_batch import generate_batch
from edgedistill.runtime.generation_request import request_of
from edgedistill.runtime.loading import load_template, load_tokenizer, require_memory
from edgedistill.runtime.logprobs import TokenLogprob, check_top, token_logprobs
from edgedistill.runtime.optimum_session import OptimumSession
from edgedistill.runtime.prompt_cache import PromptCache
from edgedistill.runtime.prompting import Prompting
from edgedistill.runtime.session import DecoderSession, SessionConfig, give_back_memory
from edgedistill.runtime.settings import GenerationSettings
from edgedistill.runtime.think_budget import events_within
from edgedistill.workers import Workers

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from edgedistill.runtime.decoder import Decoder
    from edgedistill.runtime.events import Event, Generation
    from edgedistill.runtime.optimum_session import OptimumDecoder
    from edgedistill.runtime.prompting import Prompt
    from edgedistill.runtime.settings import Numerics
    from edgedistill.runtime.speculate.control import StepCosts

DEFAULT_PREFILL_CHUNK = 256


def open_bundle(
    path: str | Path,
    *,
    threads: int | None = None,
    check: Check = "size",
    trusted: str | Path | None = None,
    reasoning_tags: Sequence[str] | None = None,
    template_vars: Mapping[str, Any] | None = None,
    prompt_cache: bool | str | Path = False,
    draft: str | Path | None = None,
) -> Model:
    """Open the bundle at ``path`` and load its model.

    Args:
        path: Bundle directory.
        threads: Overrides the profile's; 0 is one per physical core, and more than those are never used.
        check: ``size`` compares file sizes, ``full`` also SHA-256.
        trusted: Public key that must have signed the bundle (see ``Bundle.open``); implies ``full``.
        reasoning_tags: The texts that open and close reasoning, instead of those that the bundle knows.
        template_vars: Variables of the chat template, for every prompt.
        prompt_cache: Keep keys and values of prompts and replies on disk, so that another process need not compute them
            again: True for the user's cache, or a directory. The files hold what was said; only the user can read them.
        draft: Directory of a smaller bundle with the same tokenizer, which guesses tokens (see ``Model.draft_with``).

    Raises:
        BundleError: No bundle, a damaged one, one that is not signed by ``trusted``, or a newer schema.
        UsageError: ``reasoning_tags`` are not two different texts, or the draft has another tokenizer.
    """
    model = Model(Bundle.open(path, check=check, trusted=trusted), threads=threads, reasoning_tags=reasoning_tags)
    model.template_vars = dict(template_vars or {})
    if prompt_cache:
        model.keep_prompts(None if prompt_cache is True else Path(prompt_cache))
    if draft is not None:
        try:
            guessing = Model(Bundle.open(draft, check=check, trusted=trusted), threads=threads, quiet=True)
            guessing.template.close()  # a draft renders nothing
            model.draft_with(guessing)
        except BaseException:
            model.close()
            raise
    return model


class Model(Prompting):
    """A loaded bundle. Several generations may run at once in several threads; each has its own KV cache.

    Attributes:
        session: The ONNX Runtime session behind it.
        default_settings: Settings from the bundle's generation.json.
        load_s: Seconds it took to load.
        prompt_cache: Keys and values on disk; None: not used (see ``keep_prompts``).
        draft: A second model that guesses tokens; None: guesses are looked up in the text (see ``draft_with``).
        step_costs: Seconds of decode steps as measured so far, by numerics: what tells whether guessing pays.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        reasoning_tags: Sequence[str] | None = None,
        quiet: bool = False,
    ) -> None:
        """Load the model of an opened bundle; raises BundleError, and BudgetError for too little memory.

        ``quiet``: its threads never wait for work actively, which would slow down another model that runs in turn.
        """
        started = time.perf_counter()
        require_memory(bundle)
        self.default_settings = GenerationSettings.from_defaults(bundle.generation)
        template = load_template(bundle)  # its process starts while the weights load
        info, profile = bundle.manifest.model, bundle.manifest.profile
        config = SessionConfig.from_profile(profile, threads=threads)
        config = replace(config, allow_spinning=config.allow_spinning and not quiet)
        kind = OptimumSession if info.signature == "optimum" else DecoderSession
        with Workers(2) as beside:  # ONNX Runtime lets other threads run Python while it loads the weights
            tokenizer = beside.submit(load_tokenizer, bundle)
            self.session: DecoderSession | OptimumSession = kind(bundle, config)
            super().__init__(bundle, template, tokenizer.result(), reasoning_tags)
        give_back_memory()
        self.prefill_chunk = max(2, int(profile.get("context", {}).get("prefill_chunk", DEFAULT_PREFILL_CHUNK)))
        self._idle: list[Decoder | OptimumDecoder] = []
        self.prompt_cache: PromptCache | None = None
        self.draft: DraftBundle | None = None
        self.step_costs: dict[Numerics, StepCosts] = {}
        self.load_s = time.perf_counter() - started

    # ---- generation -----------------------------------------------------------------------------------------

    @accepts_old(mode="numerics")
    def generate(
        self,
        prompt: Prompt,
        *,
        on_event: Callable[[Event], None] | None = None,
        **keywords: Unpack[StreamKeywords],
    ) -> Generation:
        """Generate to the end.

        Args:
            prompt: A question, or messages in OpenAI's form; see ``render``.
            on_event: Sees the events of ``stream``.
            keywords: temperature, top_k, top_p, min_p, repetition_penalty, seed, max_new_tokens: As in
                ``GenerationSettings``; without one, as in ``settings``.

                settings: Settings that the keywords change; default: the bundle's.

                stop: Text, or texts, that end the generation.

                speculate: Guess tokens from the text so far: ``auto``, ``off``, ``identical`` or a number; as in
                ``GenerationSettings``.

                logprobs: Also return the log-probability of every token, with those of the k most likely (0: none).

                numerics: ``fast``, or ``exact``: every token's logits are bit-identical to a prefill, at two thirds
                to four fifths of the speed.

                thinking: Have the model reason or not, by its template's switch or by beginning the reply for it; None
                leaves it to the template. Where neither can be done, the generation's ``note`` says so.

                think_budget: Tokens of reasoning after which it is closed and the answer asked for; 0: no limit.

                reasoning_effort: ``none``, ``minimal``, ``low``, ``medium`` or ``high`` instead of both, by the
                template's own switch or as a budget; see ``ThinkingControl.effort``.

                template_vars: Further variables of the chat template, JSON-able.

                tools: What the model may call: dicts in OpenAI's form, or functions with type hints and a docstring.
                Calls are in the generation's ``tool_calls``; nothing runs them.

                tool_choice: ``auto`` (the model decides), ``none``, ``required``, or in OpenAI's form the one to call.
                A call that has to come is forced by a mask, as with ``json_schema``.

                response_format, json_schema, grammar, regex, choices: The form of the answer, see ``constraint_of``:
                tokens that do not fit are masked (extra ``structured``); log-probabilities are the model's own all the
                same. Reasoning comes before it as ever. A reply that is cut at ``max_new_tokens`` is the beginning of
                one in that form: ``finish_reason`` is ``length``.

                raw: No chat template: continue ``prompt``, a text, as it is.

                continuing: The beginning of the reply, tags included: the model goes on from there, and what comes is
                the rest alone.

                cancel: Set it to end the generation; what there is so far is kept.

        Raises:
            ContextLengthError: A prompt longer than the context.
            TemplateError, GenerationError: See ``render``; a setting out of range; logits that are not finite.
        """
        return outcome(self.stream(prompt, **keywords), on_event)

    @accepts_old(mode="numerics")
    def stream(
        self,
        prompt: Prompt,
        *,
        decoder: Decoder | OptimumDecoder | None = None,
        **keywords: Unpack[StreamKeywords],
    ) -> Iterator[Event]:
        """Generate step by step; every event is given as soon as it is certain.

        Earlier turns that are still in a KV cache are not computed again (with ``exact`` numerics only as far as that
        changes no bit).

        Args:
            prompt, keywords: As for ``generate``.
            decoder: Whose KV cache is used; None: one that is idle.

        Raises:
            ContextLengthError, TemplateError, GenerationError: As ``generate``.
        """
        request = request_of(self, prompt, **keywords)
        return events_within(self, request, decoder=decoder, cancel=keywords.get("cancel"))

    async def astream(self, prompt: Prompt, **keywords: Unpack[StreamKeywords]) -> AsyncGenerator[Event, None]:
        """``stream`` for asyncio: ``async for event in model.astream(...)``.

        The generation runs in a thread. It ends when the task is cancelled or the generator is closed.

        Args:
            prompt: As for ``generate``.
            keywords: Of ``stream``.
        """
        cancel = keywords.setdefault("cancel", None) or threading.Event()
        keywords["cancel"] = cancel
        async for event in in_thread(self.stream(prompt, **keywords), cancel):
            yield event

    def generate_batch(
        self, prompts: Sequence[Prompt], *, batch: int = 8, **keywords: Unpack[BatchKeywords]
    ) -> list[Generation]:
        """Answer several prompts together, ``batch`` at a time; one that ends makes room for the next.

        The keywords are those of ``generate``. With ``exact`` numerics every generation is that of ``generate`` with
        the same seed, bit for bit. Times in the statistics are those of the batch. A bundle of the fallback exporter
        answers one prompt after the other, and so does any with a budget of reasoning or with ``logprobs``.

        Raises:
            ContextLengthError, TemplateError, GenerationError: As ``generate``, for any of the prompts.
        """
        if batch < 1:
            raise GenerationError(f"batch is {batch}; expected at least 1.")
        request = request_of(self, "", **keywords)
        cancel = keywords.get("cancel")
        drawn = request.settings.seed if request.settings.seed is not None else secrets.randbits(32)
        request = replace(request, settings=request.settings.replace(seed=drawn))
        alone = request.think_budget or request.logprobs is not None or len(prompts) < 2
        if alone or not isinstance(self.session, DecoderSession):
            every = (events_within(self, replace(request, prompt=p), decoder=None, cancel=cancel) for p in prompts)
            return [event.generation for events in every for event in events if event.generation is not None]
        return generate_batch(self, self.session, prompts, request, batch=batch, cancel=cancel)

    def chat(self, *, system: str | None = None, **keywords: Unpack[Keywords]) -> Conversation:
        """A conversation that keeps its history and its KV cache.

        Args:
            system: System prompt.
            keywords: Of ``generate``, for every turn.
        """
        return Conversation(self, system=system, **keywords)

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

    def logprobs(self, text: str | Sequence[int], *, top: int = 0) -> list[TokenLogprob]:
        """Log-probability of every token of a given text but the first, which nothing precedes.

        Args:
            text: A text, taken as it is (``raw``), or token ids.
            top: Also give the most likely tokens at each place.

        Raises:
            GenerationError: Fewer than two tokens.
            ContextLengthError: More tokens than the context holds.
        """
        check_top(top)
        tokens = self.encode(text, raw=True) if isinstance(text, str) else list(text)
        if len(tokens) < 2:
            raise GenerationError(f"{len(tokens)} tokens were given to score; expected at least two.")
        ids = np.asarray([tokens[:-1]], dtype=np.int64)
        found: list[TokenLogprob] = []
        for part in self.session.decoder().score(ids, chunk=self.prefill_chunk):
            following = [tokens[column + 1] for column in part.columns.tolist()]
            found += token_logprobs(part.logits, following, self.tokenizer, top=top)
        return found

    def keep_prompts(self, directory: Path | None = None) -> None:
        """Use the prompt cache on disk from now on; ``directory``: None for the user's cache.

        Raises:
            GenerationError: A bundle of the fallback exporter, whose cache is not kept.
        """
        if not isinstance(self.session, DecoderSession):
            raise GenerationError(
                "The prompt cache needs a bundle of the native exporter; this one is the fallback exporter's.",
                hint="Leave the prompt cache off.",
            )
        self.prompt_cache = PromptCache(self.bundle, self.session, directory)

    def draft_with(self, draft: Model) -> None:
        """Have ``draft`` guess tokens from now on, with ``speculate="auto"`` where the settings say nothing else.

        Every token stays this model's own draw. Batches make no guesses. ``draft`` is closed with this model.

        Raises:
            UsageError: Its tokens are others, or either has recurrent layers.
        """
        for one in (self, draft):
            if one.bundle.manifest.model.states:
                raise UsageError(
                    f"{one.bundle.path.name} has recurrent layers: guesses have to be taken back, which states cannot.",
                    hint="Leave the draft out.",
                )
        self.draft = DraftBundle(self, draft)
        if self.default_settings.speculate == "identical":
            self.default_settings = self.default_settings.replace(speculate="auto")

    # ---- lifetime -------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Give back the memory of idle KV caches; the next turn computes its whole prompt again."""
        self._idle.clear()

    def close(self) -> None:
        """Release the caches and end the template's helper process."""
        self.release()
        self.template.close()
        if self.draft is not None:
            self.draft.close()

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
