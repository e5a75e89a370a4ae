"""The runs: audit of the samplers, samples of both models, divergences, analysis; in this order, resumable.

>>> report = edgedistill.verify("my-bundle", reference="my-fp32-bundle", suite="arithmetic")
>>> report.gate.result.outcome
"""

from __future__ import annotations

import warnings
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.errors import UsageError
from edgedistill.progress import NullProgress
from edgedistill.verify.cluster.model import SpreadBundle, spread_over
from edgedistill.verify.gate.endpoints import Margins
from edgedistill.verify.gate.reach import out_of_reach
from edgedistill.verify.models.bundle import BundleModel, open_sampled
from edgedistill.verify.options import AuditOptions, VerifyOptions, resolve_margins, spread
from edgedistill.verify.references.baseline import BaselineModel, as_dictated, other_versions
from edgedistill.verify.references.open import open_reference
from edgedistill.verify.report.build import analyse
from edgedistill.verify.report.extras import ModelSamples
from edgedistill.verify.report.provenance import provenance
from edgedistill.verify.report.tokens import PromptDivergences
from edgedistill.verify.sampling.protocol import require_same_source, require_same_vocabulary
from edgedistill.verify.stages import Run
from edgedistill.verify.suites.registry import load_suite, require_gold

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgedistill.progress import Progress
    from edgedistill.verify.cluster.client import Cluster
    from edgedistill.verify.report.model import VerifyReport
    from edgedistill.verify.sampling.protocol import SampledModel
    from edgedistill.verify.stats.sampler_audit import SamplerAudit
    from edgedistill.verify.types import Prompt, Suite


def verify(
    bundle: str | Path,
    *,
    reference: str | Path,
    suite: str | Path | Suite = "arithmetic",
    options: VerifyOptions | None = None,
    store: Path | None = None,
    progress: Progress | None = None,
    cluster: Cluster | None = None,
) -> VerifyReport:
    """Compare a bundle with its reference and decide.

    Args:
        bundle: Bundle directory.
        reference: An fp32 bundle, ``hf`` or ``hf:CHECKPOINT`` (the original in PyTorch), or a baseline file.
        suite: Name of a built-in suite, path of a file, or a suite.
        store: Directory for samples, so that a run that was killed goes on and a reference is drawn once; None keeps
            them in memory.
        cluster: Whose workers draw the samples of bundles; None: this machine.

    Raises:
        EdgedistillError: whatever keeps a verdict from being reached, in one line.
    """
    options = options or VerifyOptions()
    loaded = load_suite(suite) if isinstance(suite, str | Path) else suite
    with ExitStack() as stack:
        ours = stack.enter_context(closing(_opened(bundle, cluster)))
        theirs = spread_over(cluster, stack.enter_context(closing(open_reference(reference, bundle))))
        return verify_models(ours, theirs, loaded, options, store=store, progress=progress)


def _opened(bundle: str | Path, cluster: Cluster | None) -> BundleModel:
    model = open_sampled(bundle)
    return model if cluster is None else SpreadBundle(model, cluster)


def verify_models(
    bundle: BundleModel,
    reference: SampledModel,
    suite: Suite,
    options: VerifyOptions,
    *,
    store: Path | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """``verify`` of models that are open already."""
    progress = progress or NullProgress()
    require_same_vocabulary(reference.identity, bundle.identity)
    require_same_source(reference.identity, bundle.identity)
    notes: list[str] = []
    if isinstance(reference, BaselineModel):
        options, prompts, settings, notes = as_dictated(suite, reference, bundle, options)
        notes += other_versions(reference.baseline)
    else:
        prompts = options.choose(suite)
        settings = options.draw_settings(suite.sampling, bundle.generation_defaults)
    margins = resolve_margins(bundle_margins(bundle), options.margins)
    require_margins(suite, options.margins)
    run = Run(suite, settings, options, store, progress)
    run.notes += notes
    sampler = run.audit_sampler(bundle, prompts)
    if not getattr(reference, "can_draw", True):
        return _without_samples(run, reference, bundle, prompts, sampler)
    told = out_of_reach(
        len(prompts),
        margins,
        options.n_samples,
        estimand=options.about,
        alpha=options.alpha,
        gold=suite.has_gold,
        sequential=options.sequential,
    )
    if told:
        warnings.warn(told, stacklevel=2)  # before it costs hours
        run.notes.append(told)
    reference_sampler = run.audit_sampler(reference, prompts)
    state = None
    if options.sequential:
        theirs, ours, state = run.until_decided(reference, bundle, prompts, margins)
    else:
        theirs = run.draw(reference, prompts)
        ours = run.draw(bundle, prompts)
    asked = [prompt for prompt in prompts if any(drawn.sample.prompt_id == prompt.id for drawn in ours)]
    divergences = run.divergences(reference, bundle, asked, theirs, ours)
    devices = run.devices(bundle, prompts)
    opinion = run.opinion(asked, theirs, ours)
    report = analyse(
        suite,
        run.settings_of(margins),
        ModelSamples(bundle.identity, ours, opinion=opinion),
        ModelSamples(reference.identity, theirs, opinion=opinion),
        margins=margins,
        provenance=provenance(),
        divergences=divergences,
        sampler=sampler,
        sequential=state,
        notes=run.notes,
    )
    return replace(report, devices=devices, reference_sampler=reference_sampler)


def _without_samples(
    run: Run, reference: SampledModel, bundle: BundleModel, prompts: list[Prompt], sampler: SamplerAudit | None
) -> VerifyReport:
    """An original that can only score: divergences on the bundle's replies, and no gate."""
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
        ModelSamples(bundle.identity, drawn, opinion=run.opinion(prompts, drawn)),
        provenance=provenance(),
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
    """Examine one model alone: the bound that its samples support, collapse, perturbations, a temperature sweep.

    Raises:
        EdgedistillError: as ``verify``.
    """
    options = options or AuditOptions()
    loaded = load_suite(suite) if isinstance(suite, str | Path) else suite
    with closing(_opened(bundle, cluster)) as model:
        return audit_model(model, loaded, options, store=store, progress=progress)


def audit_model(
    bundle: BundleModel,
    suite: Suite,
    options: AuditOptions,
    *,
    store: Path | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """``audit`` of a model that is open already."""
    if isinstance(options, VerifyOptions) and options.sequential:
        raise UsageError("an audit has no reference, so there is no gate to stop early.")
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
    model = ModelSamples(bundle.identity, drawn, varied, sweep, run.opinion(prompts, drawn))
    path = [
        PromptDivergences(p.id, path=run.path(bundle, p, drawn)) for p in spread(prompts, options.plan.path_replies)
    ]
    devices = run.devices(bundle, prompts)
    report = analyse(
        suite,
        run.settings_of(None),
        model,
        provenance=provenance(),
        divergences=[entry for entry in path if entry.path],
        sampler=sampler,
        notes=run.notes,
    )
    return replace(report, devices=devices)


def require_margins(suite: Suite, asked: Mapping[str, float]) -> None:
    """Raises SuiteError for a margin that was asked for and that the suite cannot be held to."""
    if "accuracy" in asked:
        require_gold(suite, "the margin `accuracy`")


def bundle_margins(bundle: BundleModel) -> Margins:
    """The margins of the profile that the bundle was made for."""
    table = bundle.model.bundle.manifest.profile.get("verify", {})
    known = {name: float(value) for name, value in table.items() if name in Margins.__dataclass_fields__}
    return Margins(**known)
