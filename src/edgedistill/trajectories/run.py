"""A parallel run from the question to the answer: one prefill, K trajectories, a vote, a further pass where asked for.

    >>> model = edgedistill.open_bundle("my-bundle")
    >>> result = solve(model, "What is 17 * 23?", options=TrajectoryOptions(count=8, deliberate=True))
    >>> result.answer, result.decided_by, result.vote.tallies

A user interface iterates ``stream`` in a thread of its own and keeps a text per trajectory: every event with a text
names its trajectory in ``index`` (None: the selection or deliberation that the last ``stage`` event named). Nothing
waits for the consumer's screen except the next step, so append to a locked buffer there and draw from another thread.
Set the ``cancel`` event to end the run: the trajectories so far come as ``finished`` events of kind "cancelled", and
``done`` still comes. So it is where the memory runs out, except that ``OutOfMemoryError`` is raised after ``done``.
Closing the iterator early is safe, too.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np

from edgedistill.answers.extract import extract
from edgedistill.errors import GenerationError, OutOfMemoryError
from edgedistill.renamed import accepts_old
from edgedistill.runtime.decoder import Decoder
from edgedistill.runtime.generate import TokenLoop
from edgedistill.runtime.sampling import NoiseKey, Sampler
from edgedistill.runtime.session import DecoderSession
from edgedistill.runtime.settings import Numerics, check_numerics
from edgedistill.runtime.stats import Stopwatch, peak_rss_bytes
from edgedistill.runtime.text.reasoning import opened_by
from edgedistill.runtime.text.transcript import Transcript
from edgedistill.trajectories.collect import Growing
from edgedistill.trajectories.decide import Passes, Task, Verdict
from edgedistill.trajectories.decode import Decoding, Start, one_by_one, together
from edgedistill.trajectories.deliberate import load_prompt
from edgedistill.trajectories.early_stop import decided, saved_tokens
from edgedistill.trajectories.memory import plan_run
from edgedistill.trajectories.options import TrajectoryOptions
from edgedistill.trajectories.result import RunStats, Trajectory, TrajectoryEvent, TrajectoryResult
from edgedistill.trajectories.vote import Ballot, VoteResult, by_confidence, majority

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Sequence

    from edgedistill.runtime.model import Model
    from edgedistill.runtime.optimum_session import OptimumDecoder
    from edgedistill.runtime.prompting import Prompt
    from edgedistill.runtime.settings import GenerationSettings

    Reader = Callable[[str], str | None]


class Keywords(TypedDict, total=False):
    """Keywords of a run; ``stream`` describes them."""

    options: TrajectoryOptions | None
    settings: GenerationSettings | None
    numerics: Numerics
    thinking: bool | None
    raw: bool
    cancel: threading.Event | None
    read: Reader | None
    prompt_id: str | int
    first_index: int


def solve(
    model: Model,
    prompt: Prompt,
    *,
    on_event: Callable[[TrajectoryEvent], None] | None = None,
    **keywords: Unpack[Keywords],
) -> TrajectoryResult:
    """Run to the end; the keywords are those of ``stream``, ``on_event`` sees its events."""
    result: TrajectoryResult | None = None
    for event in stream(model, prompt, **keywords):
        if on_event is not None:
            on_event(event)
        result = event.result or result
    if result is None:
        raise RuntimeError("a run ended without its last event")
    return result


@accepts_old(mode="numerics")
def stream(
    model: Model,
    prompt: Prompt,
    *,
    options: TrajectoryOptions | None = None,
    settings: GenerationSettings | None = None,
    numerics: Numerics = "fast",
    thinking: bool | None = None,
    raw: bool = False,
    cancel: threading.Event | None = None,
    read: Reader | None = None,
    prompt_id: str | int = 0,
    first_index: int = 0,
) -> Iterator[TrajectoryEvent]:
    """Run step by step; see ``TrajectoryEvent`` for what comes.

    Args:
        model: An opened bundle. Several runs at once in several threads are possible, at the price of their memory.
        prompt: A question, or messages with ``role`` and ``content`` of which the last is the question.
        options: Default: 8 trajectories and a majority vote.
        settings: Sampling; default: the bundle's. They must leave a choice (temperature above 0) if there is more than
            one trajectory. Trajectory j of a seed is the same for any number of trajectories, bit for bit with
            ``exact`` numerics; trajectory 0 is what ``Model.generate`` gives for that seed.
        numerics, thinking, raw: As in ``Model.stream``.
        cancel: Set it to end the run; what there is so far is kept.
        read: Takes the canonical answer from a reply without its reasoning, instead of ``options.answers``.
        prompt_id, first_index: Key the noise as verification does: trajectory j is sample ``first_index + j`` of the
            prompt with this id.

    Raises:
        UsageError, GenerationError, TemplateError: Options, settings or a prompt file that cannot be carried out.
        ContextLengthError: A prompt longer than the context. BudgetError: Not even one trajectory fits the memory.
        OutOfMemoryError: The memory ran out nevertheless; ``done`` has brought what there was.
    """
    options = options or TrajectoryOptions()
    settings = settings or model.default_settings
    check_numerics(numerics)
    if options.count > 1 and (settings.greedy or settings.top_k == 1):
        raise GenerationError(
            f"At {'temperature 0' if settings.greedy else 'top_k 1'} all trajectories are equal; expected settings "
            "that leave a choice.",
            hint="Use a temperature of 0.6 to 1 and a top_k above 1.",
        )
    if raw and (options.deliberate or options.vote == "universal"):
        raise GenerationError("A raw prompt has no chat template, which the further pass needs.", hint="Drop --raw.")
    seed = settings.seed if settings.seed is not None else secrets.randbits(32)
    # Read now: a mistake in the user's file must not cost K trajectories.
    passes = load_prompt(options.prompt, "deliberate.jinja") if options.deliberate else None
    answers = options.answers
    task = Task(
        model, options, settings.replace(seed=seed), numerics, thinking, cancel,
        read or (lambda text: None if answers == "free" else extract(text, answers)), passes,
        free_form=answers == "free" or (answers == "auto" and read is None), sample=(prompt_id, first_index),
    )  # fmt: skip
    return _Run(task).events(prompt, raw=raw)


class _Run:
    """The state of one run."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._notes: list[str] = []

    def events(self, prompt: Prompt, *, raw: bool) -> Iterator[TrajectoryEvent]:
        started = time.perf_counter()
        task = self._task
        model, settings = task.model, task.settings
        text = model.render(prompt, thinking=task.thinking, raw=raw)
        ids = model.encode(text, raw=raw)
        limit = model.bundle.manifest.model.context_length
        with model.decoder() as decoder:
            plan = plan_run(model, len(ids), task.options.count, settings.max_new_tokens, held=decoder.kv_bytes)
            self._notes += [plan.note] if plan.note else []
            sampler = Sampler(settings, NoiseKey(0), vocab_size=model.bundle.manifest.model.vocab_size)
            eos = model.bundle.manifest.model.eos_token_ids
            loop = TokenLoop(
                decoder, sampler, settings, context_length=limit, eos=eos, numerics=task.numerics, cancel=task.cancel
            )
            for done, total in loop.prefill(ids, chunk=model.prefill_chunk):
                yield TrajectoryEvent("prefill", done=done, total=total)
            for note in self._notes:
                yield TrajectoryEvent("note", text=note)
            opened = opened_by(text, model.grammar)
            transcripts = [
                Transcript(model.tokenizer, settings.stop, model.grammar, opened=opened)
                for _ in range(task.options.count)
            ]
            growing = Growing(transcripts, task.options, task.read)
            ttft = time.perf_counter() - started
            watch, kv_bytes = Stopwatch(), decoder.kv_bytes
            lost: OutOfMemoryError | None = None
            if loop.finish_reason is None:
                start = Start(
                    prompt=ids,
                    logits=loop.logits.copy(),
                    noise=self._keys(),
                    settings=settings,
                    eos=frozenset(eos),
                    limit=limit,
                    exact=task.numerics == "exact",
                    confident=task.options.vote == "confidence",
                )
                decoding = self._decoding(decoder, start, plan.rows)
                try:
                    yield from self._decode(decoding, growing)
                except (OutOfMemoryError, MemoryError) as error:
                    lost = self._out_of_memory(growing, error)
                    yield from growing.end_open("cancelled")
                watch, kv_bytes = decoding.watch, decoding.kv_bytes
                del decoding  # its cache, before the passes need theirs
            else:
                yield from growing.end_open("cancelled")
        trajectories = growing.ended
        vote = self._vote(trajectories)
        yield TrajectoryEvent("vote", vote=vote)
        before = time.perf_counter()
        passes = Passes(task, plan)
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        verdict = yield from passes.decide(None if raw or lost else messages, trajectories, vote)
        self._notes += verdict.notes
        stats = RunStats(
            prompt_tokens=len(ids),
            cached_tokens=loop.cached_tokens,
            trajectory_tokens=sum(len(trajectory.tokens) for trajectory in trajectories),
            pass_tokens=sum(len(g.tokens) for g in (verdict.selection, verdict.deliberation) if g is not None),
            saved_tokens=saved_tokens(
                [len(one.tokens) for one in trajectories if one.kind not in ("cut", "cancelled")],
                [len(one.tokens) for one in trajectories if one.kind == "cut"],
            ),
            rows=min(plan.rows, task.options.count),
            ttft_s=ttft,
            prefill_s=loop.prefill_watch.total,
            decode_s=watch.total,
            pass_s=time.perf_counter() - before,
            total_s=time.perf_counter() - started,
            kv_bytes=kv_bytes,
            peak_rss_bytes=peak_rss_bytes(),
            seed=settings.seed or 0,
        )
        yield TrajectoryEvent("done", result=self._result(trajectories, vote, verdict, stats))
        if lost is not None:
            raise lost

    # ---- preparation ----------------------------------------------------------------------------------------

    def _keys(self) -> np.ndarray[Any, np.dtype[np.uint64]]:
        prompt_id, first = self._task.sample
        states = [
            NoiseKey.of(self._task.settings.seed or 0, prompt=prompt_id, sample=first + j).state
            for j in range(self._task.options.count)
        ]
        return np.array(states, dtype=np.uint64)

    def _decoding(self, decoder: Decoder | OptimumDecoder, start: Start, rows: int) -> Decoding:
        session = self._task.model.session
        # One trajectory by itself takes a batch's path as well, so that it is the first of many with the same seed.
        if isinstance(session, DecoderSession) and isinstance(decoder, Decoder) and rows > 1:
            return together(session, decoder, start, rows=rows)
        return one_by_one(decoder, start)

    # ---- decoding -------------------------------------------------------------------------------------------

    def _decode(self, decoding: Decoding, growing: Growing) -> Iterator[TrajectoryEvent]:
        options = self._task.options
        yield TrajectoryEvent("start", total=options.count)
        while not self._task.cancelled:
            chosen = decoding.step()
            if not chosen:
                return
            for one in chosen:
                if (yield from growing.add(one)):
                    decoding.stop(one.index)
            if decided(options.stop_rule, growing.votes, options.count, options.error_rate):
                yield from growing.end_open("cut")
                return
        yield from growing.end_open("cancelled")

    def _out_of_memory(self, growing: Growing, cause: Exception) -> OutOfMemoryError:
        """The error that such a run ends with; noted in the result as well."""
        ended, count = len(growing.ended), self._task.options.count
        error = OutOfMemoryError(
            f"The memory ran out when {ended} of {count} trajectories had ended; what there was of the others is kept.",
            hint="Close other programs, ask for fewer with --trajectories, lower --max-new-tokens, or export with a "
            "shorter --context or with --kv-cache int8.",
        )
        self._notes.append(error.message)
        error.__cause__ = cause
        return error

    # ---- the end --------------------------------------------------------------------------------------------

    def _vote(self, trajectories: Sequence[Trajectory]) -> VoteResult:
        ballots = [Ballot(one.index, one.kind, one.vote, one.confidence) for one in trajectories]
        if self._task.options.vote == "confidence":
            return by_confidence(ballots, keep=self._task.options.keep)
        return majority(ballots)

    def _result(
        self, trajectories: tuple[Trajectory, ...], vote: VoteResult, verdict: Verdict, stats: RunStats
    ) -> TrajectoryResult:
        standing = verdict.standing(trajectories)
        return TrajectoryResult(
            answer="" if standing is None else standing.answer,
            reasoning="" if standing is None else standing.reasoning,
            final=verdict.final,
            decided_by=verdict.decided_by,
            winner=verdict.winner,
            voted=verdict.voted,
            vote=vote,
            trajectories=trajectories,
            selection=verdict.selection,
            deliberation=verdict.deliberation,
            notes=tuple(self._notes),
            cancelled=self._task.cancelled,
            stats=stats,
        )
