"""Implements the UI's ``Engine`` for a bundle with the runtime and, for many samples, the verification's batches."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from edgedistill.errors import BundleError
from edgedistill.runtime import stats
from edgedistill.runtime.model import open_bundle
from edgedistill.system.file_leases import MappedFiles
from edgedistill.units import format_count
from edgedistill.verify.models.bundle import BundleModel
from edgedistill_tui.data.bundles import flat_predictions
from edgedistill_tui.engine import Answer, Chunk, Facts, Reply, Request, Sampling

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from edgedistill.bundle.bundle import Bundle, Check
    from edgedistill.runtime.batch.scheduler import Engine
    from edgedistill.runtime.events import Generation
    from edgedistill.runtime.model import Model
    from edgedistill.trajectories import TrajectoryEvent, TrajectoryResult


class RuntimeEngine:
    """A loaded bundle.

    Args:
        model: The loaded model.
        sampling: How to answer unless told otherwise; None: the bundle's defaults.
        lease: Request a signal (``system.file_leases.SIGNAL``) before another program changes the weights; its handler
            has to call ``secure``.
    """

    def __init__(self, model: Model, sampling: Sampling | None = None, *, lease: bool = False) -> None:
        self._model = model
        self._files = MappedFiles(model.bundle.mapped_files, lease=lease)
        self._defaults = sampling or Sampling(model.default_settings)
        self._facts = facts(model.bundle)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        overrides: dict[str, Any] | None = None,
        threads: int | None = None,
        check: Check = "size",
        lease: bool = False,
        reasoning_tags: Sequence[str] | None = None,
        template_vars: Mapping[str, Any] | None = None,
        prompt_cache: bool | Path = False,
        draft: Path | None = None,
    ) -> RuntimeEngine:
        """Open the bundle at ``path``; ``overrides`` are settings on top of its own. Raises BundleError."""
        model = open_bundle(
            path, threads=threads, check=check, reasoning_tags=reasoning_tags, template_vars=template_vars,
            prompt_cache=prompt_cache, draft=draft,
        )  # fmt: skip
        engine = cls(model, lease=lease)
        if overrides:
            engine._defaults = engine._defaults.merged(overrides)
        return engine

    @property
    def facts(self) -> Facts:
        """What the manifest says."""
        return self._facts

    @property
    def defaults(self) -> Sampling:
        """The bundle's settings."""
        return self._defaults

    def reply(self, request: Request, *, cancel: threading.Event, on_chunk: Callable[[Chunk], None]) -> Reply:
        """Answer the last message."""
        self._check_files()
        begun = time.perf_counter()
        sampling = request.sampling
        result: Generation | None = None
        for event in self._model.stream(
            request.messages,
            settings=sampling.generation,
            numerics=sampling.numerics,
            thinking=sampling.thinking,
            think_budget=sampling.think_budget,
            reasoning_effort=sampling.reasoning_effort,
            tools=request.tools,
            tool_choice=request.tool_choice if request.tools else None,
            continuing=request.continuing,
            cancel=cancel,
        ):
            if event.generation is not None:
                result = event.generation
            elif event.kind == "prefill":
                on_chunk(Chunk("prefill", "", event.done, event.total))
            elif event.kind != "done" and event.kind != "tool_call":  # noqa: PLR1714 (mypy narrows only so)
                on_chunk(Chunk(event.kind, event.text, event.tokens))
        if result is None:
            raise RuntimeError("a generation ended without its last event")
        stats_ = result.stats.to_dict() | {"wall_s": time.perf_counter() - begun}
        return Reply(
            result.reasoning, result.answer, result.finish_reason, stats_, result.tokens, result.note or "",
            result.tool_calls,
        )  # fmt: skip

    def trajectories(
        self, request: Request, *, cancel: threading.Event, on_event: Callable[[TrajectoryEvent], None]
    ) -> TrajectoryResult:
        """Several trajectories, the vote, the pass that reads them."""
        self._check_files()
        from edgedistill.trajectories import TrajectoryEvent as Event
        from edgedistill.trajectories import stream
        from edgedistill.trajectories.options import DEFAULT_TEMPERATURE

        sampling = request.sampling
        generation = sampling.generation
        if generation.greedy and self._model.default_settings.greedy and sampling.trajectories > 1:
            # As on the command line: the bundle is greedy by itself, which would make all trajectories equal.
            generation = generation.replace(temperature=DEFAULT_TEMPERATURE)
            on_event(Event("note", text=f"The trajectories are drawn at temperature {DEFAULT_TEMPERATURE}."))
        result: TrajectoryResult | None = None
        for event in stream(
            self._model,
            list(request.messages),
            options=sampling.trajectory_options(),
            settings=generation,
            numerics=sampling.numerics,
            thinking=sampling.thinking,
            cancel=cancel,
        ):
            on_event(event)
            result = event.result or result
        if result is None:
            raise RuntimeError("a parallel run ended without its last event")
        return result

    def count(self, text: str) -> int:
        """Tokens of ``text``, without a beginning of sequence."""
        return len(self._model.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of ids, special tokens left out except the reasoning tags."""
        from edgedistill.runtime.text.detokenize import dropped_ids

        dropped = dropped_ids(self._model.tokenizer, self._model.grammar.marks)
        text: str = self._model.tokenizer.decode([t for t in tokens if t not in dropped], skip_special_tokens=False)
        return text

    def samples(
        self, messages: Sequence[dict[str, Any]], count: int, sampling: Sampling, *, cancel: threading.Event
    ) -> Iterator[Answer]:
        """Samples by verification's batching engine; answers are read as its suites read them."""
        self._check_files()
        from edgedistill.runtime.batch.request import DrawSettings
        from edgedistill.verify.types import Message, Prompt
        from edgedistill_tui.runtime_engine import StoppableModel

        values = sampling.generation.to_dict()
        for name in ("stop", "ignore_eos", "speculate"):
            del values[name]
        values["seed"] = values["seed"] or 0
        settings = DrawSettings(**values, numerics=sampling.numerics, thinking=sampling.thinking)
        prompt = Prompt("chat", tuple(Message(m["role"], m["content"]) for m in messages))
        drawn = StoppableModel(self._model, cancel).draw([prompt], count, settings)
        for one in drawn:
            sample = one.sample
            yield Answer(sample.kind, sample.answer, sample.text, sample.tokens)
            if cancel.is_set():
                return

    def memory(self) -> int:
        """Resident bytes of this process."""
        return stats.rss_bytes()

    def secure(self) -> bool | None:
        """Copy the weights that are still mapped, if another program waits to change them."""
        return self._files.take_over() if self._files.wanted else None

    def _check_files(self) -> None:
        if (what := self._files.changed()) is not None:
            raise BundleError(
                f"The files of {self._facts.bundle} were changed by another program: {what}.",
                hint="Copy or export the bundle again and open it with Alt+M.",
            )

    def close(self) -> None:
        """Release the model, and with it the weights that are mapped."""
        self._model.close()
        del self._model
        self._files.close()


def facts(bundle: Bundle) -> Facts:
    """What an opened bundle's manifest says."""
    manifest = bundle.manifest
    per_token = manifest.kv_cache.bytes_per_token
    target = manifest.profile.get("target", {})
    return Facts(
        bundle=bundle.path.resolve().name,
        path=str(bundle.path.resolve()),
        hash=bundle.identity()[:16],
        model=f"{manifest.model.family} {format_count(manifest.parameters)}, "
        f"{manifest.bits_per_weight:.1f} bits/weight",
        profile=str(manifest.profile.get("name", "")),
        context_length=manifest.model.context_length,
        kv_bytes_per_token=per_token,
        kv_budget=per_token * manifest.model.context_length,
        ram_budget=int(float(target.get("ram_gb", 0)) * 1e9),
        predicted=flat_predictions(manifest.predicted),
    )


class StoppableModel(BundleModel):
    """Draws samples until ``cancel`` is set; those that have not ended by then are not drawn."""

    def __init__(self, model: Model, cancel: threading.Event) -> None:
        super().__init__(model)
        self._cancel = cancel

    def engine(self, *arguments: Any, **options: Any) -> Engine:
        """The engine of verification, stopped by the event."""
        made = super().engine(*arguments, **options)
        made.cancel = self._cancel
        return made
