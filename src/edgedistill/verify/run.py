"""Runs a verification or an audit: audit the samplers, draw samples, score tokens, analyse. Runs can be resumed.

>>> report = edgedistill.verify("my-bundle", reference="my-fp32-bundle", suite="arithmetic")
>>> report.gate.result.outcome
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.errors import UsageError
from edgedistill.progress import NullProgress, say
from edgedistill.verify.basis import basis_of
from edgedistill.verify.cluster.model import SpreadBundle, spread_over
from edgedistill.verify.models.bundle import BundleModel, open_sampled
from edgedistill.verify.models.endpoint import EndpointModel, is_address
from edgedistill.verify.options import AuditOptions, VerifyOptions, spread
from edgedistill.verify.pilot import LAST_REPLY, pilot_prompts
from edgedistill.verify.plan import planned
from edgedistill.verify.population import with_enough
from edgedistill.verify.references.baseline import BaselineModel, as_dictated, other_versions
from edgedistill.verify.references.open import open_reference
from edgedistill.verify.report.build import Provenance, analyse
from edgedistill.verify.report.extras import ModelSamples
from edgedistill.verify.report.tokens import PromptDivergences
from edgedistill.verify.rounds import Drawing, as_drawn, draw_in_rounds
from edgedistill.verify.sampling.deadline import Deadline
from edgedistill.verify.sampling.protocol import require_same_source, require_same_vocabulary
from edgedistill.verify.sampling.shipped import compare_shipped
from edgedistill.verify.screening import as_screened, screened_plan
from edgedistill.verify.stages import Run
from edgedistill.verify.suites.registry import load_suite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.progress import Progress
    from edgedistill.runtime.batch.request import DrawSettings
    from edgedistill.verify.cluster.client import Cluster
    from edgedistill.verify.gate.decide import Levels
    from edgedistill.verify.gate.endpoints import Margins
    from edgedistill.verify.gate.sequential import SequentialState
    from edgedistill.verify.models.torch_weights import Device
    from edgedistill.verify.report.model import VerifyReport
    from edgedistill.verify.sampling.deadline import Clock
    from edgedistill.verify.sampling.protocol import SampledModel
    from edgedistill.verify.stats.sampler_audit import SamplerAudit
    from edgedistill.verify.types import Drawn, Prompt, ShippedDifference, Suite


def verify(
    bundle: str | Path,
    *,
    reference: str | Path,
    suite: str | Path | Suite = "arithmetic",
    options: VerifyOptions | None = None,
    store: Path | None = None,
    progress: Progress | None = None,
    cluster: Cluster | None = None,
    device: Device = "cpu",
    clock: Clock = time.perf_counter,
) -> VerifyReport:
    """Compare a bundle with its reference and decide.

    Args:
        bundle: Bundle directory, or the address of an OpenAI-compatible server.
        reference: An fp32 bundle, ``hf`` or ``hf:CHECKPOINT`` (the original in PyTorch), a baseline file, or the
            address of an OpenAI-compatible server.
        suite: Name of a built-in suite, path of a file, or a suite.
        options: Of the run.
        store: Directory where samples are kept, so that a killed run continues and a reference is drawn only once;
            None: in memory.
        progress: Receives samples and steps.
        cluster: Its workers draw the samples of bundles; None: this machine.
        device: Device of PyTorch (``hf``).
        clock: Seconds, for a time budget.

    Raises:
        EdgedistillError: Anything that prevents a verdict; the message is one line.
    """
    options, began = options or VerifyOptions(), clock()
    loaded = load_suite(suite) if isinstance(suite, str | Path) else suite
    with ExitStack() as stack:
        bundle_model = stack.enter_context(closing(_opened(bundle, cluster)))
        reference_model = spread_over(
            cluster, stack.enter_context(closing(open_reference(reference, bundle, device=device)))
        )
        more: dict[str, Any] = {"store": store, "progress": progress, "clock": clock, "began": began}
        return verify_models(bundle_model, reference_model, loaded, options, **more)


def _opened(bundle: str | Path, cluster: Cluster | None) -> BundleModel | EndpointModel:
    if is_address(bundle):
        if cluster is not None:
            raise UsageError("A cluster draws samples of bundles, not of servers.", hint="Drop --dask.")
        return EndpointModel(str(bundle))
    return _bundle(bundle, cluster)


def _bundle(bundle: str | Path, cluster: Cluster | None) -> BundleModel:
    model = open_sampled(bundle)
    return model if cluster is None else SpreadBundle(model, cluster)


def verify_models(
    bundle: BundleModel | EndpointModel,
    reference: SampledModel,
    suite: Suite,
    options: VerifyOptions,
    *,
    store: Path | None = None,
    progress: Progress | None = None,
    clock: Clock = time.perf_counter,
    began: float | None = None,
) -> VerifyReport:
    """``verify`` with models that are already open; ``began``: start of the time budget on ``clock`` (None: now)."""
    progress, began = progress or NullProgress(), clock() if began is None else began
    require_same_vocabulary(reference.identity, bundle.identity)
    require_same_source(reference.identity, bundle.identity)
    notes: list[str] = []
    if isinstance(reference, BaselineModel):
        options, prompts, before, settings, notes = as_dictated(suite, reference, bundle, options)
        notes += other_versions(reference.baseline)
    else:
        prompts = options.choose(suite)
        # A server has no settings of its own here: it is sampled like the other model.
        known = bundle if bundle.shipped is not None else reference
        defaults = reference.generation_defaults, known.generation_defaults
        before, settings = options.both_settings(suite.sampling, *defaults)
    margins, prompts, about = basis_of(bundle, suite, prompts, options)
    notes += about
    if not isinstance(reference, BaselineModel) and (more := with_enough(suite, prompts, margins, options)):
        suite, prompts = more.suite, list(more.suite.prompts)
        notes.append(more.sentence)
        say(progress, more.sentence)
    run = Run(suite, settings, options, store, progress, reference_settings=before, clock=clock)
    run.notes += notes
    run.coupled = all(shares_noise(model) for model in (reference, bundle))
    budget = options.time_budget
    if budget is not None:
        run.deadline = Deadline(began + LAST_REPLY * budget, clock)
    shipped = differences(reference, bundle, (before, settings), prompts)
    sampler = run.audit_sampler(bundle, prompts)
    if not getattr(reference, "can_draw", True):
        return replace(_without_samples(run, reference, bundle, prompts, sampler), shipped=shipped)
    reference_sampler = run.audit_sampler(reference, prompts, reference=True)
    pilot = () if budget is None else pilot_prompts(prompts)
    run, options, prompts = planned(run, reference, bundle, prompts, options, margins, began, progress)
    state = None
    if options.sequential:
        reference_drawn, bundle_drawn, state = run.until_decided(reference, bundle, prompts, margins)
        drawing = Drawing(prompts, reference_drawn, bundle_drawn, options.n_samples)
    else:
        drawing = draw_in_rounds(run, reference, bundle, prompts, margins, options, pilot)
        run = _as_drawn(run, options, drawing)
    prompts, reference_drawn, bundle_drawn = drawing.prompts, drawing.reference_drawn, drawing.bundle_drawn
    if budget is not None:
        run.deadline = Deadline(began + budget, clock)
    asked = [prompt for prompt in prompts if any(drawn.sample.prompt_id == prompt.id for drawn in bundle_drawn)]
    divergences = run.divergences(reference, bundle, asked, reference_drawn, bundle_drawn)
    devices = run.devices(bundle, prompts)
    report = compared(
        run,
        (bundle, bundle_drawn),
        (reference, reference_drawn),
        asked,
        margins,
        divergences=divergences,
        sampler=sampler,
        sequential=state,
        levels=drawing.levels if state is None else None,
    )
    report = replace(report, devices=devices, reference_sampler=reference_sampler, shipped=shipped)
    return report if drawing.failed is None else as_screened(report)


def compared(
    run: Run,
    bundle: tuple[SampledModel, Sequence[Drawn]],
    reference: tuple[SampledModel, Sequence[Drawn]],
    prompts: Sequence[Prompt],
    margins: Margins,
    *,
    sampler: SamplerAudit | None,
    sequential: SequentialState | None,
    divergences: Sequence[PromptDivergences] = (),
    levels: Levels | None = None,
) -> VerifyReport:
    """The report on two models and their samples; ``prompts`` are those with samples, the rest as for ``analyse``."""
    opinion = run.opinion(prompts, reference[1], bundle[1])
    after, before = (
        ModelSamples(
            model.identity,
            drawn,
            opinion=opinion,
            shipped=model.shipped,
            settings=run.settings_of(margins, reference=of_reference),
        )
        for (model, drawn), of_reference in ((bundle, False), (reference, True))
    )
    return analyse(
        run.suite,
        run.settings_of(margins),
        after,
        before,
        margins=margins,
        provenance=Provenance.here(),
        divergences=divergences,
        sampler=sampler,
        sequential=sequential,
        levels=levels,
        notes=run.notes,
    )


def _as_drawn(run: Run, options: VerifyOptions, drawing: Drawing) -> Run:
    """The run with the size at which it ended, and with a note if it ended early."""
    if not drawing.ended and drawing.failed is None:
        return run
    run.notes += [drawing.ended] if drawing.ended else []
    plan = run.plan if drawing.failed is None else screened_plan(run.plan)
    return run.resized(as_drawn(options, drawing), plan)


def shares_noise(model: SampledModel) -> bool:
    """Whether a model's samples are drawn with the random numbers that bundles and PyTorch models share."""
    if isinstance(model, BaselineModel):
        return model.shares_noise
    return not isinstance(model, EndpointModel)


def differences(
    reference: SampledModel,
    bundle: SampledModel,
    settings: tuple[DrawSettings, DrawSettings],
    prompts: Sequence[Prompt],
) -> tuple[ShippedDifference, ...]:
    """Differences of the two models beside their weights; ``settings`` are the sampling settings of each."""
    reference_replies, bundle_replies = (
        getattr(getattr(model, "bundle", model), "replies", None) for model in (reference, bundle)
    )
    replies = None if reference_replies is None or bundle_replies is None else (reference_replies, bundle_replies)
    return compare_shipped(reference.shipped, bundle.shipped, settings, replies=replies, prompts=prompts)


def _without_samples(
    run: Run,
    reference: SampledModel,
    bundle: BundleModel | EndpointModel,
    prompts: list[Prompt],
    sampler: SamplerAudit | None,
) -> VerifyReport:
    """The report with an original that can only score: divergences on the bundle's replies, and no gate."""
    drawn = run.draw(bundle, prompts)
    found = run.divergences(reference, bundle, prompts, (), drawn)
    note = (
        f"{reference.identity.name} does not fit the memory, so that it scored the bundle's replies and drew none of "
        "its own: there is no gate. A baseline made on a larger machine would allow one."
    )
    devices = run.devices(bundle, prompts)
    report = analyse(
        run.suite,
        run.settings_of(None),
        ModelSamples(bundle.identity, drawn, opinion=run.opinion(prompts, drawn), shipped=bundle.shipped),
        provenance=Provenance.here(),
        divergences=found,
        sampler=sampler,
        notes=(*run.notes, note),
    )
    return replace(report, reference=reference.identity, devices=devices)


def audit(
    bundle: str | Path,
    *,
    suite: str | Path | Suite = "arithmetic",
    options: AuditOptions | None = None,
    store: Path | None = None,
    progress: Progress | None = None,
    cluster: Cluster | None = None,
) -> VerifyReport:
    """Examine one model alone: consistency, collapse, perturbations, a temperature sweep.

    Args:
        bundle: Bundle directory.
        suite, store, progress, cluster: As for ``verify``.
        options: Of the audit.

    Raises:
        EdgedistillError: See ``verify``.
    """
    options = options or AuditOptions()
    loaded = load_suite(suite) if isinstance(suite, str | Path) else suite
    with closing(_bundle(bundle, cluster)) as model:
        return audit_model(model, loaded, options, store=store, progress=progress)


def audit_model(
    bundle: BundleModel,
    suite: Suite,
    options: AuditOptions,
    *,
    store: Path | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """``audit`` of a model that is already open."""
    if isinstance(options, VerifyOptions) and options.sequential:
        raise UsageError("An audit has no reference, so there is no gate to stop early.")
    prompts = options.choose(suite)
    settings = options.draw_settings(suite.sampling, bundle.generation_defaults)
    run = Run(suite, settings, options, store, progress or NullProgress())
    sampler = run.audit_sampler(bundle, prompts)
    drawn = run.draw(bundle, prompts)
    ids = {prompt.id for prompt in prompts}
    samples = options.plan.variant_samples
    variants = [v for v in suite.variants if samples and (v.variant_of is None or v.variant_of in ids)]
    varied = run.draw(bundle, variants, samples=max(2, samples)) if variants else []
    sweep = {} if settings.deterministic else run.sweep(bundle, prompts)
    model = ModelSamples(bundle.identity, drawn, varied, sweep, run.opinion(prompts, drawn), shipped=bundle.shipped)
    path = [
        PromptDivergences(p.id, path=run.path(bundle, p, drawn)) for p in spread(prompts, options.plan.path_replies)
    ]
    devices = run.devices(bundle, prompts)
    report = analyse(
        suite,
        run.settings_of(None),
        model,
        provenance=Provenance.here(),
        divergences=[entry for entry in path if entry.path],
        sampler=sampler,
        notes=run.notes,
    )
    return replace(report, devices=devices)
