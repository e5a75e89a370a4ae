"""Runs that score the answers of a procedure (single, vote, deliberate), alone or against those of a reference bundle.

>>> report = verify_procedure("my-bundle", Procedure("vote", 8), reference="my-fp32-bundle")
>>> report.procedure.bundle.vote_at_k, report.gate.result.outcome
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.errors import UsageError
from edgedistill.progress import NullProgress
from edgedistill.verify.basis import basis_of
from edgedistill.verify.metrics.procedure_score import ProcedureReport, procedure_change, procedure_score
from edgedistill.verify.models.bundle import BundleModel, open_sampled
from edgedistill.verify.models.procedure import ProcedureModel
from edgedistill.verify.options import AuditOptions, VerifyOptions
from edgedistill.verify.references.open import open_reference
from edgedistill.verify.report.build import Provenance, analyse
from edgedistill.verify.report.extras import ModelSamples
from edgedistill.verify.report.model import TokenReport, VerifyReport
from edgedistill.verify.run import compared, differences
from edgedistill.verify.sampling.protocol import require_same_source, require_same_vocabulary
from edgedistill.verify.stages import Run
from edgedistill.verify.suites.registry import load_suite

if TYPE_CHECKING:
    from edgedistill.progress import Progress
    from edgedistill.verify.cluster.client import Cluster
    from edgedistill.verify.types import Procedure, Suite


def verify_procedure(
    bundle: str | Path,
    procedure: Procedure,
    *,
    reference: str | Path | None = None,
    suite: str | Path | Suite = "arithmetic",
    options: AuditOptions | None = None,
    store: Path | None = None,
    progress: Progress | None = None,
    cluster: Cluster | None = None,
) -> VerifyReport:
    """Score a bundle's answers; with a reference, decide whether they are as good as the reference's.

    Args:
        bundle: Bundle directory.
        reference: Bundle directory; None: no gate, the report is an audit's.
        suite: Name of a built-in suite, path of a file, or a suite.
        options: Samples are answers: by default the preset's number divided by the trajectories of each (at least 2),
            so that every procedure costs about the same.
        store, progress: As for ``verify``.
        cluster: Has to be None: answers are computed on this machine.

    Raises:
        UsageError: Options that a procedure excludes, a cluster, or a reference that is not a bundle.
        EdgedistillError: See ``verify``.
    """
    if cluster is not None:
        raise UsageError("Answers of a procedure are computed on one machine.", hint="Leave out cluster or procedure.")
    options = options or VerifyOptions()
    sequential = isinstance(options, VerifyOptions) and options.sequential
    if sequential and reference is None:
        raise UsageError("Without a reference there is no gate to stop early.", hint="Drop --sequential.")
    samples = options.samples or max(2, options.n_samples // procedure.options.count)
    options = replace(options, samples=samples)
    loaded = load_suite(suite) if isinstance(suite, str | Path) else suite
    progress = progress or NullProgress()
    with ExitStack() as stack:
        bundle_model = ProcedureModel(stack.enter_context(closing(open_sampled(bundle))), procedure)
        reference_model = None
        if reference is not None:
            opened = stack.enter_context(closing(open_reference(reference, bundle)))
            if not isinstance(opened, BundleModel):
                raise UsageError(
                    f"The reference {reference} is not a bundle, and a procedure needs one that decodes here.",
                    hint="Export it: edgedistill export MODEL --format fp32 -o DIR",
                )
            reference_model = ProcedureModel(opened, procedure)
            require_same_vocabulary(reference_model.identity, bundle_model.identity)
            require_same_source(reference_model.identity, bundle_model.identity)
        return _run(bundle_model, reference_model, loaded, options, store, progress)


def _run(
    bundle_model: ProcedureModel,
    reference_model: ProcedureModel | None,
    suite: Suite,
    options: AuditOptions,
    store: Path | None,
    progress: Progress,
) -> VerifyReport:
    prompts = options.choose(suite)
    defaults = (
        (bundle_model if reference_model is None else reference_model).generation_defaults,
        bundle_model.generation_defaults,
    )
    of_reference, settings = options.both_settings(suite.sampling, *defaults)
    if settings.deterministic or of_reference.deterministic:
        raise UsageError(
            "Decoding is deterministic at these settings, so all trajectories would be equal.",
            hint="Use --temperature 0.6 and a top-k above 1.",
        )
    basis = None
    if reference_model is not None:
        gated = options if isinstance(options, VerifyOptions) else VerifyOptions()
        basis = basis_of(bundle_model.bundle, suite, prompts, gated)
        prompts = basis.prompts
    run = Run(suite, settings, options, store, progress, reference_settings=of_reference)
    run.notes += [] if basis is None else basis.notes
    sampler = run.audit_sampler(bundle_model.bundle, prompts)
    reference_sampler, before, state = None, None, None
    if reference_model is None or basis is None:
        after = run.draw(bundle_model, prompts)
        report = analyse(
            suite,
            run.settings_of(None),
            ModelSamples(
                bundle_model.identity, after, opinion=run.opinion(prompts, after), shipped=bundle_model.shipped
            ),
            provenance=Provenance.here(),
            sampler=sampler,
            notes=run.notes,
        )
    else:
        reference_sampler = run.audit_sampler(reference_model.bundle, prompts, reference=True)
        if isinstance(options, VerifyOptions) and options.sequential:
            before, after, state = run.until_decided(reference_model, bundle_model, prompts, basis.margins)
        else:
            before = run.draw(reference_model, prompts, reference=True)
            after = run.draw(bundle_model, prompts)
        both = (bundle_model, after), (reference_model, before)
        report = compared(run, *both, prompts, basis.margins, sampler=sampler, sequential=state)
    procedure = bundle_model.procedure
    level, seed = report.settings.level, settings.seed
    scored = ProcedureReport(
        procedure.name,
        procedure.options.count,
        procedure.vote,
        procedure_score(after, procedure.name, level=level, seed=seed),
        None if before is None else procedure_score(before, procedure.name, level=level, seed=seed),
        None if before is None else procedure_change(after, before, procedure.name, level=level, seed=seed),
    )
    # Without token scores: those of the final text say nothing about the trajectories behind it.
    shipped = (
        () if reference_model is None else differences(reference_model, bundle_model, (of_reference, settings), prompts)
    )
    return replace(report, procedure=scored, tokens=TokenReport(), reference_sampler=reference_sampler, shipped=shipped)
