"""The stages of a run as methods of ``Run``: audit the sampler, draw replies, score tokens, temperature sweep.

With a store, drawing continues where a killed run stopped.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, cast

from edgedistill.verify.gate.sequential import SequentialGate
from edgedistill.verify.metrics.paired import compare
from edgedistill.verify.metrics.perturbations import SWEEP
from edgedistill.verify.models.bundle import BundleModel
from edgedistill.verify.models.endpoint import EndpointModel
from edgedistill.verify.models.procedure import ProcedureModel
from edgedistill.verify.models.sampler_check import check_sampler
from edgedistill.verify.options import VerifyOptions, spread
from edgedistill.verify.references.baseline import BaselineModel
from edgedistill.verify.report.build import collapse_is_open
from edgedistill.verify.report.tokens import PromptDivergences
from edgedistill.verify.sampling.deadline import TimeUpError
from edgedistill.verify.sampling.store import SampleStore, collect, store_header, store_path
from edgedistill.verify.scoring import compare_on, path_distance
from edgedistill.verify.stats.answer_counts import by_prompt
from edgedistill.verify.stats.betting import prompt_order
from edgedistill.verify.suites.registry import lacking_prompts
from edgedistill.verify.types import RunSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgedistill.progress import Progress
    from edgedistill.runtime.batch.request import DrawSettings, SampleKey
    from edgedistill.verify.gate.endpoints import Margins
    from edgedistill.verify.gate.sequential import SequentialState
    from edgedistill.verify.metrics.device_agreement import DeviceReport
    from edgedistill.verify.metrics.second_opinion import Opinion
    from edgedistill.verify.metrics.token_divergence import TokenDivergence
    from edgedistill.verify.models.sampler_check import NoisyModel
    from edgedistill.verify.options import AuditOptions, Preset
    from edgedistill.verify.sampling.deadline import Clock, Deadline
    from edgedistill.verify.sampling.protocol import SampledModel
    from edgedistill.verify.stats.sampler_audit import SamplerAudit
    from edgedistill.verify.types import Drawn, Prompt, Sample, Suite

SEQUENTIAL_STEP = 10
"""Number of prompts between two tests of a sequential run."""

_AUDITED_PROMPTS = 8
_PATH_TOKENS = 64


class Run:
    """The stages of a run, and the settings that they share.

    Args:
        suite: Of the prompts.
        settings: Sampling settings. ``reference_settings``: the reference's, if they differ.
        options: Of the run.
        plan: Size of the run; None: the options' preset.
        store: Directory of the samples; None: in memory.
        progress: Receives samples and steps.
        clock: Seconds, for time budgets.

    Attributes:
        deadline: When drawing of replies ends; None: never.
        coupled: Whether reference and bundle share their random numbers.
        notes: Sentences for the report, about requests that could not be met and what was left out.
    """

    def __init__(
        self,
        suite: Suite,
        settings: DrawSettings,
        options: AuditOptions,
        store: Path | None,
        progress: Progress,
        plan: Preset | None = None,
        *,
        reference_settings: DrawSettings | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        if options.second_opinion:
            from edgedistill.verify.sampling.second_opinion import require_math_verify

            require_math_verify()  # before anything is sampled
        self.notes: list[str] = lacking_prompts(suite, options.prompts)
        self.suite, self._settings, self._options = suite, settings, options
        self._of_reference = reference_settings or settings
        self._plan = plan or options.plan
        self._store, self._progress = store, progress
        self._kept: dict[tuple[str, str, DrawSettings], list[Drawn]] = {}
        self.coupled = True
        self.clock = clock
        self.deadline: Deadline | None = None

    def resized(
        self, options: VerifyOptions, plan: Preset, *, limit: int | None = None, suite: Suite | None = None
    ) -> Run:
        """The run with another size and, if they are given, another limit of tokens and suite; replies that were drawn
        with the same settings are kept.
        """
        settings, before = self._settings, self._of_reference
        if limit is not None:
            settings, before = settings.replace(max_new_tokens=limit), before.replace(max_new_tokens=limit)
        run = Run(suite or self.suite, settings, options, self._store, self._progress, plan, reference_settings=before)
        run.notes, run.coupled, run._kept = self.notes, self.coupled, self._kept
        run.clock, run.deadline = self.clock, self.deadline
        return run

    @property
    def plan(self) -> Preset:
        """Size of the run."""
        return self._plan

    @property
    def limit(self) -> int:
        """Longest reply in tokens, of either model."""
        return max(self._settings.max_new_tokens, self._of_reference.max_new_tokens)

    @property
    def thinking(self) -> bool | None:
        """Whether templates request reasoning; None: the template's default."""
        return self._settings.thinking

    def settings_of(self, margins: Margins | None, *, reference: bool = False) -> RunSettings:
        """The settings of the bundle or of the reference for the report; ``margins`` is None in an audit."""
        s = self._of_reference if reference else self._settings
        limits = {} if margins is None else {name: getattr(margins, name) for name in margins.__dataclass_fields__}
        return RunSettings(
            preset=self._options.label,
            samples=self._options.n_samples,
            temperature=s.temperature,
            top_p=s.top_p,
            top_k=s.top_k,
            min_p=s.min_p,
            repetition_penalty=s.repetition_penalty,
            max_new_tokens=s.max_new_tokens,
            seed=s.seed,
            numerics=s.numerics,
            coupled=self.coupled,
            sequential=isinstance(self._options, VerifyOptions) and self._options.sequential,
            level=1 - self._options.alpha,
            margins=limits,
            estimand=self._options.about if isinstance(self._options, VerifyOptions) else "suite",
        )

    def audit_sampler(
        self, model: SampledModel, prompts: Sequence[Prompt], *, reference: bool = False
    ) -> SamplerAudit | None:
        """Audit a model's sampler before samples are drawn. None if there is no sampler on this machine (a baseline, a
        server, a model that can only score) or, with a note, if decoding is deterministic.

        Raises:
            VerifyError: The sampler failed the audit.
        """
        if isinstance(model, BaselineModel | EndpointModel) or not model.can_draw:
            return None
        settings = self._of_reference if reference else self._settings
        if settings.deterministic:
            note = "The sampler was not audited: decoding was deterministic."
            self.notes += [] if note in self.notes else [note]
            return None
        here = cast("NoisyModel", model.here if isinstance(model, BundleModel) else model)
        # With a time budget there are few replies, and a long audit would take a large part of it.
        replies = 0 if self.deadline is not None else len(prompts) * self._options.n_samples
        here.cancel = self.deadline
        audited = spread(prompts, _AUDITED_PROMPTS)
        found = check_sampler(here, audited, settings, replies=replies, progress=self._progress)
        found.require_sound(model.identity.name)
        return found

    def devices(self, bundle: BundleModel | EndpointModel, prompts: Sequence[Prompt]) -> DeviceReport | None:
        """The devices that drew the bundle's samples, and how far they agree; also added to the notes."""
        found = bundle.devices(prompts, self._settings)
        self.notes += [] if found is None else found.sentences
        return found

    def draw(
        self,
        model: SampledModel,
        prompts: Sequence[Prompt],
        *,
        samples: int | None = None,
        temperature: float | None = None,
        reference: bool = False,
    ) -> list[Drawn]:
        """Samples of a model in order of prompt and index; those in the store are not drawn again.

        Args:
            model: To draw from.
            prompts: Of the suite.
            samples: Number per prompt; None: the options'.
            temperature: Replaces that of the settings.
            reference: Draw with the reference's settings.
        """
        count = self._options.n_samples if samples is None else samples
        settings = self._of_reference if reference else self._settings
        if temperature is not None:
            settings = settings.replace(temperature=temperature)
        with ExitStack() as stack:
            store = self._open_store(model, settings)
            if store is not None:
                stack.enter_context(store)
            kept = self._kept.setdefault((model.identity.name, model.identity.sha256, settings), [])
            known = {one.key for one in kept}
            model.cancel = self.deadline
            drawn = collect(model, prompts, count, settings, store, self._progress, kept)
            kept.extend(one for one in drawn if one.key not in known)  # the next round begins with them
            return drawn

    def _open_store(self, model: SampledModel, settings: DrawSettings) -> SampleStore | None:
        if self._store is None or isinstance(model, BaselineModel | EndpointModel):
            return None
        what = model.procedure.label if isinstance(model, ProcedureModel) else "samples"
        header = store_header(self.suite, settings, model.identity, what=what)
        return SampleStore.open(store_path(self._store, header, model.identity.name), header)

    def draw_anew(
        self, model: SampledModel, prompts: Sequence[Prompt], samples: int, *, reference: bool = False
    ) -> list[Drawn]:
        """Draw the first samples of some prompts even if they are stored; ``draw`` uses them afterwards.

        An unusable store raises before anything is drawn.
        """
        settings = self._of_reference if reference else self._settings
        if reference and (store := self._open_store(model, settings)) is not None:
            store.close()
        model.cancel = self.deadline
        drawn = collect(model, prompts, samples, settings, None, self._progress)
        self._kept.setdefault((model.identity.name, model.identity.sha256, settings), []).extend(drawn)
        return drawn

    def answer(
        self, bundle: BundleModel, prompts: Sequence[Prompt], begun: Mapping[SampleKey, tuple[int, ...]]
    ) -> list[Drawn]:
        """The bundle's replies that begin with given tokens, in order of prompt and index. Raises TimeUpError."""
        bundle.cancel = self.deadline
        drawn = {one.key: one for one in bundle.answer(prompts, begun, self._settings, progress=self._progress)}
        if len(drawn) < len(begun):
            raise TimeUpError("inconclusive: the time budget ended in the screening.", hint="Give more --time-budget.")
        return [drawn[key] for key in begun]

    def until_decided(
        self, reference: SampledModel, bundle: SampledModel, prompts: Sequence[Prompt], margins: Margins
    ) -> tuple[list[Drawn], list[Drawn], SequentialState]:
        """Draw prompts in random order, some at a time, until everything is decided or no prompts are left.

        If the endpoints pass while the collapse verdict is not certain, the run would be inconclusive, so it continues
        until that verdict is certain. This does not invalidate the tests: the bets of the endpoints hold at any
        stopping time, and their decisions stay. The collapse verdict is not one of these tests. It can prevent a pass,
        but makes no endpoint more likely to pass, and it has no guaranteed error rate over looks: of equal models at or
        near its threshold, drawn with different random numbers, 1 of 75 simulated runs failed because of it.
        """
        by_id = {prompt.id: prompt for prompt in prompts}
        order = [by_id[prompt_id] for prompt_id in prompt_order(list(by_id), self._settings.seed)]
        gate = SequentialGate(margins, alpha=self._options.alpha)
        reference_drawn: list[Drawn] = []
        bundle_drawn: list[Drawn] = []
        passed_at: int | None = None
        state = gate.state()
        while len(bundle_drawn) < len(order) * self._options.n_samples:
            at = len(bundle_drawn) // self._options.n_samples
            # A single prompt cannot be compared, so the last step includes it.
            stop = len(order) if len(order) - at <= SEQUENTIAL_STEP + 1 else at + SEQUENTIAL_STEP
            try:
                before = self.draw(reference, order[at:stop], reference=True)
                after = self.draw(bundle, order[at:stop])
            except TimeUpError:
                if not bundle_drawn:
                    raise
                self.notes.append(f"The time budget ended after {at} of {len(order)} prompts.")
                break
            reference_drawn += before
            bundle_drawn += after
            state = gate.update(compare(_groups(before), _groups(after), limit=self._settings.max_new_tokens))
            if state.outcome == "fail" or (
                state.outcome == "pass" and not self._collapse_is_open(reference_drawn, bundle_drawn)
            ):
                break
            if state.outcome == "pass" and passed_at is None:
                passed_at = stop
        asked = len(bundle_drawn) // self._options.n_samples
        if passed_at is not None and asked > passed_at:
            self.notes.append(
                f"The endpoints had passed after {passed_at} prompts; {asked - passed_at} more were asked because the "
                "collapse verdict was not certain."
            )
        return reference_drawn, bundle_drawn, state

    def _collapse_is_open(self, reference_drawn: Sequence[Drawn], bundle_drawn: Sequence[Drawn]) -> bool:
        return collapse_is_open(
            self.suite,
            [one.sample for one in reference_drawn],
            [one.sample for one in bundle_drawn],
            deterministic=self._settings.deterministic or self._of_reference.deterministic,
            level=1 - self._options.alpha,
            seed=self._settings.seed,
        )

    def opinion(self, prompts: Sequence[Prompt], *drawn: Sequence[Drawn]) -> Opinion | None:
        """math-verify's judgement on the keys of all these samples; None if the options do not request it."""
        if not self._options.second_opinion:
            return None
        from edgedistill.verify.sampling.second_opinion import ask

        return ask(prompts, [one.sample for part in drawn for one in part], self._progress)

    def divergences(
        self,
        reference: SampledModel,
        bundle: BundleModel | EndpointModel,
        prompts: Sequence[Prompt],
        reference_drawn: Sequence[Drawn],
        bundle_drawn: Sequence[Drawn],
    ) -> list[PromptDivergences]:
        """Divergences teacher-forced, on-policy, and between the bundle's own paths, on the plan's number of
        replies."""
        if isinstance(bundle, EndpointModel) or isinstance(reference, EndpointModel):
            self.notes.append("A server gives text and no logits: there are no divergences by token.")
            return []
        scored = spread(prompts, self._plan.scored_prompts) if self._plan.scored_prompts else []
        with_path = {prompt.id for prompt in spread(scored, self._plan.path_replies)}
        on_policy = self._plan.on_policy and reference.can_score
        if self._plan.on_policy and not reference.can_score:
            self.notes.append("On-policy divergences need the reference itself; a baseline holds its own samples only.")
        known = reference.scored_keys if isinstance(reference, BaselineModel) else None
        found = []
        if scored:
            self._progress.begin("scoring tokens", len(scored), "items")
        for number, prompt in enumerate(scored):
            if self.deadline is not None and self.deadline.is_set():
                self.notes.append(f"The time budget left tokens of {number} of {len(scored)} prompts to be scored.")
                break
            forced = self._sequences(
                prompt, [drawn for drawn in reference_drawn if known is None or drawn.key in known]
            )
            own = self._sequences(prompt, bundle_drawn) if on_policy else []
            thinking = self._settings.thinking
            found.append(
                PromptDivergences(
                    prompt.id,
                    tuple(compare_on(reference, bundle, prompt, forced, thinking=thinking)) if forced else (),
                    tuple(compare_on(bundle, reference, prompt, own, thinking=thinking)) if own else (),
                    self.path(bundle, prompt, bundle_drawn) if prompt.id in with_path else (),
                )
            )
            self._progress.advance(1)
        if scored:
            self._progress.end()
        return found

    def path(self, bundle: BundleModel, prompt: Prompt, drawn: Sequence[Drawn]) -> tuple[TokenDivergence, ...]:
        """Divergence between scoring and decoding on the first tokens of one reply; empty without a reply."""
        sequences = self._sequences(prompt, drawn)[:1]
        if not sequences:
            return ()
        return (path_distance(bundle, prompt, [sequences[0][:_PATH_TOKENS]], thinking=self._settings.thinking),)

    def _sequences(self, prompt: Prompt, drawn: Sequence[Drawn]) -> list[tuple[int, ...]]:
        own = [one.token_ids for one in drawn if one.sample.prompt_id == prompt.id and one.token_ids]
        return own[: self._plan.scored_samples]

    def sweep(self, bundle: BundleModel, prompts: Sequence[Prompt]) -> dict[float, list[Drawn]]:
        """Samples at each temperature of the sweep, the same number at all, since entropies depend on it."""
        chosen = spread(prompts, self._plan.sweep_prompts)
        samples = self._plan.sweep_samples
        return {
            temperature: self.draw(bundle, chosen, samples=samples, temperature=temperature) for temperature in SWEEP
        }


def _groups(drawn: Sequence[Drawn]) -> dict[str, list[Sample]]:
    return by_prompt(one.sample for one in drawn)
